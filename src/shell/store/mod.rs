//! What builds on this machine keep: blobs by digest, artifacts by key, unpacked builder layers, caches, a list of images.
//! Whatever is written appears under its name only when it is complete, so that builds can run at once and be killed.
//!
//! - here: places, blobs, keys, resolved references.
//! - `runs`: directories that live as long as one run of one stage.
//! - `images`: what was built.
//! - `usage`: how much there is, and less of it.

mod images;
mod runs;
mod usage;

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

pub use images::BuiltImage;
pub use runs::RunDirectory;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;
pub use usage::Usage;

use crate::domain::{
    artifact::{self, Artifact, Layer, LayerIndexBlob},
    changes::StageInputs,
    debian::base::PackageSet,
    recipe::Key,
    value::{Digest, DigestHasher, Platform, Reference},
};

/// Small blobs that are read as a whole: manifests, configs.
const SMALL: u64 = 8 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no place for it.
    #[error("unable to find a place for the store: set HOME or XDG_DATA_HOME, or give --store")]
    NoPlace,
    /// The disk says no.
    #[error("failed to use {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob that is not what its name says.
    #[error("{} is damaged: delete it", .0.display())]
    Damaged(PathBuf),
    /// A build is using what is to be removed.
    #[error("a build is running: prune when it is done")]
    Busy,
}

/// The folders of what the next build can make or fetch again.
const MADE_AGAIN: [&str; 12] = [
    "blobs",
    "partial",
    "keys",
    "snapshots",
    "saved",
    "inputs",
    "resolved",
    "packages",
    "layers",
    "chains",
    "runs",
    "caches",
];

/// The store of one user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A blob that is being written.
pub struct BlobWriter {
    store: Store,
    file: NamedTempFile,
    hasher: DigestHasher,
}

/// A hold on something in the store, until it is dropped.
pub struct Lock(#[expect(dead_code, reason = "it is held, not used")] File);

/// What a reference led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// Digest of what the reference points to, an index or a manifest.
    pub digest: Digest,
    /// Digest of the platform's manifest, a blob of the store.
    pub manifest: Digest,
    /// Digest of its config, a blob of the store.
    pub config: Digest,
    /// Bytes of the layers, unpacked.
    pub size: u64,
    /// Bytes of the layers as a registry holds them.
    pub compressed_size: u64,
    /// When that was, in seconds since 1970.
    pub time: i64,
}

