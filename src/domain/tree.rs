//! The files of one layer before they are written: sorted, with explicit modes and owners. Knows no disk.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use super::recipe::{Owner, Parents};

/// A path inside a layer: relative, as bytes because file names need not be UTF-8, without `.`, `..` or empty parts.
///
/// Ordered by components, so that everything below a directory follows it at once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Vec<u8>);

/// Why some bytes are not a [`TreePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreePathError {
    /// No name at all.
    #[error("an empty name")]
    Empty,
    /// A leading `/`.
    #[error("an absolute name")]
    Absolute,
    /// `.`, `..`, `//` or a NUL byte.
    #[error("a name with `.`, `..`, `//` or NUL in it")]
    Unsafe,
    /// Over 4096 bytes (Linux PATH_MAX), or 255 in one component (NAME_MAX).
    #[error("a name longer than Linux allows")]
    TooLong,
    /// `.wh.` at the start of a component would delete files of the layers below (OCI image-spec, layer.md "Whiteouts").
    #[error("a name that begins with `.wh.`, which means deletion in an image layer")]
    Whiteout,
}

impl TreePath {
    /// Checks `bytes`; a trailing `/` is not allowed.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, TreePathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(TreePathError::Empty);
        }
        if bytes.starts_with(b"/") {
            return Err(TreePathError::Absolute);
        }
        if bytes.len() > 4096 {
            return Err(TreePathError::TooLong);
        }
        for part in bytes.split(|byte| *byte == b'/') {
            if matches!(part, b"" | b"." | b"..") || part.contains(&0) {
                return Err(TreePathError::Unsafe);
            }
            if part.len() > 255 {
                return Err(TreePathError::TooLong);
            }
            if part.starts_with(b".wh.") {
                return Err(TreePathError::Whiteout);
            }
        }
        Ok(Self(bytes))
    }

    /// The bytes, without a leading `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that holds this path; none at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0.get(..end)?.to_vec()))
    }

    /// Every directory above this path, the topmost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        ends.filter_map(|end| Some(Self(self.0.get(..end)?.to_vec())))
    }

    /// This path with a relative `below` under it.
    pub fn join(&self, below: &[u8]) -> Result<Self, TreePathError> {
        Self::new([&self.0[..], b"/", below].concat())
    }

    /// Whether this path lies strictly below `directory`, given as bytes; everything lies below the empty path.
    #[must_use]
    pub fn is_below(&self, directory: &[u8]) -> bool {
        directory.is_empty() || self.0.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        fn key(path: &TreePath) -> impl Iterator<Item = u8> + '_ {
            path.0.iter().map(|byte| if *byte == b'/' { 0 } else { *byte })
        }
        key(self).cmp(key(other))
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Absolute, and readable even where the name is not UTF-8.
impl fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One entry of a layer, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub owner: Owner,
}

/// What an entry is. There are no devices, FIFOs or sockets in a layer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File(u64),
    /// A symbolic link; where it leads is data and never followed.
    Symlink(Vec<u8>),
    /// Another name of a file that comes earlier in the layer.
    HardLink(TreePath),
}

/// What is put into a [`FileTree`]; `S` is what the caller needs to read the file later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<S> {
    /// A directory.
    Directory,
    /// A regular file. Equal `inode` means that the names are hard links of each other.
    File {
        /// Bytes.
        size: u64,
        /// Device and inode, when the file has more than one name, and which copy it comes with.
        inode: Option<(u64, u64, usize)>,
        /// How to read it.
        source: S,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
}

/// Two copies that cannot both be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is copied both as a directory and as something else")]
pub struct Conflict(TreePath);

/// Mode and owner of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub owner: Owner,
}

/// What a directory is that nobody described: created on the way to a destination.
pub const PARENT: Attributes = Attributes { mode: 0o755, owner: Owner { uid: 0, gid: 0 } };

/// The files of one layer. The order of insertion decides conflicts only, never the order of the entries.
#[derive(Debug, Clone)]
pub struct FileTree<S> {
    parents: Parents,
    /// What directories on the way are.
    parent: Attributes,
    /// Directories that are there already, below this layer.
    lower: BTreeSet<TreePath>,
    nodes: BTreeMap<TreePath, (Attributes, Content<S>)>,
}

impl<S> FileTree<S> {
    /// An empty tree that adds the directories above its entries as `parents` says.
    #[must_use]
    pub fn new(parents: Parents) -> Self {
        Self { parents, parent: PARENT, lower: BTreeSet::new(), nodes: BTreeMap::new() }
    }

    /// Leaves out directories on the way that a layer below has.
    #[must_use]
    pub fn above(self, lower: BTreeSet<TreePath>) -> Self {
        Self { lower, ..self }
    }

