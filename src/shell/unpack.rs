//! Writes a layer's entries below a root directory. Links that are there already are followed as if that directory were `/`.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt, fchown, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use super::{
    rooted::{Last, make_missing, resolve},
    undo::Undo,
};
use crate::domain::{
    layer_reader::{LayerError, LayerReader},
    recipe::{Names, Owner},
    tree::{Entry, Kind, TreePath},
};

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is broken or its stream ends.
    #[error("failed to unpack: {0}")]
    Archive(#[from] LayerError),
    /// The disk says no.
    #[error("failed to write {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A hard link to something that this archive did not bring.
    #[error("failed to write {0}: it is a hard link to something that is not in the archive")]
    Link(TreePath),
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    /// Whom all of it belongs to, and what is made on the way to it; none for the entries' own owners.
    pub owner: Option<Owner>,
    /// Where a Dockerfile's COPY writes. Then directories that exist get the entries' modes and owners, but for those.
    pub names: Option<&'a Names>,
}

/// Unpacks `archive` below `root` as the user that we are; owners are set only by root. Existing directories are left as they
/// are unless `manner` says otherwise, existing files and links are replaced.
pub fn unpack(root: &Path, archive: impl Read, manner: Manner<'_>) -> Result<(), UnpackError> {
    let mut unpacker = Unpacker { manner, ..Unpacker::new(root) };
    unpacker.all(archive)?;
    unpacker.finish()
}

/// As [`unpack`], but a directory that begins the archive covers the one that is there, whatever else is in the way is moved
/// aside, and everything is noted.
pub fn unpack_for_a_while(root: &Path, archive: impl Read) -> Result<Undo, UnpackError> {
    let mut unpacker = Unpacker { notes: Some(Undo::default()), ..Unpacker::new(root) };
    unpacker.all(archive)?;
    let written = unpacker.notes.take();
    unpacker.finish()?;
    Ok(written.unwrap_or_default())
}

struct Unpacker<'a> {
    root: &'a Path,
    manner: Manner<'a>,
    /// What was done; none when it is there to stay.
    notes: Option<Undo>,
    chown: bool,
    /// The directory of the last entry and where it really is: most entries share it with the one before.
    parent: Option<(Option<TreePath>, PathBuf)>,
    files: HashSet<PathBuf>,
    /// Directories that we made, with the modes they get when nothing more is written into them.
    directories: Vec<(PathBuf, u32)>,
}

impl<'a> Unpacker<'a> {
    fn new(root: &'a Path) -> Self {
        let chown = rustix::process::geteuid().is_root();
        let manner = Manner::default();
        Self { root, manner, notes: None, chown, parent: None, files: HashSet::new(), directories: Vec::new() }
    }

