//! What an image's file system holds, as far as it decides whether a program starts: names, kinds, modes, owners, links, and
//! what the files say of themselves. Made by [`super::gather`], layer by layer; here layers are put on top of each other.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufReader, Read as _},
    ops::Bound,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::{
    recipe::Owner,
    tree::{PARENT, TreePath},
};

use super::{elf::Elf, jar::Jar, loader_files::CacheEntry, resolve::Looks};

/// Changes when an index that was stored by an older program must be made anew.
const FORMAT: u32 = 2;
/// More files than any sensible image has; of what is beyond, nothing is known.
pub(super) const MOST_ENTRIES: usize = 100_000;
/// Bytes of all names and link targets.
pub(super) const MOST_NAMES: usize = 8 << 20;
/// Bytes of JSON that a stored index is read from.
const LARGEST_STORED: u64 = 64 << 20;
/// Bytes of facts of all files of an image together, about.
const MOST_FACTS: usize = 16 << 20;
/// As many links of directories are followed when one layer is put on others.
const MOST_LOOKS: u32 = 10_000_000;

/// A file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileIndex {
    nodes: BTreeMap<TreePath, Node>,
    is_cut: bool,
    /// Bytes of the names of directories that nobody named, but that had to be made.
    implied: usize,
    /// About how many bytes the facts take that were ever put here.
    facts: usize,
}

/// A layer, before it is put on others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerIndex {
    /// In the layer's own order: a later entry replaces an earlier one, and may lead over its links.
    entries: Vec<(TreePath, Node)>,
    /// What this layer takes away of those below it.
    deleted: Vec<TreePath>,
    /// Directories of which it takes away all that they hold below it.
    emptied: Vec<TreePath>,
    is_cut: bool,
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    #[serde(rename = "m")]
    pub mode: u32,
    /// Numeric owner.
    #[serde(rename = "o", serialize_with = "owner", deserialize_with = "owner_of")]
    pub owner: Owner,
    /// Which layer it comes from.
    #[serde(skip)]
    pub origin: Origin,
}

/// Where a file comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// The image that others are built from: what is wrong in it is not ours to refuse.
    #[default]
    Base,
    /// What was built.
    Artifact,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    #[serde(rename = "d")]
    Directory,
    /// A regular file.
    #[serde(rename = "f")]
    File(Facts),
    /// A symbolic link and where it leads, which need not be text.
    #[serde(rename = "l", serialize_with = "encoded", deserialize_with = "decoded")]
    Symlink(Vec<u8>),
    /// Another name of a file, where that is not known yet: it lies in a layer below.
    #[serde(rename = "h", serialize_with = "encoded_path", deserialize_with = "decoded_path")]
    HardLink(TreePath),
    /// A device, FIFO or socket.
    #[serde(rename = "o")]
    Other,
}

/// What a regular file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Facts {
    /// Nothing that matters here: a text, an image, data.
    #[default]
    #[serde(rename = "-")]
    Data,
    /// It is empty.
    #[serde(rename = "0")]
    Empty,
    /// It was not looked at: too large, or broken. No verdict may rest on it.
    #[serde(rename = "?")]
    Unseen,
    /// A program or library.
    #[serde(rename = "e")]
    Elf(Box<Elf>),
    /// A script: what follows `#!`, without the end of the line; with it when the line is cut, as the kernel cuts it.
    #[serde(rename = "s")]
    Script(String),
    /// A Java archive.
    #[serde(rename = "j")]
    Jar(Jar),
    /// A Java class, by the major version of its format.
    #[serde(rename = "c")]
    Class(u16),
    /// A text that loaders or runtimes read at a fixed place.
    #[serde(rename = "t")]
    Text(String),
    /// `/etc/ld.so.cache`.
    #[serde(rename = "l")]
    LoaderCache(Vec<CacheEntry>),
}

impl Facts {
    /// About how many bytes they take.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Data | Self::Empty | Self::Unseen | Self::Class(_) => 0,
            Self::Script(text) | Self::Text(text) => text.len(),
            Self::Elf(elf) => elf.weight(),
            Self::Jar(jar) => jar.main_class.as_ref().map_or(0, String::len),
            Self::LoaderCache(entries) => entries.len() * 150,
        }
    }
}

impl LayerIndex {
    /// Adds an entry.
    pub(super) fn put(&mut self, path: TreePath, node: Node) {
        self.entries.push((path, node));
    }

