//! Reads what copy items name below a root directory into a [`FileTree`]. Decides nothing about what a layer may hold.

mod archive;
mod error;
mod matches;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

pub use archive::{Room, Stored};
use archive::{Unpacked, tar_kind};
pub use error::CollectError;

use super::rooted::{Last, resolve};
use crate::domain::{
    dockerfile::{Problem, ignore::Ignore},
    layer::LayerWriter,
    mode::Mode,
    recipe::{CopyItem, Docker, Output, Owner},
    tree::{Attributes, Content, FileTree, Kind, PARENT, TreePath},
    value::Digest,
};

/// What kind of directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A build container: modes are the files' own; the kernel's directories and ours are left out.
    Container,
    /// A source, fetched or as somebody works in it: of the modes only the executable bit means something, and there is
    /// no `.git`.
    Source,
}

/// Collects an output's items below `root`; the tree's sources are paths to open. Nothing outside of `root` is ever read, nor what
/// `ignore` hides of it. Archives that ADD names are unpacked into `room`; without one they are files as others.
pub fn collect(
    root: &Path,
    output: &Output,
    scope: Scope,
    ignore: &Ignore,
    room: Option<&Room>,
) -> Result<FileTree<Stored>, CollectError> {
    let mounted = match scope {
        Scope::Container => mounted_files(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        Scope::Source => BTreeSet::new(),
    };
    let lower = output.lower.iter().filter_map(|path| TreePath::new(path.relative()).ok()).collect();
    let tree = FileTree::new(output.parents).above(lower);
    let mut collector = Collector { root, scope, mounted, ignore, room, unpacked: Unpacked::default(), copy: 0, tree };
    for item in &output.items {
        collector.item(item)?;
    }
    Ok(collector.tree)
}

/// Writes a collected tree as a layer's archive. A file that changes meanwhile is an error.
pub fn write(tree: &FileTree<Stored>, sink: impl Write) -> Result<Digest, CollectError> {
    let failed = |source| CollectError::Write { source };
    let mut writer = LayerWriter::new(sink);
    let mut buffer = vec![0; 64 * 1024];
    for (entry, path) in tree.entries() {
        writer.entry(&entry).map_err(failed)?;
        let (Kind::File(_), Some(path)) = (&entry.kind, path) else { continue };
        let mut file = fs::File::open(path).map_err(|source| read(path, source))?;
        loop {
            let count = file.read(&mut buffer).map_err(|source| read(path, source))?;
            if count == 0 {
                break;
            }
            writer.content(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
        }
    }
    writer.finish().map(|(report, _)| report.diff_id).map_err(failed)
}

struct Collector<'a> {
    root: &'a Path,
    scope: Scope,
    /// Files that the kubelet has mounted, like /etc/hosts with the Pod's address: not the stage's, different in each run.
    mounted: BTreeSet<PathBuf>,
    /// What is not seen, relative to the root.
    ignore: &'a Ignore,
    /// Where archives are unpacked.
    room: Option<&'a Room>,
    unpacked: Unpacked,
    /// Which copy comes next, for those whose files are no links of others'.
    copy: usize,
    tree: FileTree<Stored>,
}

/// One match of an item on its way into the tree.
struct Found<'a> {
    item: &'a CopyItem,
    /// What the item leaves out, relative to `top`.
    exclude: &'a Ignore,
    top: PathBuf,
}