    fn all(&mut self, archive: impl Read) -> Result<(), UnpackError> {
        let mut archive = LayerReader::new(archive);
        let mut buffer = vec![0; 64 * 1024];
        let mut first = true;
        while let Some(mut entry) = archive.next_entry()? {
            entry.owner = self.manner.owner.unwrap_or(entry.owner);
            if std::mem::take(&mut first) && entry.kind == Kind::Directory && self.notes.is_some() {
                self.cover(&entry)?;
                continue;
            }
            self.entry(&entry, &mut archive, &mut buffer)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &Entry,
        archive: &mut LayerReader<impl Read>,
        buffer: &mut [u8],
    ) -> Result<(), UnpackError> {
        let mut path = self.place(&entry.path)?;
        if entry.kind != Kind::Directory {
            path = self.arrival(&entry.path, path)?;
        }
        let failed = |source| UnpackError::Write { path: path.clone(), source };
        match &entry.kind {
            Kind::Directory => self.directory(&path, entry).map_err(failed)?,
            Kind::Symlink(target) => {
                self.make_room(&path).map_err(failed)?;
                symlink(OsStr::from_bytes(target), &path).map_err(failed)?;
                if self.chown {
                    lchown(&path, Some(entry.owner.uid), Some(entry.owner.gid)).map_err(failed)?;
                }
            }
            Kind::HardLink(target) => {
                let target = self.place(target)?;
                if !self.files.contains(&target) {
                    return Err(UnpackError::Link(entry.path.clone()));
                }
                self.make_room(&path).map_err(failed)?;
                // Two volumes may meet below one root.
                fs::hard_link(&target, &path)
                    .or_else(|error| match error.kind() {
                        io::ErrorKind::CrossesDevices => fs::copy(&target, &path).map(|_| ()),
                        _ => Err(error),
                    })
                    .map_err(failed)?;
                self.files.insert(path);
            }
            Kind::File(_) => {
                self.make_room(&path).map_err(failed)?;
                // create_new neither follows a link nor opens what is there.
                let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
                let mut file = options.open(&path).map_err(failed)?;
                loop {
                    let count = archive.content(buffer)?;
                    if count == 0 {
                        break;
                    }
                    file.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
                }
                if self.chown {
                    fchown(&file, Some(entry.owner.uid), Some(entry.owner.gid)).map_err(failed)?;
                }
                file.set_permissions(PermissionsExt::from_mode(entry.mode)).map_err(failed)?;
                self.files.insert(path);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, entry: &Entry) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                if self.manner.names.is_some() && self.name(&entry.path).is_none() {
                    self.take_over(path.to_owned(), entry)?;
                }
                return Ok(());
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(_) => {}
        }
        // A link to a directory that does not exist yet: made where it leads.
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let path = resolve(self.root, below, Last::Follow)?;
        self.make_directories(&path)?;
        self.take_over(path, entry)
    }

    /// A directory becomes what the entry says.
    fn take_over(&mut self, path: PathBuf, entry: &Entry) -> io::Result<()> {
        if self.chown {
            lchown(&path, Some(entry.owner.uid), Some(entry.owner.gid))?;
        }
        self.directories.push((path, entry.mode));
        Ok(())
    }

    /// A directory that is there for a while hides the one that is there.
    fn cover(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let relative = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
        let failed = |source| UnpackError::Write { path: self.root.join(relative), source };
        let full = resolve(self.root, relative, Last::Follow).map_err(failed)?;
        let new = match &mut self.notes {
            Some(notes) => notes.cover(self.root, &full).map_err(failed)?,
            None => false,
        };
        if new { self.take_over(full, entry).map_err(failed) } else { Ok(()) }
    }

    /// What the manner says of a path: the name that a file gets in a directory there.
    fn name(&self, path: &TreePath) -> Option<&'a str> {
        let mut names = self.manner.names?.iter();
        let named = names.find(|(place, _)| place.relative().as_bytes() == path.as_bytes());
        named.map(|(_, name)| name.as_str())
    }

    /// Where a file goes whose destination is `place`: into a directory, and through a link, that is there.
    fn arrival(&self, path: &TreePath, place: PathBuf) -> Result<PathBuf, UnpackError> {
        let Some(name) = self.name(path).filter(|name| !name.is_empty()) else { return Ok(place) };
        let below = place.strip_prefix(self.root).unwrap_or(&place);
        let full = resolve(self.root, below, Last::Follow);
        let full = full.map_err(|source| UnpackError::Write { path: place.clone(), source })?;
        Ok(if full.is_dir() { full.join(name) } else { full })
    }

    /// Where an entry goes; missing directories above it are made.
    fn place(&mut self, path: &TreePath) -> Result<PathBuf, UnpackError> {
        let above = path.parent();
        let name = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if let Some((known, directory)) = &self.parent
            && *known == above
        {
            return Ok(directory.join(OsStr::from_bytes(name)));
        }
        let relative = above.as_ref().map(TreePath::as_bytes).unwrap_or_default();
        let relative = Path::new(OsStr::from_bytes(relative));
        let failed = |source| UnpackError::Write { path: self.root.join(relative), source };
        let directory = resolve(self.root, relative, Last::Follow).map_err(failed)?;
        self.make_directories(&directory).map_err(failed)?;
        let place = directory.join(OsStr::from_bytes(name));
        self.parent = Some((above, directory));
        Ok(place)
    }

    fn make_directories(&mut self, full: &Path) -> io::Result<()> {
        match &mut self.notes {
            Some(notes) => notes.make_missing(self.root, full)?,
            None if self.manner.names.is_some() => {
                drop(make_missing(self.root, full, self.manner.owner.filter(|_| self.chown))?);
            }
            None => fs::create_dir_all(full)?,
        }
        Ok(())
    }

