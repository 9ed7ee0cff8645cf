//! Writes a source's files below one directory, whatever their names: no link is followed, nothing lands outside, all is counted.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::SourceError;
use crate::domain::{
    source::{MAX_PATH, RelativePath},
    task::Limits,
};

const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// An open, so far empty directory that is filled entry by entry.
pub(super) struct TreeWriter {
    path: PathBuf,
    root: OwnedFd,
    /// The directory written to last: entries mostly come directory by directory. Directories are never removed or
    /// replaced here, so that it cannot go stale.
    parent: Option<(RelativePath, OwnedFd)>,
    limits: Limits,
    bytes: u64,
    entries: u64,
    /// Kept between files: most are far smaller than it.
    buffer: Vec<u8>,
}

impl TreeWriter {
    /// Starts in `into`, which must exist.
    pub(super) fn new(into: &Path, limits: &Limits) -> Result<Self, SourceError> {
        let root = rustix::fs::open(into, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| SourceError::File { path: into.to_owned(), source: errno.into() })?;
        Ok(Self {
            path: into.to_owned(),
            root,
            parent: None,
            limits: limits.clone(),
            bytes: 0,
            entries: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Makes a directory and those above it; it may be there already.
    pub(super) fn directory(&mut self, path: &RelativePath) -> Result<(), SourceError> {
        self.open_directory(path).map(drop)
    }

    /// Writes a file, in place of an earlier file or link.
    pub(super) fn file(
        &mut self,
        path: &RelativePath,
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<(), SourceError> {
        let (parent, name) = self.prepare(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| self.failed(path, e))?;
        let mut file = File::from(fd);
        let mut buffer = std::mem::take(&mut self.buffer);
        let copied = self.copy(path, content, &mut file, &mut buffer);
        self.buffer = buffer;
        copied?;
        // Not by the creation mode: the umask would take part.
        let mode = if executable { 0o755 } else { 0o644 };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| self.failed(path, e))
    }

    fn copy(
        &mut self,
        path: &RelativePath,
        content: &mut dyn Read,
        file: &mut File,
        buffer: &mut [u8],
    ) -> Result<(), SourceError> {
        loop {
            let count = match content.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A reader that wraps one of our own errors, such as a limit, keeps it.
                Err(error) => return Err(SourceError::from_reader(error, path)),
            };
            self.count_bytes(u64::try_from(count).unwrap_or(u64::MAX))?;
            file.write_all(&buffer[..count]).map_err(|source| self.file_error(path, source))?;
        }
    }

    /// Writes a symbolic link as it is: where it leads is not looked at.
    pub(super) fn symlink(&mut self, path: &RelativePath, target: &[u8]) -> Result<(), SourceError> {
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(SourceError::Entry {
                path: path.to_string(),
                why: "is a symbolic link without a possible target",
            });
        }
        let (parent, name) = self.prepare(path)?;
        rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name).map_err(|e| self.failed(path, e))
    }

