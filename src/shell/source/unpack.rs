//! Unpacks archives through the tree writer. Owners, times, setuid bits and extended attributes are not taken over.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use tar::EntryType;
use zip::ZipArchive;

use super::{SourceError, writer::TreeWriter};
use crate::domain::{
    archive::{ArchiveKind, Extension, MAGIC_LENGTH, MAX_EXTENSION, Selection, archive_kind},
    source::{MAX_PATH, RelativePath, SourceUrl},
    task::Limits,
    text::printable,
};

/// The largest window that a zstd frame may ask for (2^27 bytes), which is what the zstd tool accepts by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Tar's own bytes per entry, generously: header, extended header with a long path, padding.
const TAR_OVERHEAD: u64 = 8 << 10;

/// Unpacks `file`, which was downloaded from `url`, into the empty directory `into`.
pub(super) fn unpack(
    url: &SourceUrl,
    mut file: File,
    mut selection: Selection,
    limits: &Limits,
    into: &Path,
) -> Result<(), SourceError> {
    let broken = |error| broken(url, error);
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    (&file).take(MAGIC_LENGTH as u64).read_to_end(&mut head).map_err(broken)?;
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let kind = archive_kind(&head).map_err(|what| SourceError::Archive {
        url: url.clone(),
        what: format!("it is {what}, expected tar, tar.gz, tar.zst or zip"),
    })?;
    let mut target = Target { writer: TreeWriter::new(into, limits)?, selection: &mut selection };
    let file = BufReader::with_capacity(256 << 10, file);
    let allowed = limits.source_bytes.saturating_add(limits.source_entries.saturating_mul(TAR_OVERHEAD));
    let bounded = |reader: Box<dyn Read>| Bounded { reader, left: allowed, limits: limits.clone() };
    match kind {
        ArchiveKind::Tar => tar(url, bounded(Box::new(file)), &mut target)?,
        ArchiveKind::TarGzip => tar(url, bounded(Box::new(MultiGzDecoder::new(file))), &mut target)?,
        ArchiveKind::TarZstd => {
            let mut decoder = zstd::Decoder::with_buffer(file).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            tar(url, bounded(Box::new(decoder)), &mut target)?;
        }
        ArchiveKind::Zip => zip(url, file, limits, &mut target)?,
    }
    match selection.missing() {
        Some(others) => Err(SourceError::missing(&selection, others)),
        None => Ok(()),
    }
}

/// The error behind a failed read: one of our own, or that the archive is broken.
fn broken(url: &SourceUrl, error: io::Error) -> SourceError {
    match error.downcast::<SourceError>() {
        Ok(own) => own,
        // What the reader says of the archive holds no foreign text beyond field values.
        Err(error) => SourceError::Archive { url: url.clone(), what: printable(error.to_string().as_bytes()) },
    }
}

/// Where entries go: through the selection to the writer.
struct Target<'a> {
    writer: TreeWriter,
    selection: &'a mut Selection,
}

/// Ends a stream that unpacks to more than any source within the limits could need.
struct Bounded {
    reader: Box<dyn Read>,
    left: u64,
    limits: Limits,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(SourceError::TooLarge { limit: self.limits.source_bytes, what: "bytes" })
        })?;
        Ok(count)
    }
}