    /// Makes room for something that is no directory.
    fn make_room(&mut self, path: &Path) -> io::Result<()> {
        let there = fs::symlink_metadata(path);
        if there.as_ref().is_ok_and(fs::Metadata::is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        match &mut self.notes {
            Some(notes) => {
                if there.is_ok() {
                    notes.set_aside(self.root, path)?;
                }
                notes.made(path.to_owned());
            }
            None if there.is_ok() => fs::remove_file(path)?,
            None => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<(), UnpackError> {
        // The innermost first, since a directory may forbid us to enter it.
        for (path, mode) in self.directories.into_iter().rev() {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode))
                .map_err(|source| UnpackError::Write { path, source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::domain::layer::LayerWriter;

    fn of(path: &str, kind: Kind, mode: u32) -> Entry {
        // Our own user, so that the tests say the same whether root runs them or not.
        let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        Entry { path: TreePath::new(path).unwrap(), kind, mode, owner }
    }

    fn file(path: &str, mode: u32) -> Entry {
        of(path, Kind::File(2), mode)
    }

    fn unpack_all(root: &Path, entries: &[Entry]) -> Result<(), UnpackError> {
        let mut writer = LayerWriter::new(Vec::new());
        for entry in entries {
            writer.entry(entry).unwrap();
            if matches!(entry.kind, Kind::File(_)) {
                writer.content(b"hi").unwrap();
            }
        }
        unpack(root, &writer.finish().unwrap().1[..], Manner::default())
    }

    #[test]
    fn files_links_and_modes_arrive_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let link = Kind::HardLink(TreePath::new("a/f").unwrap());
        unpack_all(
            root.path(),
            &[
                of("a", Kind::Directory, 0o555),
                file("a/f", 0o777),
                of("a/h", link, 0o777),
                of("a/s", Kind::Symlink(b"/nowhere".to_vec()), 0o777),
                file("b/deep/er", 0o600),
            ],
        )
        .unwrap();
        let mode = |path: &str| fs::symlink_metadata(root.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/f"), mode("b/deep/er")), (0o555, 0o777, 0o600));
        assert_eq!(fs::metadata(root.path().join("a/h")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(root.path().join("a/s")).unwrap(), Path::new("/nowhere"));
        fs::set_permissions(root.path().join("a"), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn nothing_is_written_outside_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("victim"), "safe").unwrap();
        let root = tempfile::tempdir().unwrap();
        let away = outside.path().as_os_str().as_bytes().to_vec();
        let victim = outside.path().join("victim").as_os_str().as_bytes().to_vec();
        unpack_all(
            root.path(),
            &[
                of("away", Kind::Symlink(away), 0o777),
                file("away/new", 0o644),
                of("l", Kind::Symlink(victim.clone()), 0o777),
                file("l", 0o600),
                of("m", Kind::Symlink(victim), 0o777),
            ],
        )
        .unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
        assert_eq!(fs::read_to_string(root.path().join("l")).unwrap(), "hi");
        assert!(fs::metadata(root.path().join("m")).is_ok(), "the target itself is there");
    }

    #[test]
    fn hard_links_need_a_file_of_the_same_archive() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("there"), "secret").unwrap();
        let link = of("l", Kind::HardLink(TreePath::new("there").unwrap()), 0o644);
        assert!(matches!(unpack_all(root.path(), &[link]), Err(UnpackError::Link(_))));
        let chain = [
            of("s", Kind::Symlink(b"there".to_vec()), 0o777),
            of("t", Kind::HardLink(TreePath::new("s").unwrap()), 0o644),
        ];
        assert!(matches!(unpack_all(root.path(), &chain), Err(UnpackError::Link(_))));
    }

    #[test]
    fn what_the_image_has_is_merged_with() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/lib")).unwrap();
        fs::set_permissions(at("usr/lib"), PermissionsExt::from_mode(0o711)).unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        fs::write(at("usr/lib/f"), "old").unwrap();
        unpack_all(root.path(), &[of("lib", Kind::Directory, 0o755), file("lib/f", 0o644)]).unwrap();
        assert!(at("lib").is_symlink());
        assert_eq!(fs::read_to_string(at("usr/lib/f")).unwrap(), "hi");
        assert_eq!(fs::metadata(at("usr/lib")).unwrap().mode() & 0o777, 0o711);
        fs::create_dir(at("d")).unwrap();
        assert!(matches!(unpack_all(root.path(), &[file("d", 0o644)]), Err(UnpackError::Write { .. })));
    }
}
