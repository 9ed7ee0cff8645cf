//! Sources fetched for real: git's own http-backend and a plain file server on loopback, into temporary directories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the configuration's exception for tests covers test functions, not the fixtures between them"
)]

mod archive;
mod files;
mod git;
#[path = "../support/server.rs"]
mod server;

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use minimalimage::{
    domain::task::{Limits, Network, Origin, SourceTask},
    shell::{
        net::Http,
        source::{FetchEnvironment, Fetched, SourceError, fetch, read_files},
    },
};
use tempfile::TempDir;

/// Everything that a fetch needs, with small limits.
pub(crate) struct Fixture {
    pub(crate) http: Http,
    pub(crate) secret: TempDir,
    pub(crate) config_map: TempDir,
    pub(crate) work: TempDir,
    pub(crate) into: TempDir,
    pub(crate) limits: Limits,
    pub(crate) directory: String,
    pub(crate) time: Duration,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = || TempDir::new().unwrap();
        Self {
            http: client(),
            secret: dir(),
            config_map: dir(),
            work: dir(),
            into: dir(),
            limits: Limits { source_bytes: 1 << 20, source_entries: 200, ..Limits::default() },
            directory: String::new(),
            time: Duration::from_mins(1),
        }
    }

    pub(crate) fn with_directory(self, directory: &str) -> Self {
        Self { directory: directory.into(), ..self }
    }

    pub(crate) fn with_limits(mut self, bytes: u64, entries: u64) -> Self {
        self.limits.source_bytes = bytes;
        self.limits.source_entries = entries;
        self
    }

    pub(crate) fn with_secret(self, keys: &[(&str, &str)]) -> Self {
        for (key, value) in keys {
            std::fs::write(self.secret.path().join(key), value).unwrap();
        }
        self
    }

    /// The text of files, as the operator reads a Dockerfile.
    pub(crate) async fn read(&self, origin: Origin, paths: &[&str]) -> Result<Vec<Option<String>>, SourceError> {
        let task = SourceTask { origin, directory: self.directory.clone() };
        let names: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut found = read_files(&task, None, &self.environment(), &names).await?;
        Ok(names.iter().map(|name| Some(String::from_utf8(found.remove(name)??).unwrap())).collect())
    }

    fn environment(&self) -> FetchEnvironment<'_> {
        FetchEnvironment {
            http: &self.http,
            secret_dir: self.secret.path(),
            config_map_dir: self.config_map.path(),
            work_dir: self.work.path(),
            limits: &self.limits,
            time: self.time,
        }
    }

    pub(crate) async fn fetch(&self, origin: Origin) -> Result<Fetched, SourceError> {
        let task = SourceTask { origin, directory: self.directory.clone() };
        let result = fetch(&task, &self.environment(), self.into.path()).await;
        assert_eq!(std::fs::read_dir(self.work.path()).unwrap().count(), 0, "downloads are left behind");
        result
    }

    /// The tree as fetched: path to `mode content`, `-> target` or `dir`.
    pub(crate) fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        list(self.into.path(), self.into.path(), &mut tree);
        tree
    }
}

fn list(root: &Path, directory: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let text = if metadata.is_symlink() {
            format!("-> {}", std::fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            list(root, &path, tree);
            assert_eq!(mode, 0o755, "{name}");
            "dir".into()
        } else {
            format!("{mode:o} {}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()))
        };
        tree.insert(name, text);
    }
}

/// A tree as [`Fixture::tree`] gives it.
pub(crate) fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

pub(crate) fn client() -> Http {
    // A second installation fails, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    Http::new(&Network { allowed_ranges: vec!["127.0.0.0/8".into(), "::1/128".into()], ..Network::default() }).unwrap()
}
