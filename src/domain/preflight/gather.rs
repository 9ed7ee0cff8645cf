//! Looks at the files of a layer as they stream by: fed with what [`LayerWriter`](crate::domain::layer::LayerWriter) is fed
//! with, in the same calls. Bounded in names, in what it keeps of one file, and in what it keeps of all.

use crate::domain::tree::{self, Entry, TreePath};

use super::{
    elf,
    index::{Facts, Kind, LayerIndex, MOST_ENTRIES, MOST_NAMES, Node, Origin},
    jar, loader_files,
    window::Windows,
};

/// Where programs look for the authorities that they trust, or where that leads to: on Debian and Alpine, Red Hat, and SUSE.
pub const BUNDLES: [&[u8]; 5] = [
    b"etc/ssl/certs/ca-certificates.crt",
    b"etc/pki/tls/certs/ca-bundle.crt",
    b"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    b"var/lib/ca-certificates/ca-bundle.pem",
    b"etc/ssl/cert.pem",
];
/// The kernel reads so much of a script (Linux, BINPRM_BUF_SIZE since 5.1).
const SCRIPT: usize = 256;
/// The longest text of a loader or runtime, and the largest `/etc/ld.so.cache`.
const LONGEST_TEXT: usize = 1 << 20;
const LARGEST_CACHE: usize = 8 << 20;
/// Bytes of facts of all files together, about.
const MOST_FACTS: usize = 8 << 20;

/// Makes the index of one layer.
#[derive(Debug, Default)]
pub struct Gatherer {
    index: LayerIndex,
    names: usize,
    facts: usize,
    open: Option<Open>,
}

/// The file whose content is coming.
#[derive(Debug)]
struct Open {
    path: TreePath,
    entry: Node,
    size: u64,
    /// Bytes that have come.
    seen: u64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// The first bytes, of which it depends what more is wanted.
    Beginning(Vec<u8>),
    /// The whole of a text, up to a limit.
    Text(Vec<u8>, usize),
    Windows(Box<Windows>, Format),
    /// Nothing more of a file of which enough is known.
    Done(Facts),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Elf,
    Zip,
}

impl Gatherer {
    /// Takes the next entry; what was given of the last one's content is all of it.
    pub fn entry(&mut self, entry: &Entry) {
        let kind = match &entry.kind {
            tree::Kind::Directory => Kind::Directory,
            tree::Kind::File(_) => Kind::File(Facts::Unseen),
            tree::Kind::Symlink(target) => Kind::Symlink(target.clone()),
            tree::Kind::HardLink(target) => Kind::HardLink(target.clone()),
        };
        let node = Node { kind, mode: entry.mode, owner: entry.owner, origin: Origin::default() };
        let size = if let tree::Kind::File(size) = entry.kind { size } else { 0 };
        self.node(entry.path.clone(), node, size);
    }

    /// Takes bytes of the current file.
    pub fn content(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.push(bytes);
        }
    }

    /// The same as [`Gatherer::entry`] for entries that our own layers do not have.
    pub(super) fn node(&mut self, path: TreePath, node: Node, size: u64) {
        self.close();
        let target = match &node.kind {
            Kind::Symlink(target) => target.len(),
            Kind::HardLink(target) => target.as_bytes().len(),
            _ => 0,
        };
        self.names = self.names.saturating_add(path.as_bytes().len() + target);
        if self.names > MOST_NAMES || self.index.len() >= MOST_ENTRIES {
            self.index.cut();
            return;
        }
        if matches!(node.kind, Kind::File(_)) {
            let kept = Kept::of(&path);
            self.open = Some(Open { path, entry: node, size, seen: 0, kept });
        } else {
            self.index.put(path, node);
        }
    }

    /// Notes that this layer deletes what lower ones have at `path`, or only what that directory holds.
    pub(super) fn delete(&mut self, path: TreePath, only_content: bool) {
        self.names = self.names.saturating_add(path.as_bytes().len());
        if self.names <= MOST_NAMES {
            self.index.delete(path, only_content);
        }
    }

    /// The index of the layer.
    #[must_use]
    pub fn finish(mut self) -> LayerIndex {
        self.close();
        self.index
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Of what did not come, such as the holes of a sparse file, nothing can be said.
        let facts = if open.seen == open.size { open.kept.facts(open.size) } else { Facts::Unseen };
        self.facts = self.facts.saturating_add(facts.weight());
        let facts = if self.facts > MOST_FACTS { Facts::Unseen } else { facts };
        self.index.put(open.path, Node { kind: Kind::File(facts), ..open.entry });
    }
}

