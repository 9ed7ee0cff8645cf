//! Archives from outside, entry by entry: unpacked as they are read, headers and all bounded. Writes nothing.

use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use tar::EntryType;

use crate::domain::{
    archive::{ArchiveKind, Extension, Taken},
    recipe::Owner,
    task::Limits,
};

/// The largest window that a zstd frame may ask for (2^27 bytes), which is what the zstd tool accepts by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The same for xz, in KiB, with the decoder's own needs: its tool's largest preset wants 64 MiB.
const XZ_MEMORY: u32 = 130 << 10;
/// Tar's own bytes per entry, generously: header, extended header with a long path, padding.
const TAR_OVERHEAD: u64 = 8 << 10;

/// An entry of an archive, as hostile as it came.
#[derive(Debug)]
pub(super) struct Member {
    pub path: Vec<u8>,
    pub kind: MemberKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// None where it is no number that Linux has.
    pub owner: Option<Owner>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    Directory,
    File,
    /// With its target.
    Symlink(Vec<u8>),
    /// With the path of an earlier entry.
    HardLink(Vec<u8>),
    /// A device, a pipe or something else that nobody here takes.
    Other,
}

/// Why an archive cannot be read.
#[derive(Debug)]
pub(super) enum Wrong {
    /// Its bytes do not come or are broken; or an error of the caller's own that came through the reader.
    Read(io::Error),
    /// It is not as it should be.
    Malformed(&'static str),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// The tar archive that `file` gives; none where it is none. More bytes than any archive within `limits` could need are the error that
/// `too_large` gives.
pub(super) fn tar_of<R: Read + 'static>(
    kind: ArchiveKind,
    file: R,
    limits: &Limits,
    too_large: fn(&Limits) -> io::Error,
) -> io::Result<Option<impl Read + use<R>>> {
    let file = BufReader::with_capacity(256 << 10, file);
    let reader: Box<dyn Read> = match kind {
        ArchiveKind::Tar => Box::new(file),
        ArchiveKind::TarGzip => Box::new(MultiGzDecoder::new(file)),
        ArchiveKind::TarXz => Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY)),
        ArchiveKind::TarZstd => {
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        ArchiveKind::Zip => return Ok(None),
    };
    let left = limits.source_bytes.saturating_add(limits.source_entries.saturating_mul(TAR_OVERHEAD));
    Ok(Some(Bounded { reader, left, limits: limits.clone(), too_large }))
}

/// A layer's archive, whatever it is compressed with: media types are not always right.
pub(super) fn decompressed(mut blob: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let head = blob.fill_buf()?;
    if head.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(blob)));
    }
    if !head.starts_with(&ZSTD) {
        return Ok(Box::new(blob));
    }
    let mut decoder = zstd::Decoder::with_buffer(blob)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

/// Ends a stream that unpacks to more than it may.
struct Bounded {
    reader: Box<dyn Read>,
    left: u64,
    limits: Limits,
    too_large: fn(&Limits) -> io::Error,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let left = self.left.checked_sub(u64::try_from(count).unwrap_or(u64::MAX));
        self.left = left.ok_or_else(|| (self.too_large)(&self.limits))?;
        Ok(count)
    }
}

/// Hands every entry of a tar archive and its content to `take`; what is wrong with the archive itself becomes an error by `wrong`.
pub(super) fn members<E>(
    reader: impl Read,
    wrong: impl Fn(Wrong) -> E,
    mut take: impl FnMut(Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = tar::Archive::new(reader);
    let mut extension = Extension::default();
    // Raw: the crate would read extended headers of any size into memory.
    for entry in archive.entries().map_err(|error| wrong(error.into()))?.raw(true) {
        let mut entry = entry.map_err(|error| wrong(error.into()))?;
        if extend(&mut extension, &mut entry).map_err(&wrong)? {
            continue;
        }
        let member = member(std::mem::take(&mut extension), &entry).map_err(&wrong)?;
        take(member, &mut entry)?;
    }
    Ok(())
}

/// Takes an entry that says more of the next one; whether it was such.
fn extend(extension: &mut Extension, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, Wrong> {
    match extension.take(entry)? {
        Taken::Not => Ok(false),
        Taken::Whole => Ok(true),
        Taken::TooLong => Err(Wrong::Malformed("an extended header is larger than 64 KiB")),
        Taken::Malformed => Err(Wrong::Malformed("an extended header is malformed")),
    }
}

fn member(extension: Extension, entry: &tar::Entry<'_, impl Read>) -> Result<Member, Wrong> {
    // Readers that disagree about a size see different archives; sources are far below where it is needed (8 GiB).
    if extension.sparse || extension.size.is_some_and(|size| size != entry.size()) {
        return Err(Wrong::Malformed("it has sparse files or sizes in extended headers, which are not supported"));
    }
    let header = entry.header();
    let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let link = || extension.link.clone().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let kind = match header.entry_type() {
        EntryType::Directory => MemberKind::Directory,
        // Before POSIX 1988 a directory was a file with a slash at its end.
        EntryType::Regular if path.ends_with(b"/") => MemberKind::Directory,
        EntryType::Regular | EntryType::Continuous => MemberKind::File,
        EntryType::Symlink => MemberKind::Symlink(link().unwrap_or_default()),
        EntryType::Link => MemberKind::HardLink(link().unwrap_or_default()),
        _ => MemberKind::Other,
    };
    let number =
        |given: Option<Option<u32>>, own: io::Result<u64>| given.unwrap_or_else(|| u32::try_from(own.ok()?).ok());
    let owner = number(extension.uid, header.uid()).zip(number(extension.gid, header.gid()));
    let owner = owner.map(|(uid, gid)| Owner { uid, gid });
    Ok(Member { path, kind, mode: header.mode().unwrap_or_default() & 0o7777, owner })
}