impl Collector<'_> {
    fn item(&mut self, item: &CopyItem) -> Result<(), CollectError> {
        let matches = self.matches(&item.source)?;
        if matches.len() > 1 && !item.destination.directory {
            return Err(CollectError::SeveralMatches(item.source.clone()));
        }
        let exclude = patterns(item)?;
        let destination = item.destination.path.relative().as_bytes();
        let owner = item.owner.filter(|_| item.docker.is_some());
        self.tree.let_parents_belong_to(owner.unwrap_or_default());
        for named in &matches {
            self.copy += usize::from(item.docker.is_some());
            // As Docker's COPY: what an item names is followed, links further down are copied as links.
            let path = resolve(self.root, named, Last::Follow).map_err(|source| read(named, source))?;
            let metadata = fs::symlink_metadata(&path).map_err(|source| read(&path, source))?;
            self.parents(item, named, destination)?;
            let destination = kept_parents(item, named, metadata.is_dir(), destination);
            let top = if metadata.is_dir() { path.clone() } else { path.parent().unwrap_or(&path).to_owned() };
            let found = Found { item, exclude: &exclude, top };
            if metadata.is_dir() {
                self.directory(&found, &path, &metadata, &destination)?;
                continue;
            }
            let mode = metadata.mode() & 0o7777;
            let changed = item.mode.is_none() && item.owner.is_some() && item.docker.is_none();
            if self.scope == Scope::Container && changed && metadata.is_file() && mode & 0o6000 != 0 {
                return Err(CollectError::Privileged { path, mode });
            }
            let name = named.file_name().unwrap_or_default().as_bytes();
            let into = item.parents.is_some()
                || item.destination.directory
                || destination.is_empty()
                || TreePath::new(&destination[..]).is_ok_and(|path| self.tree.is_directory(&path));
            let target = if into { below(&destination, name) } else { destination };
            if self.is_hidden(&found, &path) {
                continue;
            }
            let adds = item.docker == Some(Docker::Add) && self.room.is_some() && metadata.is_file();
            let packed = if adds { tar_kind(&path).map_err(|source| read(&path, source))? } else { None };
            match packed {
                Some(packed) => self.unpack(item, &path, packed, item.destination.path.relative().as_bytes())?,
                None => self.insert(item, &path, &metadata, target)?,
            }
        }
        Ok(())
    }

    /// COPY --parents keeps the directories above what it copies as they are.
    fn parents(&mut self, item: &CopyItem, named: &Path, destination: &[u8]) -> Result<(), CollectError> {
        let (Some(dropped), Some(_)) = (item.parents, item.docker) else { return Ok(()) };
        let above: Vec<&Path> = named.ancestors().skip(1).filter(|path| path.components().count() > dropped).collect();
        for named in above.into_iter().rev() {
            let path = resolve(self.root, named, Last::Follow).map_err(|source| read(named, source))?;
            let metadata = fs::symlink_metadata(&path).map_err(|source| read(&path, source))?;
            self.insert(item, &path, &metadata, kept_parents(item, named, true, destination))?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        found: &Found<'_>,
        path: &Path,
        metadata: &Metadata,
        destination: &[u8],
    ) -> Result<(), CollectError> {
        if self.is_left_out(path) || self.is_hidden_whole(found, path) {
            return Ok(());
        }
        // What only leads to files that are seen again is not there for itself.
        if !destination.is_empty() && !self.is_hidden(found, path) {
            if path == found.top && found.item.docker.is_some() && found.item.parents.is_none() {
                self.make(found.item, path, destination)?;
            } else {
                self.insert(found.item, path, metadata, destination.to_vec())?;
            }
        }
        for name in names(path)? {
            if self.is_git(&name) {
                continue;
            }
            let inner = path.join(OsStr::from_bytes(&name));
            let metadata = fs::symlink_metadata(&inner).map_err(|source| read(&inner, source))?;
            let target = below(destination, &name);
            if metadata.is_dir() {
                self.directory(found, &inner, &metadata, &target)?;
            } else if !self.mounted.contains(&inner) && !self.is_hidden(found, &inner) {
                self.insert(found.item, &inner, &metadata, target)?;
            }
        }
        Ok(())
    }

    /// Whether the ignore file or the item itself leaves `path` out.
    fn is_hidden(&self, found: &Found<'_>, path: &Path) -> bool {
        relative(self.root, path).is_some_and(|path| self.ignore.ignores(&path))
            || relative(&found.top, path).is_some_and(|path| found.exclude.ignores(&path))
    }

    /// Whether nothing below `path` can be seen either.
    fn is_hidden_whole(&self, found: &Found<'_>, path: &Path) -> bool {
        relative(self.root, path).is_some_and(|path| self.ignore.ignores_all_of(&path))
            || relative(&found.top, path).is_some_and(|path| found.exclude.ignores_all_of(&path))
    }

    /// The directory that a directory is copied to has nothing of that but what it holds, and is left as it is where it exists.
    fn make(&mut self, item: &CopyItem, path: &Path, destination: &[u8]) -> Result<(), CollectError> {
        let named = |problem| CollectError::Name { path: path.to_owned(), problem };
        let target = TreePath::new(destination).map_err(named)?;
        if self.tree.is_directory(&target) {
            return Ok(());
        }
        // mkdir(2) knows the permission bits alone; changes are for what is copied (BuildKit).
        let mode = item.mode.as_ref().and_then(Mode::bits).map_or(PARENT.mode, |mode| mode & 0o777);
        let attributes = Attributes { mode, owner: item.owner.unwrap_or(PARENT.owner) };
        Ok(self.tree.insert(target, attributes, Content::Directory)?)
    }

    fn insert(
        &mut self,
        item: &CopyItem,
        path: &Path,
        metadata: &Metadata,
        target: Vec<u8>,
    ) -> Result<(), CollectError> {
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            Content::Directory
        } else if kind.is_symlink() {
            let link = fs::read_link(path).map_err(|source| read(path, source))?;
            Content::Symlink(link.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            let inode = (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino(), self.copy));
            Content::File { size: metadata.len(), inode, source: Stored::at(path) }
        } else if kind.is_socket() {
            // Left behind by daemons and useless without them.
            return Ok(());
        } else {
            return Err(CollectError::Kind(path.to_owned()));
        };
        let target = TreePath::new(target).map_err(|problem| CollectError::Name { path: path.to_owned(), problem })?;
        let attributes =
            Attributes { mode: self.mode(item, metadata), owner: item.owner.unwrap_or_else(|| self.owner(metadata)) };
        Ok(self.tree.insert(target, attributes, content)?)
    }

    fn mode(&self, item: &CopyItem, metadata: &Metadata) -> u32 {
        if metadata.is_symlink() {
            return 0o777;
        }
        let own = self.own_mode(item, metadata);
        item.mode.as_ref().map_or(own, |mode| mode.of(own, metadata.is_dir()))
    }

    fn own_mode(&self, item: &CopyItem, metadata: &Metadata) -> u32 {
        let mode = metadata.mode();
        match self.scope {
            // As it is, as COPY --from has it.
            Scope::Container if item.owner.is_none() || item.docker.is_some() => mode & 0o7777,
            Scope::Source if metadata.is_dir() || mode & 0o111 != 0 => 0o755,
            Scope::Source => 0o644,
            // In a whole tree, setuid and setgid files come along unasked, and with root as their owner they would be
            // worth more than they were; directories have setgid from a volume's fsGroup.
            Scope::Container if metadata.is_dir() => mode & 0o1777,
            Scope::Container => mode & 0o777,
        }
    }

    fn owner(&self, metadata: &Metadata) -> Owner {
        match self.scope {
            // Nobody in particular has fetched it.
            Scope::Source => Owner::default(),
            Scope::Container => Owner { uid: metadata.uid(), gid: metadata.gid() },
        }
    }

    /// A fetched source has no `.git`, which Git allows in no tree; a directory that somebody works in has one.
    fn is_git(&self, name: &[u8]) -> bool {
        self.scope == Scope::Source && name.eq_ignore_ascii_case(b".git")
    }

    fn is_left_out(&self, path: &Path) -> bool {
        const LEFT_OUT: [&str; 4] = ["proc", "sys", "dev", "run/minimalimage"];
        self.scope == Scope::Container
            && path.strip_prefix(self.root).is_ok_and(|path| LEFT_OUT.iter().any(|out| path == Path::new(out)))
    }
}

