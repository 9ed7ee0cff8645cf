//! Puts unpacked packages together to the files of a base: rules, conflicts, records for scanners, what scripts would have done.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::v1alpha1::ScriptPolicy,
    domain::{
        debug,
        recipe::{Owner, Parents},
        tree::{Attributes, Conflict, Content, FileTree, TreePath, TreePathError},
        value::Digest,
    },
};

use super::{
    accounts::{self, User},
    base::{Onto, Selection},
    certificates::{self, CertificateFile},
    contents::{BASE_FILES, IDENTITY, LINKS, PatternError, Rules, WITHOUT, is_documentation, merged},
    packages::requested,
    relation,
    scripts::{Action, RELEVANT, replacement},
    stanza::Stanza,
    version::Version,
};

/// Where packages bring certificates, of which bundles are made.
const CERTIFICATES: &[u8] = b"usr/share/ca-certificates/";
const ROOT: Owner = Owner { uid: 0, gid: 0 };
const NONROOT: Owner = Owner { uid: 65532, gid: 65532 };
const SETUID_AND_SETGID: u32 = 0o6000;
/// Where names of hosts and users are looked for, as Debian's libc-bin has it without plugins.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n\
                        ethers: files\nrpc: files\n";

/// Why packages do not make a base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A pattern of the spec.
    #[error("spec.image.base.packages: {0}")]
    Pattern(#[from] PatternError),
    /// A path that a layer cannot hold.
    #[error("{package} has a file at {path}: {problem}")]
    Path {
        /// The package.
        package: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: TreePathError,
    },
    /// Two packages have a file at one place, and neither says that it replaces the other.
    #[error("{path} is both in {first} and in {second}; leave one of them out by spec.image.base.packages.exclude")]
    Both {
        /// The path.
        path: String,
        /// The package that came first.
        first: String,
        /// The other.
        second: String,
    },
    /// A directory here and something else there.
    #[error("{package}: {conflict}")]
    Conflict {
        /// The package.
        package: String,
        /// What cannot be together.
        conflict: Conflict,
    },
    /// A hard link to a file that is not in the base.
    #[error(
        "{package} has {path} as a hard link to {target}, which the base has not: add it to spec.image.base.packages.keep"
    )]
    Link {
        /// The package.
        package: String,
        /// The link.
        path: String,
        /// The file.
        target: String,
    },
    /// Scripts that nobody has looked at.
    #[error(
        "no maintainer script is ever run, and what stands for those of some packages is not known: set \
         spec.image.base.packages.scripts: Ignore if nothing that they do is needed, or leave out {0}"
    )]
    Scripts(String),
}

/// A package's control files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// `control`.
    pub control: String,
    /// `md5sums`.
    pub md5sums: String,
    /// Scripts by name.
    pub scripts: BTreeMap<String, Vec<u8>>,
}

/// What becomes of a file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is left out.
    Nowhere,
    /// It is put there.
    At(TreePath),
    /// It is a certificate: its text goes into bundles.
    Certificate(String),
}

/// Takes package after package, in the order of their names; `S` is how a file's bytes are read later.
#[derive(Debug)]
pub struct Composer<S> {
    rules: Rules,
    policy: ScriptPolicy,
    architecture: String,
    onto: Option<Onto>,
    tree: FileTree<S>,
    /// Which package has a file.
    owners: BTreeMap<TreePath, usize>,
    packages: Vec<Taken>,
    certificates: BTreeMap<String, CertificateFile>,
    actions: Vec<Action>,
    unknown: BTreeSet<String>,
    files: u64,
}

/// A package that was begun.
#[derive(Debug)]
struct Taken {
    name: String,
    version: Version,
    control: String,
    md5sums: String,
    replaces: String,
}

impl<S: Clone> Composer<S> {
    /// A base of `architecture` with nothing in it.
    ///
    /// # Errors
    /// When a pattern cannot be used.
    pub fn new(selection: &Selection, architecture: &str) -> Result<Self, ComposeError> {
        Ok(Self {
            rules: Rules::new(selection)?,
            policy: selection.scripts,
            architecture: architecture.to_owned(),
            onto: selection.onto,
            tree: FileTree::new(match selection.onto {
                Some(Onto::Image | Onto::Debug) => Parents::Unusual,
                Some(Onto::Scratch) | None => Parents::All,
            }),
            owners: BTreeMap::new(),
            packages: Vec::new(),
            certificates: BTreeMap::new(),
            actions: Vec::new(),
            unknown: BTreeSet::new(),
            files: 0,
        })
    }

