//! From a reference to the one image for a platform: through indexes, to manifest and config.

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{Client, MANIFEST_LIMIT, Manifest, RegistryError};
use crate::domain::{
    media_type,
    value::{Descriptor, Digest, Platform, Reference},
};

/// Indexes within indexes: build tools that attach documents make two levels.
const MOST_LEVELS: u32 = 3;
/// Nested indexes looked into for one image.
const MOST_INDEXES: usize = 16;

/// An image for one platform, with nothing of its layers fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// The digest of what the reference itself points to, an index or a manifest; what a tag is pinned to.
    pub reference_digest: Digest,
    /// The platform's own manifest.
    pub manifest: Manifest,
    /// The descriptor of the config within the manifest.
    pub config_descriptor: Descriptor,
    /// The config blob.
    pub config: Bytes,
    /// The layers in order, as the manifest lists them.
    pub layers: Vec<Descriptor>,
    /// The bytes of all layers as a registry holds them.
    pub compressed_size: u64,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

/// An entry of an index. Digests of other algorithms are of no use, but no fault of the other entries.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl RawPlatform {
    fn parsed(self) -> Platform {
        Platform { os: self.os, architecture: self.architecture, variant: self.variant.filter(|text| !text.is_empty()) }
    }
}

/// What the search has met so far.
#[derive(Default)]
struct Search {
    available: Vec<String>,
    indexes: usize,
}

impl Client {
    /// The image that `reference` names for `platform`; none when the registry has no such reference.
    ///
    /// # Errors
    /// When it is not accessible or malformed, or is no image for that platform.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<FoundImage>, RegistryError> {
        let Some(top) = self.manifest(reference).await? else { return Ok(None) };
        let reference_digest = top.digest;
        let mut search = Search::default();
        let Some(manifest) = self.find(reference, platform, top, 0, &mut search).await? else {
            search.available.sort();
            search.available.dedup();
            let available = search.available.join(", ");
            let problem = format!("there is no image for {platform} in it, only for: {available}");
            return Err(RegistryError::invalid(&reference.to_string(), problem));
        };
        self.read_image(reference, platform, reference_digest, manifest).await.map(Some)
    }

    /// The manifest for the platform within `found`, best variant first, depth first.
    fn find<'a>(
        &'a self,
        reference: &'a Reference,
        platform: &'a Platform,
        found: Manifest,
        level: u32,
        search: &'a mut Search,
    ) -> BoxFuture<'a, Result<Option<Manifest>, RegistryError>> {
        Box::pin(async move {
            let what = reference.to_string();
            match found.media_type.as_str() {
                media_type::MANIFEST | media_type::DOCKER_MANIFEST => return Ok(Some(found)),
                media_type::INDEX | media_type::DOCKER_INDEX => {}
                other => {
                    let other: String = other.chars().filter(char::is_ascii_graphic).take(100).collect();
                    return Err(RegistryError::invalid(&what, format!("it is no image but {other}")));
                }
            }
            search.indexes += 1;
            if level >= MOST_LEVELS || search.indexes > MOST_INDEXES {
                return Err(RegistryError::invalid(&what, "its indexes are nested more than three deep or too many"));
            }
            let index: Index = serde_json::from_slice(&found.bytes)
                .map_err(|_| RegistryError::invalid(&what, "its index is not JSON of that kind"))?;
            for digest in candidates(index, platform, search) {
                let inner = reference.repository().pinned(digest);
                let Some(manifest) = self.manifest(&inner).await? else {
                    return Err(RegistryError::invalid(&what, format!("its index lists {digest}, which is missing")));
                };
                let manifest = self.find(reference, platform, manifest, level + 1, search).await?;
                if manifest.is_some() {
                    return Ok(manifest);
                }
            }
            Ok(None)
        })
    }

    async fn read_image(
        &self,
        reference: &Reference,
        platform: &Platform,
        reference_digest: Digest,
        manifest: Manifest,
    ) -> Result<FoundImage, RegistryError> {
        let invalid = |problem: &str| RegistryError::invalid(&reference.to_string(), problem);
        let image: ImageManifest =
            serde_json::from_slice(&manifest.bytes).map_err(|_| invalid("its manifest is not that of an image"))?;
        let limit = MANIFEST_LIMIT as u64;
        if image.config.size > limit {
            return Err(invalid("its config is larger than 4 MiB"));
        }
        let config = self.blob_bytes(reference.repository(), image.config.digest, limit).await?;
        let raw: RawPlatform =
            serde_json::from_slice(&config).map_err(|_| invalid("its config is not that of an image"))?;
        let actual = raw.parsed();
        // Configs that name no architecture are those of artifacts; whoever uses them knows.
        if !actual.architecture.is_empty() && platform.rank(&actual).is_none() {
            return Err(invalid(&format!("it is an image for {}, not for {platform}", cut(&actual))));
        }
        let compressed_size = image.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        let ImageManifest { config: config_descriptor, layers } = image;
        Ok(FoundImage { reference_digest, manifest, config_descriptor, config, layers, compressed_size })
    }
}

/// The entries worth a look, best first: fitting platforms by rank, then those without a platform.
fn candidates(index: Index, platform: &Platform, search: &mut Search) -> Vec<Digest> {
    let mut ranked = Vec::new();
    for entry in index.manifests {
        let Ok(digest) = entry.digest.parse::<Digest>() else { continue };
        match entry.platform.map(RawPlatform::parsed) {
            Some(offered) => {
                ranked.extend(platform.rank(&offered).map(|rank| (rank, digest)));
                if offered.os != "unknown" && search.available.len() < 50 {
                    search.available.push(cut(&offered));
                }
            }
            None if matches!(
                entry.media_type.as_str(),
                media_type::INDEX | media_type::DOCKER_INDEX | media_type::MANIFEST | media_type::DOCKER_MANIFEST
            ) =>
            {
                ranked.push((u32::MAX, digest));
            }
            None => {}
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, digest)| digest).collect()
}

/// A foreign platform for a message.
fn cut(platform: &Platform) -> String {
    platform.to_string().chars().filter(char::is_ascii_graphic).take(60).collect()
}