    /// Notes that what lower layers have at `path` is gone, or only what that directory holds.
    pub(super) fn delete(&mut self, path: TreePath, only_content: bool) {
        if only_content { self.emptied.push(path) } else { self.deleted.push(path) }
    }

    /// Notes that there was more than is kept.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn make_executable(&mut self) {
        self.entries.iter_mut().for_each(|(_, node)| node.mode = 0o755);
    }

    /// Reads what [`LayerIndex::into_bytes`] wrote; none when it is of another format, broken, or larger than any of ours.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = GzDecoder::new(bytes).take(LARGEST_STORED);
        let stored: Stored = serde_json::from_reader(BufReader::new(text)).ok()?;
        let paths = |names: Vec<Name>| names.into_iter().map(|Name(path)| path).collect();
        let entries = stored.nodes.into_iter().map(|(Name(path), node)| (path, node)).collect();
        let (deleted, emptied) = (paths(stored.deleted), paths(stored.emptied));
        (stored.format == FORMAT).then_some(Self { entries, deleted, emptied, is_cut: stored.is_cut })
    }

    /// This index as bytes that keep: compressed JSON, the same for the same index.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let names = |paths: Vec<TreePath>| paths.into_iter().map(Name).collect();
        let (deleted, emptied) = (names(self.deleted), names(self.emptied));
        let nodes = self.entries.into_iter().map(|(path, node)| (Name(path), node)).collect();
        let stored = Stored { format: FORMAT, is_cut: self.is_cut, deleted, emptied, nodes };
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Strings, numbers and lists, into memory: cannot fail.
        let _ = serde_json::to_writer(&mut packed, &stored);
        packed.finish().unwrap_or_default()
    }
}

impl FileIndex {
    /// Whether there was more than is kept: what is missing here may be in the image.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What the path leads to, links followed; none where it leads to nothing.
    #[must_use]
    pub fn find(&self, path: &TreePath) -> Option<(TreePath, &Node)> {
        let found = self.resolve(&[b"/", path.as_bytes()].concat(), None, &Looks::new(MOST_LOOKS)).ok()?;
        found.path.zip(found.node)
    }

    /// What is at `path`, links not followed.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All names in order, each directory followed by what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// What lies below the directory at `path`, links not followed.
    pub fn below(&self, path: &TreePath) -> impl Iterator<Item = (&TreePath, &Node)> {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        self.nodes.range::<TreePath, _>(after).take_while(move |(next, _)| next.is_below(path.as_bytes()))
    }

    /// This file system with `layer` unpacked onto it, as container runtimes do: deletions first, then its entries, where
    /// links of directories below are followed and a file takes the place of whatever was there.
    #[must_use]
    pub fn with(mut self, layer: LayerIndex, origin: Origin) -> Self {
        let looks = Looks::new(MOST_LOOKS);
        for path in &layer.deleted {
            if let Some(path) = self.place(path, &looks) {
                self.remove(&path);
            }
        }
        for path in &layer.emptied {
            if let Some(path) = self.place(path, &looks) {
                self.remove_below(&path);
            }
        }
        self.is_cut |= layer.is_cut;
        let mut links = Vec::new();
        for (path, mut node) in layer.entries {
            let Some(path) = self.place(&path, &looks) else { continue };
            if self.nodes.len() >= 2 * MOST_ENTRIES || self.implied > MOST_NAMES || looks.is_spent() {
                self.is_cut = true;
                break;
            }
            node.origin = origin;
            if let Kind::File(facts) = &mut node.kind {
                self.facts = self.facts.saturating_add(facts.weight());
                if self.facts > MOST_FACTS {
                    *facts = Facts::Unseen;
                }
            }
            let stays = node.kind == Kind::Directory
                && self.nodes.get(&path).is_some_and(|below| below.kind == Kind::Directory);
            if !stays {
                self.remove(&path);
            }
            if let Kind::HardLink(target) = &node.kind {
                links.push((path.clone(), target.clone()));
            }
            self.nodes.insert(path, node);
        }
        for (path, target) in links {
            let target = self.place(&target, &looks).and_then(|target| self.nodes.get(&target)).cloned();
            let node = target.filter(|node| matches!(node.kind, Kind::File(_)));
            if let Some(link) = self.nodes.get_mut(&path) {
                // Mode and owner are the file's: a link has none of its own.
                let found = node.unwrap_or(Node { kind: Kind::File(Facts::Unseen), ..link.clone() });
                *link = Node { origin, ..found };
            }
        }
        self
    }

