//! Writes the files of a fetched commit: exactly the bytes that Git holds, without filters, line-end conversion or a `.git`.

use std::{collections::BTreeMap, path::Path};

use gix_object::Find as _;
use tempfile::TempDir;

use super::{SourceError, git::MAX_OBJECT_BYTES, read::bounded, writer::TreeWriter};
use crate::domain::{
    git::{
        Commit, EntryKind, ObjectId, Submodule, TreeEntry, commit_time, commit_tree, is_lfs_pointer, parse_modules,
        submodule_url, tree_entries,
    },
    source::{RelativePath, SourceUrl, close_names},
};

/// A directory's list of names, or a Dockerfile, is not larger.
const MAX_LOOKUP_BYTES: usize = 8 << 20;

/// One repository's part of a source.
pub(super) struct Repository {
    pub(super) url: SourceUrl,
    pub(super) commit: Commit,
    /// Only what is in this directory of it is written.
    pub(super) directory: RelativePath,
    /// Where it is written.
    pub(super) place: RelativePath,
    /// How many repositories it is inside of.
    pub(super) depth: usize,
}

/// A repository whose objects are there, and where its files go.
pub(super) struct Checkout {
    pub(super) repository: Repository,
    pub(super) objects: TempDir,
    pub(super) writer: TreeWriter,
    /// Whether submodules are filled.
    pub(super) follow: bool,
}

/// What a checkout leaves to do and to say.
pub(super) struct Outcome {
    pub(super) writer: TreeWriter,
    pub(super) submodules: Vec<Repository>,
    pub(super) warning: Option<String>,
    /// The commit's, in seconds since 1970.
    pub(super) time: Option<i64>,
}

impl Checkout {
    /// Writes all files and removes the objects.
    pub(super) fn run(self) -> Result<Outcome, SourceError> {
        let objects = Objects::at(self.objects.path(), &self.repository.url, MAX_OBJECT_BYTES)?;
        let mut buffer = Vec::new();
        let (root, time) = objects.root(self.repository.commit, &mut buffer)?;
        let mut walk = Walk {
            repository: &self.repository,
            objects,
            root,
            writer: self.writer,
            follow: self.follow,
            modules: None,
            submodules: Vec::new(),
            pointers: 0,
            pointer: None,
        };
        if let Some(tree) = walk.descend()? {
            walk.write(tree)?;
        }
        let warning = walk.pointer.map(|path| {
            format!("{} files are Git LFS pointers, for example `{path}`: LFS content is not fetched", walk.pointers)
        });
        Ok(Outcome { writer: walk.writer, submodules: walk.submodules, warning, time })
    }
}

struct Objects<'a> {
    odb: gix_odb::Handle,
    url: &'a SourceUrl,
}

impl<'a> Objects<'a> {
    fn at(directory: &Path, url: &'a SourceUrl, limit: usize) -> Result<Self, SourceError> {
        let failed = |source| SourceError::File { path: directory.to_owned(), source };
        let options = gix_odb::store::init::Options { alloc_limit_bytes: Some(limit), ..Default::default() };
        let odb = gix_odb::at_opts(directory, gix_hash::Kind::Sha1, [], options).map_err(failed)?;
        Ok(Self { odb, url })
    }