/// What an item leaves out.
fn patterns(item: &CopyItem) -> Result<Ignore, CollectError> {
    Ignore::parse(&item.exclude.join("\n")).map_err(|problems| CollectError::Source {
        source_path: item.source.clone(),
        problem: problems.iter().map(Problem::sentence).collect::<Vec<_>>().join("; "),
    })
}

/// The destination of a match that keeps its path: without as many leading components as the item says.
fn kept_parents(item: &CopyItem, named: &Path, is_directory: bool, destination: &[u8]) -> Vec<u8> {
    let Some(dropped) = item.parents else { return destination.to_vec() };
    let path: PathBuf = named.components().skip(dropped).collect();
    let path = if is_directory { Some(path.as_path()) } else { path.parent() };
    match path.map(|path| path.as_os_str().as_bytes()).filter(|path| !path.is_empty()) {
        Some(path) => below(destination, path),
        None => destination.to_vec(),
    }
}

/// `path` as ignore patterns see it; none for `top` itself.
fn relative<'a>(top: &Path, path: &'a Path) -> Option<Cow<'a, str>> {
    path.strip_prefix(top).ok().filter(|path| !path.as_os_str().is_empty()).map(Path::to_string_lossy)
}

/// The mount points in `mountinfo` (proc(5)) that are no directories.
fn mounted_files(mountinfo: &str) -> BTreeSet<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| fs::symlink_metadata(point).is_ok_and(|metadata| !metadata.is_dir())).collect()
}

/// The names in a directory, sorted: the order on disk must not matter.
fn names(path: &Path) -> Result<Vec<Vec<u8>>, CollectError> {
    let entries = fs::read_dir(path).map_err(|source| read(path, source))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().as_bytes().to_vec()));
    let mut names = names.collect::<io::Result<Vec<_>>>().map_err(|source| read(path, source))?;
    names.sort();
    Ok(names)
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn read(path: &Path, source: io::Error) -> CollectError {
    CollectError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
