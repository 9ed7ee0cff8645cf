//! How much the store holds, and what of it can go.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Lock, Store, StoreError, open_lock};
use crate::domain::value::Digest;

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

#[derive(Deserialize)]
struct Manifest {
    config: Entry,
    layers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
}

impl Store {
    /// What is there by kind.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        let kept = self.image_blobs();
        let kinds = [
            ("images and artifacts", "blobs"),
            ("builder layers", "chains"),
            ("caches", "caches"),
            ("unfinished", "partial"),
            ("leftovers", "runs"),
        ];
        let count = |(kind, folder): (&'static str, &str)| {
            let mut usage = Usage { kind, count: 0, bytes: 0, prunable: 0 };
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let bytes = size(&entry.path());
                usage.count += 1;
                usage.bytes += bytes;
                if !kept.contains(&entry.path()) {
                    usage.prunable += bytes;
                }
            }
            usage
        };
        kinds.into_iter().map(count).collect()
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
        let folders = ["blobs", "chains", "caches", "partial", "runs", "keys", "snapshots", "inputs", "resolved"];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(self.root.join(folder)).into_iter().flatten());
        entries.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path)).collect()
    }

    /// The blobs that the images on the list are made of.
    fn image_blobs(&self) -> BTreeSet<PathBuf> {
        let mut kept = BTreeSet::new();
        for image in self.images() {
            kept.insert(self.blob(image.digest));
            let manifest = self.read(image.digest).ok().flatten();
            let Some(manifest) = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok()) else {
                continue;
            };
            kept.insert(self.blob(manifest.config.digest));
            kept.extend(manifest.layers.iter().map(|layer| self.blob(layer.digest)));
        }
        kept
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