impl Store {
    /// The store at `path`, else at its usual place (XDG Base Directory Specification); made when missing.
    ///
    /// # Errors
    /// When there is no place for it, or it cannot be written to.
    pub fn open(path: Option<PathBuf>) -> Result<Self, StoreError> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = || named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")));
        let root = path.or_else(|| Some(data()?.join("minimalimage"))).ok_or(StoreError::NoPlace)?;
        let root = std::path::absolute(&root).map_err(|source| StoreError::file(&root, source))?;
        let store = Self { root };
        for name in MADE_AGAIN.into_iter().chain(["images", "locks"]) {
            let path = store.root.join(name);
            // Nobody else: it holds what builds made, and sockets.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| StoreError::file(&path, source))?;
        }
        Ok(store)
    }

    /// Where unpacked layers are.
    #[must_use]
    pub fn chains(&self) -> PathBuf {
        self.root.join("chains")
    }

    /// Where a cache's files are.
    #[must_use]
    pub fn cache(&self, name: &str) -> PathBuf {
        self.root.join("caches").join(Digest::of(name.as_bytes()).short(32))
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.blob(digest).exists()
    }

    /// The bytes of a small blob; none when it is not there.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it should be.
    pub fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob(digest);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(SMALL).read_to_end(&mut bytes)) {
            Ok(_) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            Ok(_) => Err(StoreError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { path, source }),
        }
    }

    /// Begins to write a blob.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        Ok(BlobWriter { store: self.clone(), file: self.partial()?, hasher: DigestHasher::default() })
    }

    /// Writes a blob that is at hand.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.has(digest) {
            let mut writer = self.writer()?;
            writer.write(bytes)?;
            writer.finish()?;
        }
        Ok(digest)
    }

    /// The artifact that was made under `key`, if all of it is still there.
    #[must_use]
    pub fn known(&self, key: &Key) -> Option<Artifact> {
        self.artifact(self.json("keys", &key.to_string())?)
    }

    /// The artifact with this manifest, if all of it is there.
    #[must_use]
    pub fn artifact(&self, digest: Digest) -> Option<Artifact> {
        let manifest = self.read(digest).ok()??;
        let (config, _) = artifact::config_of(&manifest).ok()?;
        let artifact = artifact::parse(&manifest, &self.read(config).ok()??).ok()?;
        artifact.layers.iter().all(|layer| self.has(layer.digest)).then_some(artifact)
    }

    /// Remembers the artifact for `key`.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn record(&self, key: &Key, artifact: Digest) -> Result<(), StoreError> {
        self.put_json("keys", &key.to_string(), &artifact)
    }

    /// The layers above its builder image of the snapshot for `key`, if all of them are still there, and when it was made, in
    /// seconds since 1970.
    #[must_use]
    pub fn snapshot(&self, key: &Key) -> Option<(Artifact, i64)> {
        let (artifact, made): (Digest, i64) = self.json("snapshots", &key.to_string())?;
        Some((self.artifact(artifact)?, made))
    }

    /// Remembers a snapshot, in place of an older one.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put_snapshot(&self, key: &Key, artifact: Digest, made: i64) -> Result<(), StoreError> {
        self.put_json("snapshots", &key.to_string(), &(artifact, made))
    }

    /// The layer of the cache that was saved under `key`, if it is still there.
    #[must_use]
    pub fn saved_cache(&self, key: &Key) -> Option<Layer> {
        self.artifact(self.json("saved", &key.to_string())?)?.layers.into_iter().next()
    }

    /// Remembers the artifact that holds a cache.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn save_cache(&self, key: &Key, artifact: Digest) -> Result<(), StoreError> {
        self.put_json("saved", &key.to_string(), &artifact)
    }

    /// What the stage `name` was last made from.
    #[must_use]
    pub fn inputs(&self, name: &str) -> Option<StageInputs> {
        self.json("inputs", &Digest::of(name.as_bytes()).hex())
    }

    /// Remembers what the stage `name` was made from.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put_inputs(&self, name: &str, inputs: &StageInputs) -> Result<(), StoreError> {
        self.put_json("inputs", &Digest::of(name.as_bytes()).hex(), inputs)
    }

    /// What `reference` led to when it was last looked up.
    #[must_use]
    pub fn resolved(&self, reference: &Reference, platform: &Platform) -> Option<Resolved> {
        let found: Resolved = self.json("resolved", &resolved_name(reference, platform))?;
        (self.has(found.manifest) && self.has(found.config)).then_some(found)
    }

    /// Remembers what `reference` led to.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put_resolved(
        &self,
        reference: &Reference,
        platform: &Platform,
        resolved: &Resolved,
    ) -> Result<(), StoreError> {
        self.put_json("resolved", &resolved_name(reference, platform), resolved)
    }

    /// What a base of packages was resolved to, and when, in seconds since 1970.
    #[must_use]
    pub fn packages(&self, name: &str) -> Option<(i64, PackageSet)> {
        self.json("packages", name)
    }

    /// Remembers what a base of packages was resolved to.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put_packages(&self, name: &str, packages: &(i64, PackageSet)) -> Result<(), StoreError> {
        self.put_json("packages", name, packages)
    }

    /// The blob that tells of a layer's files, if it was looked at.
    #[must_use]
    pub fn layer_index(&self, layer: Digest) -> Option<LayerIndexBlob> {
        self.json("layers", &layer.hex())
    }

    /// Remembers the blob that tells of a layer's files.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put_layer_index(&self, layer: Digest, index: LayerIndexBlob) -> Result<(), StoreError> {
        self.put_json("layers", &layer.hex(), &index)
    }

    /// Where index files of package archives are kept.
    #[must_use]
    pub fn indexes(&self) -> PathBuf {
        self.root.join("indexes")
    }

    /// Waits until nobody else holds `name`, and holds it. Blocks.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        let path = self.root.join("locks").join(name);
        let file = open_lock(&path)?;
        file.lock().map_err(|source| StoreError::file(&path, source))?;
        Ok(Lock(file))
    }

    /// Keeps others from pruning. Blocks while somebody prunes.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn in_use(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("locks/use");
        let file = open_lock(&path)?;
        file.lock_shared().map_err(|source| StoreError::file(&path, source))?;
        Ok(Lock(file))
    }

    fn partial(&self) -> Result<NamedTempFile, StoreError> {
        let path = self.root.join("partial");
        NamedTempFile::new_in(&path).map_err(|source| StoreError::file(&path, source))
    }

    /// A small value; whatever cannot be read is not there.
    fn json<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.root.join(kind).join(name)).ok()?).ok()
    }

    fn put_json<T: Serialize>(&self, kind: &str, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.root.join(kind).join(name);
        let failed = |source| StoreError::file(&path, source);
        let mut file = self.partial()?;
        serde_json::to_writer(&mut file, value).map_err(|error| failed(error.into()))?;
        file.persist(&path).map(|_| ()).map_err(|error| failed(error.error))
    }
}

impl BlobWriter {
    /// Takes more bytes.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| StoreError::file(self.file.path(), source))
    }

    /// Puts the blob in its place; gives its digest.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn finish(self) -> Result<Digest, StoreError> {
        let digest = self.hasher.finish();
        let path = self.store.blob(digest);
        self.file.persist(&path).map_err(|error| StoreError::file(&path, error.error))?;
        Ok(digest)
    }
}

impl StoreError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

fn resolved_name(reference: &Reference, platform: &Platform) -> String {
    Digest::of(format!("{reference} {platform}").as_bytes()).hex()
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.map_err(|source| StoreError::file(path, source))
}

#[cfg(test)]
mod tests;
