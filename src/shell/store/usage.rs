//! How much the store holds, and what of it can go.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{Lock, MADE_AGAIN, Store, StoreError, open_lock};
use crate::domain::{snapshot::blobs, value::Digest};

/// One kind of content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// For people.
    pub kind: &'static str,
    /// How many of them.
    pub count: u64,
    /// Bytes on the disk, files with several names counted once for each.
    pub bytes: u64,
    /// Of these, what pruning would free.
    pub prunable: u64,
}

impl Store {
    /// What is there by kind.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let (images, caches) = (self.image_blobs(), self.artifact_blobs::<Digest>("saved", |digest| digest));
        let snapshots = self.artifact_blobs::<(Digest, i64)>("snapshots", |(digest, _)| digest);
        let [mut of_images, mut of_snapshots, mut of_caches, mut others] =
            ["images", "snapshots", "saved caches", "artifacts"].map(Usage::new);
        for path in self.entries("blobs") {
            // What an image shares with others stays with it.
            if images.contains(&path) {
                of_images.add(&path, false);
            } else if snapshots.contains(&path) {
                of_snapshots.add(&path, true);
            } else if caches.contains(&path) {
                of_caches.add(&path, true);
            } else {
                others.add(&path, true);
            }
        }
        let folders = [
            ("builder layers", "chains"),
            ("package lists", "indexes"),
            ("caches", "caches"),
            ("unfinished", "partial"),
            ("leftovers", "runs"),
        ];
        let rest = folders.map(|(kind, folder)| {
            let mut usage = Usage::new(kind);
            self.entries(folder).for_each(|path| usage.add(&path, true));
            usage
        });
        [of_images, others, of_snapshots, of_caches].into_iter().chain(rest).collect()
    }

    fn entries(&self, folder: &str) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    }

    /// The blobs of the artifacts that the notes in `folder` name.
    fn artifact_blobs<T: DeserializeOwned>(&self, folder: &str, named: impl Fn(T) -> Digest) -> BTreeSet<PathBuf> {
        let notes = self.entries(folder).filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok());
        notes.flat_map(|note| self.blobs_of(named(note))).collect()
    }

    /// Keeps every build from starting.
    ///
    /// # Errors
    /// When a build is running.
    pub fn exclusive(&self) -> Result<Lock, StoreError> {
        let file = open_lock(&self.root.join("locks/use"))?;
        file.try_lock().map_err(|_| StoreError::Busy)?;
        Ok(Lock(file))
    }

    /// Everything that the next build can make or fetch again: all but the images that were built. The hold shows that no
    /// build is running.
    #[must_use]
    pub fn prunable(&self, _hold: &Lock) -> Vec<PathBuf> {
        let kept = self.image_blobs();
        let folders = MADE_AGAIN.into_iter().chain(["indexes"]);
        folders.flat_map(|folder| self.entries(folder)).filter(|path| !kept.contains(path)).collect()
    }

    /// The blobs that the images on the list are made of.
    fn image_blobs(&self) -> BTreeSet<PathBuf> {
        self.images().iter().flat_map(|image| self.blobs_of(image.digest)).collect()
    }

    /// The manifest `digest` and what it names.
    fn blobs_of(&self, digest: Digest) -> Vec<PathBuf> {
        let manifest = self.read(digest).ok().flatten();
        let named = manifest.map(|bytes| blobs(&bytes)).unwrap_or_default();
        std::iter::once(digest).chain(named).map(|digest| self.blob(digest)).collect()
    }
}

impl Usage {
    fn new(kind: &'static str) -> Self {
        Self { kind, count: 0, bytes: 0, prunable: 0 }
    }

    fn add(&mut self, path: &Path, prunable: bool) {
        let bytes = size(path);
        self.count += 1;
        self.bytes += bytes;
        self.prunable += if prunable { bytes } else { 0 };
    }
}

/// Bytes on the disk; what cannot be looked into counts nothing.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below = if metadata.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
    } else {
        0
    };
    metadata.blocks() * 512 + below
}