    /// From here on, directories that nobody describes belong to `owner`.
    pub fn let_parents_belong_to(&mut self, owner: Owner) {
        self.parent.owner = owner;
    }

    /// Puts something at `path`. A later file or link replaces an earlier one, directories merge and the later one's
    /// attributes hold, a directory and something else at one place are a conflict (as Docker's COPY has it).
    pub fn insert(&mut self, path: TreePath, attributes: Attributes, content: Content<S>) -> Result<(), Conflict> {
        for above in path.ancestors() {
            match self.nodes.get(&above) {
                Some((_, Content::Directory)) => {}
                Some(_) => return Err(Conflict(above)),
                None if carries_parent(self.parents, &above) && !self.lower.contains(&above) => {
                    self.nodes.insert(above, (self.parent, Content::Directory));
                }
                None => {}
            }
        }
        let directory = matches!(content, Content::Directory);
        let had_directory = match self.nodes.get(&path) {
            Some((_, existing)) => Some(matches!(existing, Content::Directory)),
            None => self.holds_below(&path).then_some(true),
        };
        if had_directory.is_some_and(|had| had != directory) {
            return Err(Conflict(path));
        }
        if !directory || carries_directory(self.parents, &path) {
            self.nodes.insert(path, (attributes, content));
        }
        Ok(())
    }

    /// Whether `path` is a directory of this tree, written or only implied by what lies below it.
    #[must_use]
    pub fn is_directory(&self, path: &TreePath) -> bool {
        match self.nodes.get(path) {
            Some((_, content)) => matches!(content, Content::Directory),
            None => self.lower.contains(path) || self.holds_below(path),
        }
    }

    /// What was put at `path`.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<(Attributes, &Content<S>)> {
        self.nodes.get(path).map(|(attributes, content)| (*attributes, content))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The entries in their one order, with the source of each regular file's bytes. The first name of a file holds the
    /// bytes, the others are hard links to it, unless their mode or owner differs: then they are files of their own.
    pub fn entries(&self) -> impl Iterator<Item = (Entry, Option<&S>)> {
        let mut first_names: HashMap<((u64, u64, usize), Attributes), TreePath> = HashMap::new();
        self.nodes.iter().map(move |(path, (attributes, content))| {
            let (kind, source) = match content {
                Content::Directory => (Kind::Directory, None),
                Content::Symlink(target) => (Kind::Symlink(target.clone()), None),
                Content::File { size, inode, source } => {
                    let first = inode.and_then(|inode| {
                        let known = first_names.get(&(inode, *attributes)).cloned();
                        if known.is_none() {
                            first_names.insert((inode, *attributes), path.clone());
                        }
                        known
                    });
                    first.map_or((Kind::File(*size), Some(source)), |target| (Kind::HardLink(target), None))
                }
            };
            (Entry { path: path.clone(), kind, mode: attributes.mode, owner: attributes.owner }, source)
        })
    }

    fn holds_below(&self, path: &TreePath) -> bool {
        // Descendants follow their directory at once in component order.
        let after = (std::ops::Bound::Excluded(path), std::ops::Bound::Unbounded);
        self.nodes.range::<TreePath, _>(after).next().is_some_and(|(next, _)| next.is_below(path.as_bytes()))
    }
}

/// Whether a layer with these `parents` holds an entry for a directory that was only passed on the way.
#[must_use]
pub fn carries_parent(parents: Parents, directory: &TreePath) -> bool {
    match parents {
        Parents::All => true,
        Parents::Unusual => !is_usual(directory.as_bytes()),
        Parents::None => false,
    }
}

/// Whether a layer with these `parents` holds an entry for a directory that was itself copied.
#[must_use]
pub fn carries_directory(parents: Parents, directory: &TreePath) -> bool {
    match parents {
        Parents::All | Parents::None => true,
        Parents::Unusual => !is_usual(directory.as_bytes()),
    }
}

