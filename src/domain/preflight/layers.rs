//! Indexes of layers from their archives, of any origin: what is odd in them is passed over, since runtimes unpack them too.

use std::io::{self, Read};

use tar::{Archive, Entry, EntryType};

use crate::domain::{
    archive::{Extension, Taken},
    recipe::Owner,
    tree::TreePath,
};

use super::{
    gather::Gatherer,
    index::{Facts, Kind, LayerIndex, Node, Origin},
};

/// A file of this name deletes the file whose name follows (OCI image-spec, layer.md "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// One of this name hides everything that the layers below have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
const CHUNK: usize = 64 << 10;

/// Reads the uncompressed archive of a layer to its end.
///
/// # Errors
/// When the stream fails or is no tar archive.
pub fn index_layer(archive: impl Read) -> io::Result<LayerIndex> {
    let mut archive = Archive::new(archive);
    let mut gatherer = Gatherer::default();
    let mut extension = Extension::default();
    let mut buffer = vec![0; CHUNK];
    // Raw: the crate would read extended headers of any size into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        if extend(&mut extension, &mut entry)? {
            continue;
        }
        let extension = std::mem::take(&mut extension);
        let is_whole = !extension.sparse && extension.size.is_none_or(|size| size == entry.size());
        if !take(&mut gatherer, extension, &entry) || !is_whole {
            continue;
        }
        loop {
            match entry.read(&mut buffer)? {
                0 => break,
                count => gatherer.content(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
    Ok(gatherer.finish())
}

/// Takes an entry that says more of the next one; whether it was such.
fn extend(extension: &mut Extension, entry: &mut Entry<'_, impl Read>) -> io::Result<bool> {
    match extension.take(entry)? {
        Taken::Not => Ok(false),
        // What is too long are attributes, most likely: a name is never that long.
        Taken::Whole | Taken::TooLong => Ok(true),
        Taken::Malformed => Err(io::Error::other("an extended header is malformed")),
    }
}

/// Takes one entry; whether its content is wanted.
fn take(gatherer: &mut Gatherer, extension: Extension, entry: &Entry<'_, impl Read>) -> bool {
    let header = entry.header();
    let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let ends_with_slash = path.ends_with(b"/");
    let path = normal(&path);
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(end) => (path.get(..end).unwrap_or_default(), path.get(end + 1..).unwrap_or_default()),
        None => (&[][..], &path[..]),
    };
    if name == OPAQUE {
        if let Ok(directory) = TreePath::new(parent) {
            gatherer.delete(directory, true);
        }
        return false;
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if let Ok(hidden) = TreePath::new(normal(&[parent, b"/", hidden].concat())) {
            gatherer.delete(hidden, false);
        }
        return false;
    }
    // The root itself, and names that no file can have.
    let Ok(path) = TreePath::new(path) else { return false };
    let link = extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let link = link.unwrap_or_default();
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        // Before POSIX 1988 a directory was a file with a slash at its end.
        EntryType::Regular if ends_with_slash => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(Facts::Unseen),
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Link => match TreePath::new(normal(&link)) {
            Ok(target) => Kind::HardLink(target),
            Err(_) => return false,
        },
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Other,
        _ => return false,
    };
    let number = |given: Option<Option<u32>>, own: io::Result<u64>| {
        given.unwrap_or_else(|| u32::try_from(own.ok()?).ok()).unwrap_or_default()
    };
    let owner = Owner { uid: number(extension.uid, header.uid()), gid: number(extension.gid, header.gid()) };
    let mode = header.mode().unwrap_or_default() & 0o7777;
    gatherer.node(path, Node { kind, mode, owner, origin: Origin::default() }, entry.size());
    header.entry_type() == EntryType::Regular || header.entry_type() == EntryType::Continuous
}

/// A path without `.`, empty parts and a slash at its ends; `..` stays and makes it a path that is passed over.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    parts.join(&b'/')
}
