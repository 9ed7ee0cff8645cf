//! What steps changed in a file system: two looks at its metadata, and an archive of the difference as an image layer has it
//! (OCI image-spec, layer.md "Change Types"). Nobody else may be at work in it meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs::{self, File, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _, Write},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use super::undo::ASIDE;

/// More files than any builder image has; each takes some hundred bytes of the build container's memory.
const MOST_ENTRIES: usize = 1_000_000;
/// Where the caches of a stage lie between its processes.
pub const CACHES: &str = ".minimalimage-caches";
const WHITEOUT: &str = ".wh.";
/// Attributes of the file system or the node, not of the files.
const FOREIGN_XATTRS: [&str; 2] = ["security.selinux", "trusted."];
/// As container runtimes read them.
const XATTR: &str = "SCHILY.xattr.";

/// The metadata of all files below a root.
#[derive(Debug, Default)]
pub struct Scan {
    /// By path, parents first; what a path's metadata hash to, and whether it is a directory.
    entries: Vec<(PathBuf, u64, bool)>,
}

/// What is different from an earlier scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New or changed paths, parents first.
    changed: Vec<PathBuf>,
    /// Paths that are gone; what was below them is not named.
    removed: Vec<PathBuf>,
    /// Bytes of the changed files.
    pub bytes: u64,
}

/// What an archive says of when files were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// As it was: build tools look at it.
    Kept,
    /// Nothing, so that the same files are the same bytes.
    Zero,
}

impl Scan {
    /// Looks at everything below `root` that is no mount of its own.
    ///
    /// # Errors
    /// When a directory cannot be read, or there are too many files.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut scan = Self::default();
        let mut mounted = mount_points(root)?;
        mounted.extend([root.join(ASIDE), root.join(CACHES)]);
        scan.directory(root, Path::new(""), &mounted)?;
        Ok(scan)
    }

    fn directory(&mut self, root: &Path, path: &Path, mounted: &BTreeSet<PathBuf>) -> io::Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(root.join(path))?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let path = path.join(name);
            let full = root.join(&path);
            if mounted.contains(&full) {
                continue;
            }
            let metadata = fs::symlink_metadata(&full)?;
            if self.entries.len() >= MOST_ENTRIES {
                return Err(io::Error::other(format!("there are more than {MOST_ENTRIES} files")));
            }
            let is_directory = metadata.is_dir();
            self.entries.push((path.clone(), stamp(&full, &metadata)?, is_directory));
            if is_directory {
                self.directory(root, &path, mounted)?;
            }
        }
        Ok(())
    }

    /// What of this scan is not in `before`.
    ///
    /// # Errors
    /// When a changed file is of a kind, or has a name, that a layer cannot hold.
    pub fn since(&self, before: &Self, root: &Path) -> io::Result<Changes> {
        let mut changes = Changes::default();
        let (mut old, mut new) = (before.entries.iter().peekable(), self.entries.iter().peekable());
        // Below what is no directory any more nothing needs to be taken away.
        let mut gone: Option<PathBuf> = None;
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(changes),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, ..)), Some((new, ..))) => old.cmp(new),
            };
            let (old, new) = match order {
                std::cmp::Ordering::Less => (old.next(), None),
                std::cmp::Ordering::Greater => (None, new.next()),
                std::cmp::Ordering::Equal => (old.next(), new.next()),
            };
            match (old, new) {
                (Some((_, old, _)), Some((_, new, _))) if old == new => {}
                (old, Some((path, _, is_directory))) => {
                    if old.is_some() && !is_directory {
                        gone = Some(path.clone());
                    }
                    changes.add(root, path)?;
                }
                (Some((path, ..)), None) => {
                    if !gone.as_ref().is_some_and(|gone| path.starts_with(gone)) {
                        gone = Some(path.clone());
                        changes.removed.push(path.clone());
                    }
                }
                (None, None) => {}
            }
        }
    }
}