    /// Begins a package: what comes next is of it.
    pub fn package(&mut self, name: &str, version: &Version, control: Control) {
        let is_identity = self.is_identity(name);
        for script in RELEVANT.iter().filter(|_| !is_identity) {
            let Some(text) = control.scripts.get(*script) else { continue };
            match replacement(Digest::of(text), &self.architecture) {
                Some(actions) => self
                    .actions
                    .extend(actions.into_iter().filter(|action| !self.actions.contains(action)).collect::<Vec<_>>()),
                None => {
                    self.unknown.insert(format!("{name} {version}"));
                }
            }
        }
        let replaces = Stanza::parse(&control.control).get("Replaces").unwrap_or_default().to_owned();
        self.packages.push(Taken {
            name: name.to_owned(),
            version: version.clone(),
            control: control.control,
            md5sums: control.md5sums,
            replaces,
        });
    }

    /// What becomes of `path` of the package in hand, as its archive names it.
    ///
    /// # Errors
    /// When the path leaves the base, or another package has it.
    pub fn place(&self, path: &[u8], directory: bool) -> Result<Place, ComposeError> {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path.is_empty() || path == b"." {
            return Ok(Place::Nowhere);
        }
        // The links of the layout are made for all.
        if LINKS.iter().any(|link| link.as_bytes() == path) && !directory {
            return Ok(Place::Nowhere);
        }
        let path = merged(path).unwrap_or_else(|| path.to_vec());
        if self.onto == Some(Onto::Debug) && path == debug::PROGRAM.0.as_bytes() {
            return self.named(debug::PROGRAM.1).map(Place::At);
        }
        let safe = self.tree_path(&path)?;
        if let Some(name) = path.strip_prefix(CERTIFICATES).filter(|name| name.ends_with(b".crt")) {
            return Ok(Place::Certificate(String::from_utf8_lossy(name).into_owned()));
        }
        if self.packages.last().is_some_and(|package| self.is_identity(&package.name))
            && !IDENTITY.iter().any(|file| file.as_bytes() == path)
            && !path.ends_with(b"/copyright")
        {
            return Ok(Place::Nowhere);
        }
        // Directories are a base's; what is put onto something else has those that its files need.
        let is_kept = self.rules.keeps(&path) || !directory && is_documentation(&path);
        if !is_kept || path.starts_with(CERTIFICATES) || directory && self.onto.is_some() {
            return Ok(Place::Nowhere);
        }
        if directory || !self.is_anothers(&safe)? { Ok(Place::At(safe)) } else { Ok(Place::Nowhere) }
    }

    /// Whether of the package `name` only that is taken which tells the distribution: the rest makes a system.
    fn is_identity(&self, name: &str) -> bool {
        self.onto == Some(Onto::Scratch) && name == BASE_FILES
    }

    fn tree_path(&self, path: &[u8]) -> Result<TreePath, ComposeError> {
        let wrong = |problem| ComposeError::Path {
            package: self.current(),
            path: String::from_utf8_lossy(path).chars().take(200).collect(),
            problem,
        };
        TreePath::new(path).map_err(wrong)
    }

    /// A place that is named here, as people write it.
    fn named(&self, path: &str) -> Result<TreePath, ComposeError> {
        self.tree_path(path.trim_start_matches('/').as_bytes())
    }

    /// Whether another package has `path` and keeps it.
    fn is_anothers(&self, path: &TreePath) -> Result<bool, ComposeError> {
        let Some(index) = self.owners.get(path) else { return Ok(false) };
        let (Some(first), Some(second)) = (self.packages.get(*index), self.packages.last()) else { return Ok(false) };
        if *index + 1 == self.packages.len() || replaces(second, first) {
            return Ok(false);
        }
        if replaces(first, second) {
            return Ok(true);
        }
        let (first, second) = (first.name.clone(), second.name.clone());
        Err(ComposeError::Both { path: path.to_string(), first, second })
    }

    /// Puts a regular file.
    ///
    /// # Errors
    /// When something else is there.
    pub fn file(
        &mut self,
        path: TreePath,
        attributes: Attributes,
        (size, source): (u64, S),
    ) -> Result<(), ComposeError> {
        self.files += 1;
        let content = Content::File { size, inode: Some((0, self.files, 0)), source };
        self.put(path, Attributes { mode: attributes.mode & !SETUID_AND_SETGID, ..attributes }, content)
    }