fn tar(url: &SourceUrl, reader: impl Read, target: &mut Target<'_>) -> Result<(), SourceError> {
    let broken = |error| broken(url, error);
    let malformed = |what: &str| SourceError::Archive { url: url.clone(), what: what.to_owned() };
    let mut archive = tar::Archive::new(reader);
    let mut extension = Extension::default();
    // Raw: the crate would read extended headers of any size into memory.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let entry_type = entry.header().entry_type();
        if entry_type.is_pax_global_extensions() {
            continue;
        }
        if entry_type.is_pax_local_extensions() || entry_type.is_gnu_longname() || entry_type.is_gnu_longlink() {
            let mut data = Vec::new();
            if entry.size() > MAX_EXTENSION {
                return Err(malformed("an extended header is larger than 64 KiB"));
            }
            entry.read_to_end(&mut data).map_err(broken)?;
            match entry_type {
                EntryType::GNULongName => extension.take_gnu_path(&data),
                EntryType::GNULongLink => extension.take_gnu_link(&data),
                _ => extension.take_pax(&data).ok_or_else(|| malformed("an extended header is malformed"))?,
            }
            continue;
        }
        let extension = std::mem::take(&mut extension);
        // Readers that disagree about a size see different archives; sources are far below where it is needed (8 GiB).
        if extension.sparse || extension.size.is_some_and(|size| size != entry.size()) {
            return Err(malformed("it has sparse files or sizes in extended headers, which are not supported"));
        }
        let path = extension.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let link = extension.link.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
        target.tar_entry(&path, &link.unwrap_or_default(), &mut entry)?;
    }
    Ok(())
}

impl Target<'_> {
    fn tar_entry(
        &mut self,
        path: &[u8],
        link: &[u8],
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), SourceError> {
        let Some(place) = self.selection.place(path)? else { return Ok(()) };
        let entry_type = entry.header().entry_type();
        // Before POSIX 1988 a directory was a file with a slash at its end.
        if entry_type.is_dir() || (entry_type == EntryType::Regular && path.ends_with(b"/")) {
            return self.writer.directory(&place);
        }
        match entry_type {
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().unwrap_or_default();
                self.writer.file(&place, mode & 0o100 != 0, entry)
            }
            EntryType::Symlink => self.writer.symlink(&place, link),
            EntryType::Link => {
                let why = "is a hard link to a file that is not in the source's directory";
                let outside = || SourceError::Entry { path: place.to_string(), why };
                let existing = self.selection.place(link)?.ok_or_else(outside)?;
                self.writer.hard_link(&place, &existing)
            }
            _ => Err(SourceError::Entry {
                path: place.to_string(),
                why: "is neither file, directory nor link: devices, pipes and sparse files are not taken",
            }),
        }
    }
}

fn zip(url: &SourceUrl, file: BufReader<File>, limits: &Limits, target: &mut Target<'_>) -> Result<(), SourceError> {
    let broken = |error: zip::result::ZipError| SourceError::Archive {
        url: url.clone(),
        what: printable(error.to_string().as_bytes()),
    };
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    if archive.len() as u64 > limits.source_entries {
        return Err(SourceError::TooLarge { limit: limits.source_entries, what: "files and directories" });
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned().into_bytes();
        let Some(place) = target.selection.place(&name)? else { continue };
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & 0o170_000 {
            _ if name.ends_with(b"/") => target.writer.directory(&place)?,
            0o040_000 => target.writer.directory(&place)?,
            0 | 0o100_000 => target.writer.file(&place, mode & 0o100 != 0, &mut entry)?,
            0o120_000 => {
                let mut link = Vec::new();
                (&mut entry)
                    .take(MAX_PATH as u64 + 1)
                    .read_to_end(&mut link)
                    .map_err(|error| SourceError::from_reader(error, &place))?;
                target.writer.symlink(&place, &link)?;
            }
            _ => {
                let why = "is neither file, directory nor link: devices and pipes are not taken";
                return Err(SourceError::Entry { path: place.to_string(), why });
            }
        }
    }
    Ok(())
}

/// Files given as content: the keys of a ConfigMap, or files in the resource itself.
pub(super) fn write_files<'a>(
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    mut selection: Selection,
    limits: &Limits,
    into: &Path,
) -> Result<(), SourceError> {
    let mut writer = TreeWriter::new(into, limits)?;
    for (path, mut content) in files {
        if path.ends_with('/') || RelativePath::parse(path.as_bytes())?.is_root() {
            let why = "names a directory, expected a file's path";
            return Err(SourceError::Entry { path: printable(path.as_bytes()), why });
        }
        if let Some(place) = selection.place(path.as_bytes())? {
            writer.file(&place, false, &mut content)?;
        }
    }
    match selection.missing() {
        Some(others) => Err(SourceError::missing(&selection, others)),
        None => Ok(()),
    }
}