impl Changes {
    fn add(&mut self, root: &Path, path: &Path) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::other(format!("/{} {what}", path.display())));
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT.as_bytes())) {
            return refuse("has a name that means deletion in an image layer");
        }
        let metadata = fs::symlink_metadata(root.join(path))?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            // Nobody listens any more.
            return Ok(());
        }
        if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() {
            return refuse("is a device or a FIFO, which no layer of ours holds");
        }
        if kind.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
        }
        self.changed.push(path.to_owned());
        Ok(())
    }

    /// Writes the archive of the layer that makes these changes.
    ///
    /// # Errors
    /// When a file cannot be read, or `sink` takes no more.
    pub fn write(&self, root: &Path, times: Times, sink: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(sink);
        let mut links: HashMap<(u64, u64), &Path> = HashMap::new();
        for path in &self.removed {
            let name = path.file_name().unwrap_or_default();
            let name = [WHITEOUT.as_bytes(), name.as_bytes()].concat();
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            archive.append_data(&mut header, path.with_file_name(OsStr::from_bytes(&name)), io::empty())?;
        }
        for path in &self.changed {
            let full = root.join(path);
            let metadata = fs::symlink_metadata(&full)?;
            if metadata.nlink() > 1 && metadata.is_file() {
                match links.entry((metadata.dev(), metadata.ino())) {
                    std::collections::hash_map::Entry::Occupied(first) => {
                        let mut header = header(&metadata, times, EntryType::Link);
                        archive.append_link(&mut header, path, first.get())?;
                        continue;
                    }
                    std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(path)),
                }
            }
            append(&mut archive, path, &full, (&metadata, times))?;
        }
        archive.into_inner()?.flush()
    }
}

fn append(
    archive: &mut Builder<impl Write>,
    path: &Path,
    full: &Path,
    (metadata, times): (&Metadata, Times),
) -> io::Result<()> {
    let records = records(full, metadata, times)?;
    archive.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), &value[..])))?;
    if metadata.is_dir() {
        archive.append_data(&mut header(metadata, times, EntryType::Directory), path, io::empty())
    } else if metadata.is_symlink() {
        archive.append_link(&mut header(metadata, times, EntryType::Symlink), path, fs::read_link(full)?)
    } else {
        let mut header = header(metadata, times, EntryType::Regular);
        header.set_size(metadata.len());
        let content = File::open(full)?.take(metadata.len());
        archive.append_data(&mut header, path, content)
    }
}

fn header(metadata: &Metadata, times: Times, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    let time = if times == Times::Kept { metadata.mtime() } else { 0 };
    header.set_mtime(u64::try_from(time).unwrap_or_default());
    header.set_size(0);
    header
}

/// What a header has no room for: build tools compare times below a second, and capabilities are attributes.
fn records(full: &Path, metadata: &Metadata, times: Times) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    if times == Times::Kept && metadata.mtime() >= 0 && metadata.mtime_nsec() != 0 {
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        records.push(("mtime".to_owned(), time.into_bytes()));
    }
    if !metadata.is_symlink() {
        records.extend(attributes(full)?.into_iter().map(|(name, value)| (format!("{XATTR}{name}"), value)));
    }
    Ok(records)
}

/// The extended attributes of a file or directory that are its own.
fn attributes(full: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(full, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if FOREIGN_XATTRS.iter().any(|foreign| name.starts_with(foreign)) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(full, name, &mut value[..])?;
        value.truncate(length);
        attributes.push((name.to_owned(), value));
    }
    Ok(attributes)
}

/// Changes with everything that a layer holds of a file. A file's change time moves with each of them; a directory's own moves
/// with its files, which are looked at anyway.
fn stamp(full: &Path, metadata: &Metadata) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    (metadata.mode(), metadata.uid(), metadata.gid()).hash(&mut hasher);
    if metadata.is_dir() {
        attributes(full)?.hash(&mut hasher);
    } else {
        let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        (metadata.len(), times).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Everything that is mounted below `root` (proc(5), `/proc/pid/mountinfo`): volumes, files of the kubelet, `/proc` itself.
fn mount_points(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let lines = text.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescaped);
    Ok(points.filter(|point| point != root && point.starts_with(root)).collect())
}

/// Blanks and backslashes are written in octal there.
fn unescaped(name: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests;
