//! ADD of an archive: told by what it holds, and unpacked into a directory of its own until its files were packed again.

use std::{
    fs,
    io::{self, Read, Seek},
    ops::Deref,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;

use super::{CollectError, Collector, read};
use crate::{
    domain::{
        archive::{ArchiveKind, MAGIC_LENGTH, archive_kind, is_tar_header},
        recipe::CopyItem,
        task::Limits,
        text::printable,
        tree::{Attributes, Content, TreePath},
    },
    shell::archive::{Member, MemberKind, Wrong, members, tar_of},
};

/// Bytes of the paths of all entries: they are held in memory.
const MOST_NAMES: usize = 64 << 20;

/// Where archives are unpacked, and how much of them.
#[derive(Debug, Clone)]
pub struct Room {
    /// A directory for directories that are gone with the trees that need them.
    pub directory: PathBuf,
    /// What archives of one tree may have, as sources may.
    pub limits: Limits,
}

/// A file to read, of what is collected or out of an archive.
#[derive(Debug, Clone)]
pub struct Stored {
    path: PathBuf,
    /// What it is in, as long as it is needed.
    _within: Option<Arc<TempDir>>,
}

impl Stored {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _within: None }
    }
}

impl AsRef<Path> for Stored {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Deref for Stored {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// What was unpacked for one tree.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    within: Option<Arc<TempDir>>,
    files: u64,
    entries: u64,
    /// Bytes of all paths.
    names: usize,
    /// Of all contents.
    bytes: u64,
}

/// What packs the tar archive that a file is, by what it holds and not by its name, as BuildKit tells them apart.
pub(super) fn tar_kind(path: &Path) -> io::Result<Option<Packed>> {
    let mut file = fs::File::open(path)?;
    let mut head = Vec::new();
    (&mut file).take(MAGIC_LENGTH as u64).read_to_end(&mut head)?;
    if head.starts_with(b"BZh") {
        return Ok(Some(Packed::Bzip2));
    }
    if is_tar_header(&head) {
        return Ok(Some(Packed::As(ArchiveKind::Tar)));
    }
    let Ok(kind) = archive_kind(&head) else { return Ok(None) };
    file.rewind()?;
    let mut first = Vec::new();
    // A stream that ends or breaks early holds no archive.
    let opened = tar_of(kind, file, &Limits::default(), too_large);
    let Ok(Some(reader)) = opened else { return Ok(None) };
    let read = reader.take(MAGIC_LENGTH as u64).read_to_end(&mut first);
    // What wants more memory than it gets may be one, and is told when it is unpacked.
    let unknown = read.is_err_and(|error| error.to_string().contains("memory"));
    Ok((unknown || is_tar_header(&first)).then_some(Packed::As(kind)))
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    As(ArchiveKind),
    /// Nothing here looks into it.
    Bzip2,
}

fn too_large(limits: &Limits) -> io::Error {
    io::Error::other(format!("it has more than {} bytes; the operator's limits can be raised", limits.source_bytes))
}

impl Collector<'_> {
    /// Puts what an archive holds below `destination`, a directory.
    pub(super) fn unpack(
        &mut self,
        item: &CopyItem,
        path: &Path,
        packed: Packed,
        destination: &[u8],
    ) -> Result<(), CollectError> {
        let shown = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        let failed = |problem: String| {
            let problem = printable(problem.as_bytes());
            CollectError::Unpack { source_path: item.source.clone(), path: shown.clone(), problem }
        };
        let Packed::As(kind) = packed else {
            let problem = "it is packed with bzip2, which is not unpacked here: pack it with gzip, xz or zstd";
            return Err(failed(problem.to_owned()));
        };
        let Some(room) = self.room else { return Err(failed("there is no room for it here".to_owned())) };
        if !destination.is_empty() {
            // Whatever --chmod says (BuildKit's unpack).
            self.make(&CopyItem { mode: None, ..item.clone() }, path, destination)?;
        }
        let within = match &self.unpacked.within {
            Some(within) => Arc::clone(within),
            None => Arc::new(TempDir::new_in(&room.directory).map_err(|source| read(&room.directory, source))?),
        };
        self.unpacked.within = Some(Arc::clone(&within));
        let file = fs::File::open(path).map_err(|source| read(path, source))?;
        let reader = tar_of(kind, file, &room.limits, too_large).map_err(|error| failed(error.to_string()))?;
        let Some(reader) = reader else { return Ok(()) };
        let mut unpacking = Unpacking { item, destination, within, limits: &room.limits, collector: self };
        let wrong = |wrong| match wrong {
            Wrong::Read(error) => error.to_string(),
            Wrong::Malformed(what) => what.to_owned(),
        };
        let done = members(reader, wrong, |member, content| unpacking.member(&member, content));
        done.map_err(failed)
    }
}

