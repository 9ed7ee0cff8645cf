//! The list of images that were built here.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::domain::value::Digest;

/// An image that was built here; its manifest, config and own layers are blobs of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltImage {
    /// Repository with its registry.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// When it was last built, in seconds since 1970.
    pub created: i64,
    /// Bytes of the layers, unpacked.
    pub size: u64,
    /// Bytes of the layers as a registry holds them.
    pub compressed_size: u64,
    /// What it starts from.
    pub base: String,
}

impl Store {
    /// Puts an image on the list, in place of the one that had its name.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn add_image(&self, image: &BuiltImage) -> Result<(), StoreError> {
        self.put_json("images", &name(image), image)
    }

    /// Takes an image off the list; one that is not on it does no harm.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn remove_image(&self, image: &BuiltImage) -> Result<(), StoreError> {
        let path = self.root.join("images").join(name(image));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| StoreError::file(&path, source)),
        }
    }

    /// All images, in no order.
    #[must_use]
    pub fn images(&self) -> Vec<BuiltImage> {
        let entries = fs::read_dir(self.root.join("images")).into_iter().flatten().flatten();
        entries.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect()
    }
}

fn name(image: &BuiltImage) -> String {
    Digest::of(format!("{}:{}", image.repository, image.tag).as_bytes()).hex()
}
