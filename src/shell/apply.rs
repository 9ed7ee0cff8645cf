//! Writes a layer of somebody's image onto a root file system: deletions, links, owners, attributes. Every path is resolved
//! by the kernel as if that file system were `/`, whatever links the layer or those below it hold.

use std::{
    collections::HashSet,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags, chmodat, chownat, fchmod,
        fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
    process::{Gid, Uid},
};
use tar::{Archive, Entry, EntryType};

/// More than any image has; an archive that unpacks to more is an attack or a mistake.
const MOST_BYTES: u64 = 64 << 30;
const MOST_ENTRIES: u64 = 2_000_000;
/// Of paths (Linux PATH_MAX) and of values of attributes (XATTR_SIZE_MAX).
const LONGEST_PATH: usize = 4096;
const LONGEST_VALUE: usize = 64 << 10;
/// A file of this name deletes the file whose name follows (OCI image-spec, layer.md "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// One of this name hides everything that the layers below have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How PAX records name extended attributes.
const XATTR: &str = "SCHILY.xattr.";

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive is broken, or the disk says no.
    #[error("failed to unpack a layer")]
    Archive(#[source] io::Error),
    /// One entry cannot be written.
    #[error("failed to unpack {}", path.display())]
    Entry {
        /// Its path in the image.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer beyond all bounds.
    #[error("unable to unpack a layer of more than {0}")]
    TooLarge(&'static str),
}

/// Unpacks the uncompressed `archive` onto `root`.
///
/// # Errors
/// When the archive is broken, holds paths with `..`, or is too large.
pub fn apply(root: &Path, archive: impl Read) -> Result<(), ApplyError> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, directory, Mode::empty());
    let root = opened.map_err(|error| ApplyError::Entry { path: root.to_owned(), source: error.into() })?;
    let mut layer = Layer { root, parent: None, seen: HashSet::new(), directories: Vec::new(), bytes: 0, entries: 0 };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(ApplyError::Archive)? {
        let mut entry = entry.map_err(ApplyError::Archive)?;
        let path = path(&entry.path_bytes())?;
        layer.count(&entry)?;
        layer
            .entry(&path, &mut entry)
            .map_err(|source| ApplyError::Entry { path: Path::new("/").join(&path), source })?;
    }
    layer.finish().map_err(ApplyError::Archive)
}

struct Layer {
    root: OwnedFd,
    /// The directory of the last entry: most share it with the one before.
    parent: Option<(PathBuf, OwnedFd)>,
    /// What this layer itself has brought, which its deletions are not about.
    seen: HashSet<PathBuf>,
    /// Directories whose times are set when nothing more is written into them.
    directories: Vec<(PathBuf, Timespec)>,
    bytes: u64,
    entries: u64,
}

/// Owner, mode and time of an entry.
struct Attributes {
    owner: Option<Uid>,
    group: Option<Gid>,
    mode: u32,
    time: Timespec,
}

impl Layer {
    fn count<R: Read>(&mut self, entry: &Entry<'_, R>) -> Result<(), ApplyError> {
        self.bytes = self.bytes.saturating_add(entry.size());
        self.entries += 1;
        if self.bytes > MOST_BYTES {
            return Err(ApplyError::TooLarge("64 GiB"));
        }
        if self.entries > MOST_ENTRIES { Err(ApplyError::TooLarge("two million files")) } else { Ok(()) }
    }