/// One archive on its way into the tree. What is wrong with it is told by a sentence.
struct Unpacking<'a, 'b> {
    item: &'a CopyItem,
    destination: &'a [u8],
    within: Arc<TempDir>,
    limits: &'a Limits,
    collector: &'a mut Collector<'b>,
}

impl Unpacking<'_, '_> {
    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), String> {
        let name = || printable(&member.path);
        let Some(place) = self.place(&member.path)? else { return Ok(()) };
        let owner =
            self.item.owner.or(member.owner).ok_or_else(|| format!("`{}` has an owner that is no number", name()))?;
        let attributes = Attributes { mode: member.mode, owner };
        let (attributes, content) = match &member.kind {
            MemberKind::Directory => (attributes, Content::Directory),
            MemberKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err(format!("`{}` is a symbolic link without a possible target", name()));
            }
            MemberKind::Symlink(target) => (Attributes { mode: 0o777, owner }, Content::Symlink(target.clone())),
            MemberKind::File => {
                let content = self.file(content).map_err(|error| format!("`{}`: {error}", name()))?;
                (attributes, content)
            }
            MemberKind::HardLink(target) => {
                let linked = self.linked(target)?;
                linked.ok_or_else(|| format!("`{}` is a hard link to no file before it", name()))?
            }
            MemberKind::Other => {
                return Err(format!("`{}` is a device, a pipe or of another kind that is not kept", name()));
            }
        };
        let (before, length) = (self.collector.tree.len(), place.as_bytes().len());
        self.collector.tree.insert(place, attributes, content).map_err(|conflict| conflict.to_string())?;
        // Directories that are implied count as those that are written.
        self.count(self.collector.tree.len().saturating_sub(before).max(1), length)
    }

    fn count(&mut self, entries: usize, length: usize) -> Result<(), String> {
        let unpacked = &mut self.collector.unpacked;
        unpacked.entries = unpacked.entries.saturating_add(entries as u64);
        unpacked.names = unpacked.names.saturating_add(entries.saturating_mul(length));
        if unpacked.entries > self.limits.source_entries {
            let limit = self.limits.source_entries;
            return Err(format!("it has more than {limit} files and directories; the operator's limits can be raised"));
        }
        if unpacked.names > MOST_NAMES {
            return Err(format!("the names of its files have more than {MOST_NAMES} bytes together"));
        }
        Ok(())
    }

    /// The earlier file that a hard link names, marked as one with several names.
    fn linked(&mut self, target: &[u8]) -> Result<Option<(Attributes, Content<Stored>)>, String> {
        let Some(target) = self.place(target)? else { return Ok(None) };
        let tree = &mut self.collector.tree;
        let (attributes, content) = match tree.get(&target) {
            None | Some((_, Content::Directory)) => return Ok(None),
            Some((attributes, content)) => (attributes, content.clone()),
        };
        let Content::File { size, inode: None, source } = content else { return Ok(Some((attributes, content))) };
        let metadata = fs::metadata(&source).map_err(|error| error.to_string())?;
        let inode = Some((metadata.dev(), metadata.ino(), self.collector.copy));
        let content = Content::File { size, inode, source };
        tree.insert(target, attributes, content.clone()).map_err(|conflict| conflict.to_string())?;
        Ok(Some((attributes, content)))
    }

    /// Where an entry goes; none for the archive's own root, whose attributes nobody asked for.
    fn place(&self, path: &[u8]) -> Result<Option<TreePath>, String> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<&[u8]> = Some(self.destination).filter(|d| !d.is_empty()).into_iter().chain(parts).collect();
        let joined = parts.join(&b'/');
        if joined == self.destination {
            return Ok(None);
        }
        let place = TreePath::new(joined).map_err(|problem| format!("`{}`: {problem}", printable(path)))?;
        Ok(Some(place))
    }

    /// Writes a file's bytes down until they are packed.
    fn file(&mut self, content: &mut dyn Read) -> io::Result<Content<Stored>> {
        let unpacked = &mut self.collector.unpacked;
        unpacked.files += 1;
        let path = self.within.path().join(unpacked.files.to_string());
        let mut file = fs::File::create_new(&path)?;
        let left = self.limits.source_bytes.saturating_sub(unpacked.bytes);
        let size = io::copy(&mut content.take(left.saturating_add(1)), &mut file)?;
        if size > left {
            return Err(too_large(self.limits));
        }
        unpacked.bytes += size;
        Ok(Content::File { size, inode: None, source: Stored { path, _within: Some(Arc::clone(&self.within)) } })
    }
}