impl Open {
    fn push(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        let path = self.path.as_bytes();
        match &mut self.kept {
            Kept::Beginning(head) => {
                let had = head.len();
                head.extend_from_slice(bytes.get(..bytes.len().min(SCRIPT - had)).unwrap_or_default());
                let format = match head.get(..4) {
                    Some(magic) if magic == elf::MAGIC => Format::Elf,
                    Some(magic) if magic == jar::MAGIC && is_jar(path) => Format::Zip,
                    _ if head.len() < SCRIPT => return,
                    _ => {
                        self.kept = Kept::Done(beginning(head));
                        return;
                    }
                };
                let mut windows = Box::new(Windows::default());
                keep(&mut windows, head.get(..had).unwrap_or_default(), format);
                keep(&mut windows, bytes, format);
                self.kept = Kept::Windows(windows, format);
            }
            Kept::Text(text, limit) => {
                if text.len() + bytes.len() > *limit {
                    self.kept = Kept::Done(Facts::Unseen);
                } else {
                    text.extend_from_slice(bytes);
                }
            }
            Kept::Windows(windows, format) => keep(windows, bytes, *format),
            Kept::Done(_) => {}
        }
    }
}

fn keep(windows: &mut Windows, bytes: &[u8], format: Format) {
    windows.push(bytes, |windows| if format == Format::Elf { elf::dynamic_range(windows) } else { None });
}

impl Kept {
    fn of(path: &TreePath) -> Self {
        match path.as_bytes() {
            b"etc/ld.so.cache" => Self::Text(Vec::new(), LARGEST_CACHE),
            path if is_text(path) => Self::Text(Vec::new(), LONGEST_TEXT),
            _ => Self::Beginning(Vec::new()),
        }
    }

    fn facts(self, size: u64) -> Facts {
        match self {
            _ if size == 0 => Facts::Empty,
            Self::Done(facts) => facts,
            Self::Beginning(head) => beginning(&head),
            Self::Text(bytes, LARGEST_CACHE) => loader_files::cache(&bytes).map_or(Facts::Unseen, Facts::LoaderCache),
            Self::Text(bytes, _) => match beginning(bytes.get(..SCRIPT).unwrap_or(&bytes)) {
                Facts::Data => Facts::Text(String::from_utf8_lossy(&bytes).into_owned()),
                other => other,
            },
            Self::Windows(windows, Format::Elf) => {
                elf::read(&windows).map_or(Facts::Unseen, |elf| Facts::Elf(Box::new(elf)))
            }
            Self::Windows(windows, Format::Zip) => jar::read(&windows).map_or(Facts::Unseen, Facts::Jar),
        }
    }
}

fn is_jar(path: &[u8]) -> bool {
    [&b".jar"[..], b".war", b".ear"].iter().any(|ending| path.ends_with(ending))
}

/// Texts that are read in full: accounts, the loaders' files, what says which distribution or Java this is, and
/// authorities' certificates.
fn is_text(path: &[u8]) -> bool {
    matches!(path, b"etc/passwd" | b"etc/group" | b"etc/ld.so.conf")
        || BUNDLES.contains(&path)
        || matches!(path, b"etc/os-release" | b"usr/lib/os-release")
        || path.starts_with(b"etc/ld.so.conf.d/")
        || path.starts_with(b"etc/ld-musl-")
        || path.ends_with(b"/release")
}

/// What the first bytes of a file say that is no ELF file and no archive.
fn beginning(head: &[u8]) -> Facts {
    if let Some(line) = head.strip_prefix(b"#!") {
        let end = line.iter().position(|byte| *byte == b'\n');
        let line = end.map_or(line, |end| line.get(..end).unwrap_or_default());
        let mut text = String::from_utf8_lossy(line).into_owned();
        if end.is_none() && head.len() == SCRIPT {
            // So that a cut line is told from one at the end of its file.
            text.push('\n');
        }
        return Facts::Script(text);
    }
    if let Some(version) = jar::class_version(head) {
        return Facts::Class(version);
    }
    // Cut ELF files, which the kernel takes for something else.
    Facts::Data
}