    fn entries<'b>(&self, tree: ObjectId, buffer: &'b mut Vec<u8>) -> Result<Vec<TreeEntry<'b>>, SourceError> {
        let data = self.get(tree, gix_object::Kind::Tree, buffer)?;
        tree_entries(data).ok_or_else(|| SourceError::Object { url: self.url.clone(), id: tree, what: "it is broken" })
    }

    fn find<'b>(
        &self,
        id: ObjectId,
        kind: gix_object::Kind,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<&'b [u8]>, SourceError> {
        let failed = |what| SourceError::Object { url: self.url.clone(), id, what };
        match self.odb.try_find(&gix_hash::ObjectId::Sha1(*id.as_bytes()), buffer) {
            Ok(Some(object)) if object.kind == kind => Ok(Some(object.data)),
            Ok(Some(_)) => Err(failed("it is of another kind than expected")),
            Ok(None) => Ok(None),
            Err(_) => Err(failed("it is broken or too large")),
        }
    }

    fn get<'b>(&self, id: ObjectId, kind: gix_object::Kind, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], SourceError> {
        let missing = || SourceError::Object { url: self.url.clone(), id, what: "the server did not send it" };
        self.find(id, kind, buffer)?.ok_or_else(missing)
    }

    fn root(&self, commit: Commit, buffer: &mut Vec<u8>) -> Result<(ObjectId, Option<i64>), SourceError> {
        let missing = || SourceError::NoSuchCommit {
            url: self.url.clone(),
            commit,
            why: "it is in the history of no branch or tag; was it force-pushed away?",
        };
        let data = self.find(commit, gix_object::Kind::Commit, buffer)?.ok_or_else(missing)?;
        let broken = || SourceError::Object { url: self.url.clone(), id: commit, what: "it is broken" };
        Ok((commit_tree(data).ok_or_else(broken)?, commit_time(data)))
    }
}

/// Single files of a commit whose trees are there.
pub(super) struct Lookup<'a>(Objects<'a>);

impl<'a> Lookup<'a> {
    pub(super) fn new(url: &'a SourceUrl, objects: &Path) -> Result<Self, SourceError> {
        Objects::at(objects, url, MAX_LOOKUP_BYTES).map(Self)
    }

    /// The object of the file `path` below `directory`; none where there is no regular file.
    pub(super) fn file(
        &self,
        commit: Commit,
        directory: &RelativePath,
        path: &str,
    ) -> Result<Option<ObjectId>, SourceError> {
        let path = directory.append(&RelativePath::parse(path.as_bytes())?)?;
        let mut buffer = Vec::new();
        let (mut tree, _) = self.0.root(commit, &mut buffer)?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let entries = self.0.entries(tree, &mut buffer)?;
            let Some(entry) = entries.iter().find(|entry| entry.name == name) else { return Ok(None) };
            match (entry.kind, names.peek()) {
                (EntryKind::Blob { .. }, None) => return Ok(Some(entry.id)),
                (EntryKind::Tree, Some(_)) => tree = entry.id,
                // Not to see an ignore file would put into the image what it hides.
                (EntryKind::Link | EntryKind::Submodule, _) => {
                    let why =
                        "is a symbolic link or in a submodule, where a Dockerfile and what belongs to it is not read";
                    return Err(SourceError::Entry { path: path.to_string(), why });
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(super) fn content(&self, id: ObjectId) -> Result<Vec<u8>, SourceError> {
        let mut buffer = Vec::new();
        bounded(self.0.get(id, gix_object::Kind::Blob, &mut buffer)?.to_vec())
    }
}

struct Walk<'a> {
    repository: &'a Repository,
    objects: Objects<'a>,
    root: ObjectId,
    writer: TreeWriter,
    follow: bool,
    /// Read when the first submodule is met.
    modules: Option<BTreeMap<RelativePath, Submodule>>,
    submodules: Vec<Repository>,
    pointers: u64,
    pointer: Option<RelativePath>,
}

impl Walk<'_> {
    /// The tree of the directory asked for; none when it is in a submodule, which is then left to do.
    fn descend(&mut self) -> Result<Option<ObjectId>, SourceError> {
        let wanted = &self.repository.directory;
        let (mut tree, mut at, mut buffer) = (self.root, RelativePath::default(), Vec::new());
        for name in wanted.components() {
            let entries = self.objects.entries(tree, &mut buffer)?;
            let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
                return Err(missing(wanted, &at, &entries));
            };
            let (kind, id) = (entry.kind, entry.id);
            at = at.join(name)?;
            match kind {
                EntryKind::Tree => tree = id,
                EntryKind::Submodule if self.follow => {
                    let below = wanted.below(&at).unwrap_or_default();
                    self.submodule(&at, id, self.repository.place.clone(), below)?;
                    return Ok(None);
                }
                EntryKind::Submodule => {
                    let why = "is a submodule, set submodules: true to have it filled";
                    return Err(SourceError::Entry { path: at.to_string(), why });
                }
                EntryKind::Blob { .. } | EntryKind::Link => {
                    let why = "is a file or symbolic link, but the source's directory is to be there";
                    return Err(SourceError::Entry { path: at.to_string(), why });
                }
            }
        }
        Ok(Some(tree))
    }