    /// Where an entry named `path` is put: the links of directories on the way are followed and missing directories made.
    /// None when the way leads nowhere.
    fn place(&mut self, path: &TreePath, looks: &Looks) -> Option<TreePath> {
        let Some(parent) = path.parent() else { return Some(path.clone()) };
        let name = path.as_bytes().get(parent.as_bytes().len() + 1..)?;
        let mut at = match self.nodes.get(&parent).map(|node| &node.kind) {
            Some(Kind::Directory) => return Some(path.clone()),
            _ => self.place(&parent, looks)?,
        };
        // A chain of links; longer ones end at the kernel too.
        for _ in 0..40 {
            let target = match self.nodes.get(&at).map(|node| &node.kind) {
                Some(Kind::Directory) => return at.join(name).ok(),
                None => {
                    let node = Node {
                        kind: Kind::Directory,
                        mode: PARENT.mode,
                        owner: PARENT.owner,
                        origin: Origin::default(),
                    };
                    self.implied = self.implied.saturating_add(at.as_bytes().len());
                    self.nodes.insert(at.clone(), node);
                    return at.join(name).ok();
                }
                Some(Kind::Symlink(target)) => target.clone(),
                Some(_) => return None,
            };
            let found = self.resolve(&absolute(&at, &target), None, looks).ok()?;
            match found.path {
                Some(path) => at = path,
                None => return TreePath::new(name).ok(),
            }
        }
        None
    }

    fn remove(&mut self, path: &TreePath) {
        if self.nodes.remove(path).is_some_and(|node| node.kind == Kind::Directory) {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, path: &TreePath) {
        let gone: Vec<TreePath> = self.below(path).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }
}

/// The absolute path to which the link at `link` leads.
pub(super) fn absolute(link: &TreePath, target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") {
        return target.to_vec();
    }
    let parent = link.parent();
    let parent = parent.as_ref().map(TreePath::as_bytes).unwrap_or_default();
    [b"/", parent, b"/", target].concat()
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(default)]
    is_cut: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<Name>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    emptied: Vec<Name>,
    #[serde(deserialize_with = "bounded")]
    nodes: Vec<(Name, Node)>,
}

/// No more entries than an index of ours has.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Name, Node)>, D::Error> {
    struct Entries;
    impl<'de> de::Visitor<'de> for Entries {
        type Value = Vec<(Name, Node)>;

        fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            to.write_str("entries")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut nodes = Vec::new();
            let mut names = 0_usize;
            while let Some(entry) = entries.next_element::<(Name, Node)>()? {
                names = names.saturating_add(entry.0.0.as_bytes().len());
                if nodes.len() >= MOST_ENTRIES || names > MOST_NAMES {
                    return Err(de::Error::custom("it has more entries than any index of ours"));
                }
                nodes.push(entry);
            }
            Ok(nodes)
        }
    }
    deserializer.deserialize_seq(Entries)
}

/// A path as JSON has it.
struct Name(TreePath);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        encoded(self.0.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decoded_path(deserializer).map(Self)
    }
}

/// Text stays readable, other bytes become `%xx`: names of files need not be UTF-8.
fn encoded<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' '..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => write!(text, "%{byte:02x}").unwrap_or_default(),
        }
    }
    serializer.serialize_str(&text)
}

fn encoded_path<S: Serializer>(path: &TreePath, serializer: S) -> Result<S::Ok, S::Error> {
    encoded(path.as_bytes(), serializer)
}

fn decoded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Ok(percent_decode_str(&String::deserialize(deserializer)?).collect())
}

fn decoded_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TreePath, D::Error> {
    TreePath::new(decoded(deserializer)?).map_err(de::Error::custom)
}

/// Two numbers instead of an object: there is one for each file.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn owner<S: Serializer>(owner: &Owner, serializer: S) -> Result<S::Ok, S::Error> {
    (owner.uid, owner.gid).serialize(serializer)
}

fn owner_of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Owner, D::Error> {
    <(u32, u32)>::deserialize(deserializer).map(|(uid, gid)| Owner { uid, gid })
}