    fn entry<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let attributes = attributes(entry)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.top(&attributes, entry.header().entry_type());
        };
        let above = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes() == OPAQUE {
            return self.hide_all(above);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.hide(above, OsStr::from_bytes(hidden));
        }
        let kind = entry.header().entry_type();
        self.open_parent(above)?;
        let place = Place { layer: self, path, name: &name };
        match kind {
            EntryType::Directory => place.directory(&attributes, entry)?,
            EntryType::Symlink => place.symlink(&attributes, entry)?,
            EntryType::Link => place.hard_link(entry)?,
            EntryType::Fifo => place.fifo(&attributes)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => place.file(&attributes, entry)?,
            // Global PAX headers and whatever else is about the archive, not about files.
            _ => return Ok(()),
        }
        for above in path.ancestors().take_while(|above| !above.as_os_str().is_empty()) {
            if !self.seen.insert(above.to_owned()) {
                break;
            }
        }
        Ok(())
    }

    /// An entry for the root itself.
    fn top(&self, attributes: &Attributes, kind: EntryType) -> io::Result<()> {
        if kind == EntryType::Directory {
            chownat(&self.root, "", attributes.owner, attributes.group, AtFlags::EMPTY_PATH)?;
            chmodat(&self.root, ".", Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
        }
        Ok(())
    }

    fn directory_at(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens the directory at `path`, making what is missing of it.
    fn open_parent(&mut self, path: &Path) -> io::Result<()> {
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let opened = match self.directory_at(path) {
            Err(Errno::NOENT) => {
                let mut made = PathBuf::new();
                let mut at = self.directory_at(&made)?;
                for part in path.components() {
                    made.push(part);
                    at = match self.directory_at(&made) {
                        Err(Errno::NOENT) => {
                            mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                            self.directory_at(&made)?
                        }
                        opened => opened?,
                    };
                }
                at
            }
            opened => opened?,
        };
        self.parent = Some((path.to_owned(), opened));
        Ok(())
    }

    fn hide(&mut self, above: &Path, name: &OsStr) -> io::Result<()> {
        if matches!(name.as_bytes(), b"" | b"." | b"..") || name.as_bytes().starts_with(WHITEOUT) {
            // Notes of AUFS to itself.
            return Ok(());
        }
        if self.seen.contains(&above.join(name)) {
            return Ok(());
        }
        match self.directory_at(above) {
            Ok(directory) => {
                self.parent = None;
                remove(&directory, name)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn hide_all(&mut self, above: &Path) -> io::Result<()> {
        let directory = match self.directory_at(above) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.parent = None;
        for name in names(&directory)? {
            if !self.seen.contains(&above.join(&name)) {
                remove(&directory, &name)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        for (path, time) in self.directories.iter().rev() {
            // One that a later entry or deletion replaced has no time of its own any more.
            if let Ok(directory) = self.directory_at(path) {
                futimens(&directory, &times(*time))?;
            }
        }
        Ok(())
    }
}

/// Where one entry goes: `name` in the open parent of `layer`.
struct Place<'a> {
    layer: &'a mut Layer,
    path: &'a Path,
    name: &'a OsStr,
}

impl Place<'_> {
    fn parent(&self) -> io::Result<&OwnedFd> {
        self.layer.parent.as_ref().map(|(_, parent)| parent).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes room for something that is no directory.
    fn clear(&mut self) -> io::Result<()> {
        match statat(self.parent()?, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                remove(self.parent()?, self.name)
            }
            Ok(_) => Ok(unlinkat(self.parent()?, self.name, AtFlags::empty())?),
        }
    }

    fn directory<R: Read>(mut self, attributes: &Attributes, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let is_there = statat(self.parent()?, self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
        if !is_there {
            self.clear()?;
            mkdirat(self.parent()?, self.name, Mode::from_raw_mode(0o700))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(self.parent()?, self.name, flags, Mode::empty())?;
        set(&directory, attributes)?;
        set_xattrs(&directory, entry)?;
        self.layer.directories.push((self.path.to_owned(), attributes.time));
        Ok(())
    }

    fn file<R: Read>(mut self, attributes: &Attributes, entry: &mut Entry<'_, R>) -> io::Result<()> {
        self.clear()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(self.parent()?, self.name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(entry, &mut file)?;
        file.flush()?;
        set(&file, attributes)?;
        set_xattrs(&file, entry)?;
        Ok(futimens(&file, &times(attributes.time))?)
    }

    fn symlink<R: Read>(mut self, attributes: &Attributes, entry: &Entry<'_, R>) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
        self.clear()?;
        symlinkat(OsStr::from_bytes(&target), self.parent()?, self.name)?;
        let (uid, gid) = (attributes.owner, attributes.group);
        chownat(self.parent()?, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(utimensat(self.parent()?, self.name, &times(attributes.time), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn hard_link<R: Read>(mut self, entry: &Entry<'_, R>) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?;
        let target = path(&target).map_err(io::Error::other)?;
        let name = target.file_name().ok_or(io::ErrorKind::InvalidData)?;
        let directory = self.layer.directory_at(target.parent().unwrap_or(Path::new("")))?;
        if target == self.path {
            return Ok(());
        }
        self.clear()?;
        Ok(linkat(&directory, name, self.parent()?, self.name, AtFlags::empty())?)
    }

    fn fifo(mut self, attributes: &Attributes) -> io::Result<()> {
        self.clear()?;
        mknodat(self.parent()?, self.name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        let (uid, gid) = (attributes.owner, attributes.group);
        chownat(self.parent()?, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(chmodat(self.parent()?, self.name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?)
    }
}

/// An entry's path relative to the root; empty for the root itself.
fn path(bytes: &[u8]) -> Result<PathBuf, ApplyError> {
    let shown = || PathBuf::from(OsStr::from_bytes(bytes.get(..bytes.len().min(200)).unwrap_or_default()));
    let refuse = |problem: &str| ApplyError::Entry { path: shown(), source: io::Error::other(problem.to_owned()) };
    if bytes.len() > LONGEST_PATH {
        return Err(refuse("its path is longer than Linux allows"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => return Err(refuse("its path has `..` in it")),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Ok(path)
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Attributes> {
    let time = exact_time(entry)?;
    let header = entry.header();
    // Who is not root cannot give files away.
    let chown = rustix::process::geteuid().is_root();
    let narrow = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("its owner is no 32-bit number"));
    Ok(Attributes {
        owner: Some(Uid::from_raw(narrow(header.uid()?)?)).filter(|_| chown),
        group: Some(Gid::from_raw(narrow(header.gid()?)?)).filter(|_| chown),
        mode: header.mode()? & 0o7777,
        time: time.unwrap_or_else(|| Timespec { tv_sec: seconds(header.mtime().unwrap_or(0)), tv_nsec: 0 }),
    })
}

fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(0)
}

/// The time of a PAX record, which has parts of a second: build tools compare them.
fn exact_time<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<Timespec>> {
    let Some(records) = entry.pax_extensions()? else { return Ok(None) };
    for record in records {
        let record = record?;
        let Some(text) = record.value().ok().filter(|_| record.key() == Ok("mtime")) else { continue };
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part: String = part.chars().chain("000000000".chars()).take(9).collect();
        let time = whole.parse().ok().zip(part.parse().ok());
        return Ok(time.map(|(whole, part)| Timespec { tv_sec: seconds(whole), tv_nsec: part }));
    }
    Ok(None)
}

fn times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

/// The owner first: changing it takes setuid away.
fn set(file: &impl std::os::fd::AsFd, attributes: &Attributes) -> io::Result<()> {
    fchown(file, attributes.owner, attributes.group).map_err(|error| match error {
        Errno::INVAL => io::Error::other(
            "its owner does not exist for this user: have more subordinate IDs in /etc/subuid and /etc/subgid, and \
             newuidmap and newgidmap (Debian: uidmap)",
        ),
        error => error.into(),
    })?;
    Ok(fchmod(file, Mode::from_raw_mode(attributes.mode))?)
}

/// What says something about the file to programs; not what overlayfs would take for its own notes.
fn set_xattrs<R: Read>(file: &impl std::os::fd::AsFd, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let Some(records) = entry.pax_extensions()? else { return Ok(()) };
    for record in records {
        let record = record?;
        let Some(name) = record.key().ok().and_then(|key| key.strip_prefix(XATTR)) else { continue };
        let of_users = name.starts_with("user.") && !name.starts_with("user.overlay.");
        let wanted = of_users || name == "security.capability" || name.starts_with("system.posix_acl_");
        if !wanted || record.value_bytes().len() > LONGEST_VALUE {
            continue;
        }
        let Ok(name) = CString::new(name) else { continue };
        match fsetxattr(file, &name, record.value_bytes(), XattrFlags::empty()) {
            // Not everywhere allowed, and nothing that a build depends on.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes `name` from `directory` with everything in it; nothing there is fine. No link is followed.
fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(directory, name, flags, Mode::empty())?;
    for below in names(&inner)? {
        remove(&inner, &below)?;
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests;