    /// Gives the file or link written at `existing` a second name.
    pub(super) fn hard_link(&mut self, path: &RelativePath, existing: &RelativePath) -> Result<(), SourceError> {
        let refuse = |why| SourceError::Entry { path: path.to_string(), why };
        if path == existing {
            return Err(refuse("is a hard link to itself"));
        }
        let missing = || refuse("is a hard link to something that is not a file earlier in the source");
        let (directory, from_name) = existing.split_last().ok_or_else(missing)?;
        let from = self.walk(&directory, false)?.ok_or_else(missing)?;
        let from_name = OsStr::from_bytes(from_name);
        let stat = rustix::fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        match FileType::from_raw_mode(stat.st_mode) {
            // Every name counts in full: whatever packs the tree later may write it in full.
            FileType::RegularFile => self.count_bytes(u64::try_from(stat.st_size).unwrap_or(u64::MAX))?,
            FileType::Symlink => {}
            _ => return Err(missing()),
        }
        let (parent, name) = self.prepare(path)?;
        rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty()).map_err(|e| self.failed(path, e))
    }

    /// The open directory that will hold `path`, with no file or link of that name left in it.
    fn prepare<'a>(&mut self, path: &'a RelativePath) -> Result<(OwnedFd, &'a OsStr), SourceError> {
        let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let (directory, _) = path.split_last().ok_or(SourceError::Entry {
            path: ".".into(),
            why: "is not a directory, but the source's root must be one",
        })?;
        let parent = self.open_directory(&directory)?;
        self.count_entry()?;
        let name = OsStr::from_bytes(name);
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name)),
            Err(Errno::ISDIR | Errno::PERM) => {
                Err(SourceError::Entry { path: path.to_string(), why: "is a file here and a directory there" })
            }
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Opens a directory, making what is missing.
    fn open_directory(&mut self, path: &RelativePath) -> Result<OwnedFd, SourceError> {
        if let Some((cached, fd)) = &self.parent
            && cached == path
        {
            return fd.try_clone().map_err(|source| self.file_error(path, source));
        }
        // With `create` every component is made, so that there is always a result.
        let fd = self.walk(path, true)?.ok_or(SourceError::Thread("a directory made is not there"))?;
        let copy = fd.try_clone().map_err(|source| self.file_error(path, source))?;
        self.parent = Some((path.clone(), copy));
        Ok(fd)
    }

    /// Opens a directory component by component, so that no link is ever passed through.
    fn walk(&mut self, path: &RelativePath, create: bool) -> Result<Option<OwnedFd>, SourceError> {
        let mut fd = self.root.try_clone().map_err(|source| self.file_error(path, source))?;
        for name in path.components() {
            let name = OsStr::from_bytes(name);
            let mut opened = open_child(&fd, name);
            if create && matches!(opened, Err(Errno::NOENT)) {
                self.count_entry()?;
                rustix::fs::mkdirat(&fd, name, DIRECTORY).map_err(|e| self.failed(path, e))?;
                opened = open_child(&fd, name);
                if let Ok(new) = &opened {
                    rustix::fs::fchmod(new, DIRECTORY).map_err(|e| self.failed(path, e))?;
                }
            }
            fd = match opened {
                Ok(child) => child,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => {
                    let why = "leads through a file or symbolic link of the source, expected directories";
                    return Err(SourceError::Entry { path: path.to_string(), why });
                }
                Err(errno) => return Err(self.failed(path, errno)),
            };
        }
        Ok(Some(fd))
    }

    fn count_entry(&mut self) -> Result<(), SourceError> {
        self.entries += 1;
        if self.entries > self.limits.source_entries {
            return Err(SourceError::TooLarge { limit: self.limits.source_entries, what: "files and directories" });
        }
        Ok(())
    }

    fn count_bytes(&mut self, count: u64) -> Result<(), SourceError> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > self.limits.source_bytes {
            return Err(SourceError::TooLarge { limit: self.limits.source_bytes, what: "bytes" });
        }
        Ok(())
    }

    fn failed(&self, path: &RelativePath, errno: Errno) -> SourceError {
        self.file_error(path, errno.into())
    }

    fn file_error(&self, path: &RelativePath, source: io::Error) -> SourceError {
        SourceError::File { path: self.path.join(OsStr::from_bytes(path.as_bytes())), source }
    }
}

fn open_child(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

impl SourceError {
    /// The error behind a failed read of archive content.
    pub(super) fn from_reader(error: io::Error, path: &RelativePath) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(_) => Self::Entry { path: path.to_string(), why: "cannot be read: the archive is broken" },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap()
    }

    fn limits(bytes: u64, entries: u64) -> Limits {
        Limits { source_bytes: bytes, source_entries: entries, ..Limits::default() }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut writer = TreeWriter::new(inside.path(), &limits(100, 100)).unwrap();
        writer.symlink(&path("d/link"), outside.path().as_os_str().as_bytes()).unwrap();
        let error = writer.file(&path("d/link/evil"), false, &mut &b"x"[..]).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        // Over the link itself a file replaces it, its target stays as it was.
        writer.file(&path("d/link"), true, &mut &b"x"[..]).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let metadata = std::fs::symlink_metadata(inside.path().join("d/link")).unwrap();
        assert!(metadata.is_file() && metadata.permissions().mode() & 0o7777 == 0o755);
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_hard_links_count_in_full() {
        let inside = tempfile::tempdir().unwrap();
        let mut writer = TreeWriter::new(inside.path(), &limits(10, 4)).unwrap();
        writer.file(&path("a/b"), false, &mut &b"123456"[..]).unwrap();
        assert!(matches!(writer.hard_link(&path("c"), &path("a/b")), Err(SourceError::TooLarge { what: "bytes", .. })));
        writer.directory(&path("d/e")).unwrap();
        assert!(matches!(writer.directory(&path("f")), Err(SourceError::TooLarge { .. })));
    }

    #[test]
    fn a_name_is_not_both_file_and_directory() {
        let inside = tempfile::tempdir().unwrap();
        let mut writer = TreeWriter::new(inside.path(), &limits(10, 10)).unwrap();
        writer.directory(&path("a")).unwrap();
        writer.file(&path("b"), false, &mut io::empty()).unwrap();
        for result in [writer.file(&path("a"), false, &mut io::empty()), writer.directory(&path("b"))] {
            assert!(matches!(result, Err(SourceError::Entry { .. })), "{result:?}");
        }
        assert!(writer.hard_link(&path("c"), &path("a")).is_err());
        assert!(writer.hard_link(&path("b"), &path("b")).is_err());
    }
}