/// Whether `directory`, without a leading `/`, is one that a base image has, often as symbolic links (`/lib`, `/var/run`) or with modes of their own (`/tmp`).
#[must_use]
pub fn is_usual(directory: &[u8]) -> bool {
    const USUAL: &str = "bin boot dev etc etc/ssl etc/ssl/certs home lib lib/aarch64-linux-gnu lib/x86_64-linux-gnu lib32 \
         lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr usr/bin usr/include usr/lib \
         usr/lib/aarch64-linux-gnu usr/lib/x86_64-linux-gnu usr/lib64 usr/local usr/local/bin usr/local/lib usr/sbin \
         usr/share var var/cache var/lib var/log var/run var/spool var/tmp";
    USUAL.split_ascii_whitespace().any(|usual| usual.as_bytes() == directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes { mode: 0o644, owner: Owner { uid: 0, gid: 0 } };
    const OTHER: Attributes = Attributes { mode: 0o755, owner: Owner { uid: 7, gid: 7 } };

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(source: u8, inode: Option<u64>) -> Content<u8> {
        Content::File { size: 1, inode: inode.map(|inode| (1, inode, 0)), source }
    }

    fn names(tree: &FileTree<u8>) -> Vec<String> {
        tree.entries().map(|(entry, _)| entry.path.to_string()).collect()
    }

    #[test]
    fn paths_that_leave_the_layer_are_refused() {
        for (bytes, error) in [
            (&b""[..], TreePathError::Empty),
            (b"/etc", TreePathError::Absolute),
            (b"..", TreePathError::Unsafe),
            (b"a/../b", TreePathError::Unsafe),
            (b"a/./b", TreePathError::Unsafe),
            (b"a//b", TreePathError::Unsafe),
            (b"a/", TreePathError::Unsafe),
            (b"a\0b", TreePathError::Unsafe),
            (b"a/.wh.b", TreePathError::Whiteout),
            (&[b'a'; 256], TreePathError::TooLong),
            (&b"ab/".repeat(1400)[..4199], TreePathError::TooLong),
        ] {
            assert_eq!(TreePath::new(bytes), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(TreePath::new(&b"a\xff/b"[..]).is_ok());
    }

    #[test]
    fn a_directory_is_followed_by_what_it_holds() {
        let mut tree = FileTree::new(Parents::All);
        for name in ["a.b", "a-", "a/z", "a/b/c", "b"] {
            tree.insert(path(name), PLAIN, file(0, None)).unwrap();
        }
        assert_eq!(names(&tree), ["/a", "/a/b", "/a/b/c", "/a/z", "/a-", "/a.b", "/b"]);
    }

    #[test]
    fn later_files_win_and_directories_merge() {
        let mut tree = FileTree::new(Parents::None);
        tree.insert(path("a"), PLAIN, Content::Directory).unwrap();
        tree.insert(path("a/f"), PLAIN, file(1, None)).unwrap();
        tree.insert(path("a/f"), OTHER, file(2, None)).unwrap();
        tree.insert(path("a"), OTHER, Content::Directory).unwrap();
        let entries: Vec<_> = tree.entries().map(|(entry, source)| (entry.mode, source.copied())).collect();
        assert_eq!(entries, [(0o755, None), (0o755, Some(2))]);
    }

    #[test]
    fn a_file_and_a_directory_at_one_place_are_a_conflict() {
        let mut tree = FileTree::new(Parents::None);
        tree.insert(path("a"), PLAIN, file(1, None)).unwrap();
        tree.insert(path("b/c"), PLAIN, file(1, None)).unwrap();
        tree.insert(path("l"), PLAIN, Content::Symlink(b"/etc".to_vec())).unwrap();
        assert_eq!(tree.insert(path("a"), PLAIN, Content::Directory), Err(Conflict(path("a"))));
        assert_eq!(tree.insert(path("a/x"), PLAIN, file(1, None)), Err(Conflict(path("a"))));
        assert_eq!(tree.insert(path("l/x"), PLAIN, file(1, None)), Err(Conflict(path("l"))));
        assert_eq!(tree.insert(path("b"), PLAIN, file(1, None)), Err(Conflict(path("b"))));
    }

    #[test]
    fn parents_follow_the_output() {
        for (parents, expected) in [
            (Parents::All, vec!["/usr", "/usr/x", "/usr/x/f"]),
            (Parents::Unusual, vec!["/usr/x", "/usr/x/f"]),
            (Parents::None, vec!["/usr/x/f"]),
        ] {
            let mut tree = FileTree::new(parents);
            tree.insert(path("usr/x/f"), PLAIN, file(0, None)).unwrap();
            assert_eq!(names(&tree), expected);
        }
    }

    #[test]
    fn the_first_name_in_order_holds_the_bytes_of_hard_links() {
        let mut tree = FileTree::new(Parents::None);
        for name in ["c", "b", "a"] {
            tree.insert(path(name), PLAIN, file(0, Some(5))).unwrap();
        }
        tree.insert(path("d"), OTHER, file(0, Some(5))).unwrap();
        let kinds: Vec<_> = tree.entries().map(|(entry, _)| entry.kind).collect();
        assert_eq!(kinds, [Kind::File(1), Kind::HardLink(path("a")), Kind::HardLink(path("a")), Kind::File(1)]);
    }
}