    /// Puts a symbolic link; where it leads is data.
    ///
    /// # Errors
    /// When something else is there.
    pub fn symlink(&mut self, path: TreePath, owner: Owner, target: Vec<u8>) -> Result<(), ComposeError> {
        self.put(path, Attributes { mode: 0o777, owner }, Content::Symlink(target))
    }

    /// Puts a directory.
    ///
    /// # Errors
    /// When something else is there.
    pub fn directory(&mut self, path: TreePath, attributes: Attributes) -> Result<(), ComposeError> {
        self.put(path, attributes, Content::Directory)
    }

    /// Puts another name of a file that came before.
    ///
    /// # Errors
    /// When that file is not in the base.
    pub fn hard_link(&mut self, path: TreePath, target: &[u8]) -> Result<(), ComposeError> {
        let target = target.strip_prefix(b"./").unwrap_or(target);
        let target = merged(target).unwrap_or_else(|| target.to_vec());
        let found = self.tree.get(&self.tree_path(&target)?).map(|(attributes, content)| (attributes, content.clone()));
        match found {
            Some((attributes, content @ Content::File { .. })) => self.put(path, attributes, content),
            _ => Err(ComposeError::Link {
                package: self.current(),
                path: path.to_string(),
                target: String::from_utf8_lossy(&target).into_owned(),
            }),
        }
    }

    /// Takes a certificate that a package has for all.
    pub fn certificate(&mut self, name: String, text: String) {
        let file = name.rsplit('/').next().unwrap_or_default().to_owned();
        self.certificates.insert(name, CertificateFile { name: file, text });
    }

    fn put(&mut self, path: TreePath, attributes: Attributes, content: Content<S>) -> Result<(), ComposeError> {
        if !matches!(content, Content::Directory) {
            self.owners.insert(path.clone(), self.packages.len().saturating_sub(1));
        }
        let package = self.current();
        self.tree.insert(path, attributes, content).map_err(|conflict| ComposeError::Conflict { package, conflict })
    }

    fn current(&self) -> String {
        self.packages.last().map_or_else(|| "the base".to_owned(), |package| package.name.clone())
    }

    /// The base's files; `text` keeps bytes that are made here.
    ///
    /// # Errors
    /// When scripts are not known, or what stands for them cannot be put.
    pub fn finish(mut self, text: impl Fn(Vec<u8>) -> S) -> Result<FileTree<S>, ComposeError> {
        if self.policy == ScriptPolicy::Refuse && !self.unknown.is_empty() {
            return Err(ComposeError::Scripts(self.unknown.into_iter().collect::<Vec<_>>().join(", ")));
        }
        self.records(&text)?;
        let users = self.act(&text)?;
        match self.onto {
            None => self.system(&users, &text)?,
            Some(Onto::Debug) => self.tools()?,
            Some(Onto::Scratch | Onto::Image) => {}
        }
        Ok(self.tree)
    }

    /// The program of the debug image under the names of what it can do.
    fn tools(&mut self) -> Result<(), ComposeError> {
        let (_, program) = debug::PROGRAM;
        let target = program.rsplit('/').next().unwrap_or_default();
        for link in debug::links() {
            let path = self.named(&link)?;
            self.symlink(path, ROOT, target.as_bytes().to_vec())?;
        }
        Ok(())
    }

    /// What scanners read: `/var/lib/dpkg/status.d`, as distroless images have it.
    fn records(&mut self, text: &impl Fn(Vec<u8>) -> S) -> Result<(), ComposeError> {
        for package in std::mem::take(&mut self.packages) {
            let name = format!("var/lib/dpkg/status.d/{}", package.name);
            let sums: String = package.md5sums.lines().filter_map(|line| self.sum(line)).collect();
            self.made(&name, 0o644, format!("{}\n", package.control.trim_end()).into_bytes(), text)?;
            self.made(&format!("{name}.md5sums"), 0o644, sums.into_bytes(), text)?;
        }
        Ok(())
    }

    /// A line of `md5sums` with the path that the file has in the base; none where it is not there.
    fn sum(&self, line: &str) -> Option<String> {
        let (sum, path) = line.split_once("  ")?;
        let path = merged(path.as_bytes()).unwrap_or_else(|| path.as_bytes().to_vec());
        let text = String::from_utf8(path.clone()).ok()?;
        self.tree.get(&TreePath::new(path).ok()?).map(|_| format!("{sum}  {text}\n"))
    }