    fn write(&mut self, tree: ObjectId) -> Result<(), SourceError> {
        let (mut trees, mut blob) = (Vec::new(), Vec::new());
        let mut todo = vec![(tree, RelativePath::default())];
        while let Some((tree, directory)) = todo.pop() {
            let place = self.repository.place.append(&directory)?;
            self.writer.directory(&place)?;
            for entry in self.objects.entries(tree, &mut trees)? {
                let below = directory.join(entry.name)?;
                if entry.name.eq_ignore_ascii_case(b".git") {
                    let why = "is a name that Git does not allow in a tree";
                    return Err(SourceError::Entry { path: below.to_string(), why });
                }
                let place = place.join(entry.name)?;
                match entry.kind {
                    EntryKind::Tree => todo.push((entry.id, below)),
                    EntryKind::Submodule => {
                        let path = self.repository.directory.append(&below)?;
                        self.writer.directory(&place)?;
                        if self.follow {
                            self.submodule(&path, entry.id, place, RelativePath::default())?;
                        }
                    }
                    EntryKind::Link => {
                        let target = self.objects.get(entry.id, gix_object::Kind::Blob, &mut blob)?;
                        self.writer.symlink(&place, target)?;
                    }
                    EntryKind::Blob { executable } => {
                        let mut content = self.objects.get(entry.id, gix_object::Kind::Blob, &mut blob)?;
                        if is_lfs_pointer(content) {
                            self.pointers += 1;
                            self.pointer.get_or_insert_with(|| place.clone());
                        }
                        self.writer.file(&place, executable, &mut content)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Leaves the submodule at `path` of this repository to be fetched into `place`.
    fn submodule(
        &mut self,
        path: &RelativePath,
        commit: Commit,
        place: RelativePath,
        directory: RelativePath,
    ) -> Result<(), SourceError> {
        if self.modules.is_none() {
            self.modules = Some(self.read_modules()?);
        }
        let declared =
            self.modules.as_ref().and_then(|modules| modules.get(path)).ok_or_else(|| SourceError::Submodule {
                path: path.to_string(),
                why: "the repository's .gitmodules has no path and url for it",
            })?;
        if declared.skipped {
            return Ok(());
        }
        let url = submodule_url(&self.repository.url, &declared.url)
            .map_err(|cause| SourceError::SubmoduleUrl { path: path.to_string(), cause })?;
        self.submodules.push(Repository { url, commit, directory, place, depth: self.repository.depth + 1 });
        Ok(())
    }

    fn read_modules(&self) -> Result<BTreeMap<RelativePath, Submodule>, SourceError> {
        let mut buffer = Vec::new();
        let entries = self.objects.entries(self.root, &mut buffer)?;
        let is_file =
            |entry: &&TreeEntry<'_>| entry.name == b".gitmodules" && matches!(entry.kind, EntryKind::Blob { .. });
        // As a link it could lead anywhere; Git refuses that too.
        let Some(id) = entries.iter().find(is_file).map(|entry| entry.id) else { return Ok(BTreeMap::new()) };
        let mut buffer = Vec::new();
        Ok(parse_modules(self.objects.get(id, gix_object::Kind::Blob, &mut buffer)?))
    }
}

fn missing(wanted: &RelativePath, at: &RelativePath, entries: &[TreeEntry<'_>]) -> SourceError {
    let directories = entries.iter().filter(|entry| entry.kind == EntryKind::Tree);
    let names: Vec<String> =
        directories.filter_map(|entry| at.join(entry.name).ok()).map(|path| path.to_string()).collect();
    let directory = wanted.to_string();
    let close = close_names(&directory, names.iter().map(String::as_str));
    SourceError::NoSuchDirectory { directory, close }
}
