//! Unpacks archives through the tree writer. Owners, times, setuid bits and extended attributes are not taken over.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use zip::ZipArchive;

use super::{SourceError, writer::TreeWriter};
use crate::{
    domain::{
        archive::{ArchiveKind, MAGIC_LENGTH, Selection, archive_kind},
        source::{MAX_PATH, RelativePath, SourceUrl},
        task::Limits,
        text::printable,
    },
    shell::archive::{Member, MemberKind, Wrong, members, tar_of},
};

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
        what: format!("it is {what}, expected tar, tar.gz, tar.xz, tar.zst or zip"),
    })?;
    let mut target = Target { writer: TreeWriter::new(into, limits)?, selection: &mut selection };
    let too_large =
        |limits: &Limits| io::Error::other(SourceError::TooLarge { limit: limits.source_bytes, what: "bytes" });
    if kind == ArchiveKind::Zip {
        zip(url, BufReader::new(file), limits, &mut target)?;
    } else if let Some(reader) = tar_of(kind, file, limits, too_large).map_err(broken)? {
        let wrong = |wrong| match wrong {
            Wrong::Read(error) => self::broken(url, error),
            Wrong::Malformed(what) => SourceError::Archive { url: url.clone(), what: what.to_owned() },
        };
        members(reader, wrong, |member, content| target.member(&member, content))?;
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

impl Target<'_> {
    fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), SourceError> {
        let Some(place) = self.selection.place(&member.path)? else { return Ok(()) };
        match &member.kind {
            MemberKind::Directory => self.writer.directory(&place),
            MemberKind::File => self.writer.file(&place, member.mode & 0o100 != 0, content),
            MemberKind::Symlink(target) => self.writer.symlink(&place, target),
            MemberKind::HardLink(target) => {
                let why = "is a hard link to a file that is not in the source's directory";
                let outside = || SourceError::Entry { path: place.to_string(), why };
                let existing = self.selection.place(target)?.ok_or_else(outside)?;
                self.writer.hard_link(&place, &existing)
            }
            MemberKind::Other => Err(SourceError::Entry {
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