    fn made(
        &mut self,
        path: &str,
        mode: u32,
        bytes: Vec<u8>,
        text: &impl Fn(Vec<u8>) -> S,
    ) -> Result<(), ComposeError> {
        let path = self.named(path)?;
        let size = bytes.len() as u64;
        self.file(path, Attributes { mode, owner: ROOT }, (size, text(bytes)))
    }

    /// Does what stands for scripts; gives the users that they add.
    fn act(&mut self, text: &impl Fn(Vec<u8>) -> S) -> Result<Vec<User>, ComposeError> {
        let mut users = Vec::new();
        let certificates: Vec<CertificateFile> = self.certificates.values().cloned().collect();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Certificates => {
                    self.made("etc/ssl/certs/ca-certificates.crt", 0o644, certificates::bundle(&certificates), text)?;
                }
                Action::Keystore => {
                    self.made("etc/ssl/certs/java/cacerts", 0o644, certificates::keystore(&certificates), text)?;
                }
                Action::Link(path, target) => {
                    let path = self.named(&path)?;
                    self.symlink(path, ROOT, target.into_bytes())?;
                }
                Action::Copy(path, from) => {
                    let from = self.named(&from)?;
                    let found = self.tree.get(&from).map(|(attributes, content)| (attributes, content.clone()));
                    let path = self.named(&path)?;
                    // One that a package or a person left out is not missed.
                    if let Some((attributes, Content::File { size, source, .. })) = found {
                        self.file(path, attributes, (size, source))?;
                    }
                }
                Action::Directory(path, mode, uid, gid) => {
                    let path = self.named(&path)?;
                    self.directory(path, Attributes { mode, owner: Owner { uid, gid } })?;
                }
                Action::User(name, id, home) => users.push(User { name, id, home }),
                Action::Own(path, mode, uid, gid) => {
                    let path = self.named(&path)?;
                    let found = self.tree.get(&path).map(|(_, content)| content.clone());
                    if let Some(content) = found {
                        self.put(path, Attributes { mode, owner: Owner { uid, gid } }, content)?;
                    }
                }
            }
        }
        Ok(users)
    }

    /// What a base has whatever its packages: the layout, users, places to write to.
    fn system(&mut self, users: &[User], text: &impl Fn(Vec<u8>) -> S) -> Result<(), ComposeError> {
        for link in LINKS {
            let real = self.named(&format!("usr/{link}"))?;
            // A link that leads nowhere helps nobody; but files are copied to /bin and /lib of every image.
            if ["bin", "lib", "sbin"].contains(&link) && self.tree.get(&real).is_none() {
                self.directory(real.clone(), Attributes { mode: 0o755, owner: ROOT })?;
            }
            if self.tree.get(&real).is_some() {
                let path = self.named(link)?;
                self.symlink(path, ROOT, format!("usr/{link}").into_bytes())?;
            }
        }
        self.made("etc/passwd", 0o644, accounts::passwd(users).into_bytes(), text)?;
        self.made("etc/group", 0o644, accounts::group(users).into_bytes(), text)?;
        let nsswitch = self.named("etc/nsswitch.conf")?;
        if self.tree.get(&nsswitch).is_none() {
            self.made("etc/nsswitch.conf", 0o644, NSSWITCH.as_bytes().to_vec(), text)?;
        }
        for (path, mode, owner) in [
            ("tmp", 0o1777, ROOT),
            ("var/tmp", 0o1777, ROOT),
            ("run", 0o755, ROOT),
            ("root", 0o700, ROOT),
            ("home", 0o755, ROOT),
            ("home/nonroot", 0o700, NONROOT),
        ] {
            let path = self.named(path)?;
            self.directory(path, Attributes { mode, owner })?;
        }
        Ok(())
    }
}

/// Whether `package` says that it may take over files of `other` (Debian policy 7.6.1).
fn replaces(package: &Taken, other: &Taken) -> bool {
    relation::each(&package.replaces).any(|relation| relation.name == other.name && relation.takes(&other.version))
}

/// Names of packages that a base is taken to have, and has not, unless they are asked for by name.
#[must_use]
pub fn without(exclude: &[String], install: &[String]) -> BTreeSet<String> {
    let wanted: BTreeSet<&str> = install.iter().map(|text| requested(text).0).collect();
    let rules = WITHOUT.iter().filter(|name| !wanted.contains(*name)).map(|name| (*name).to_owned());
    rules.chain(exclude.iter().cloned()).collect()
}
