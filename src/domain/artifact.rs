//! Artifacts in the cache repository: their manifest, and the signed record that ties a key to one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    media_type,
    value::{self, Digest},
};

/// Media type of an artifact manifest's `artifactType`.
pub const ARTIFACT_TYPE: &str = "application/vnd.minimalimage.artifact.v1";
/// Media type of an artifact manifest's config blob, an [`ArtifactConfig`].
pub const ARTIFACT_CONFIG_TYPE: &str = "application/vnd.minimalimage.artifact.config.v1+json";
/// Media type of what tells of a layer's files, a [`LayerIndex`](super::preflight::LayerIndex).
pub const LAYER_INDEX_TYPE: &str = "application/vnd.minimalimage.layer-index.v1+gzip";
/// Media type of a record's `artifactType`.
pub const RECORD_TYPE: &str = "application/vnd.minimalimage.record.v1";
/// Bounds on what is read back: registries hold manifests of 4 MiB at most (OCI distribution-spec, "Pushing Manifests").
const MAX_MANIFEST: usize = 4 << 20;
const MAX_LAYERS: usize = 1000;
const DIFF_ID: &str = "dev.minimalimage.diff-id";
const SIZE: &str = "dev.minimalimage.size";

/// One layer: where its bytes are and what they unpack to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Media type of the compressed blob.
    pub media_type: String,
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Bytes of the compressed blob.
    pub compressed_size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar's file contents.
    pub size: u64,
    /// The blob that tells of its files; none where nobody has looked at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<LayerIndexBlob>,
}

/// The blob that tells of a layer's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerIndexBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Layer {
    /// What a manifest says of it.
    #[must_use]
    pub fn descriptor(&self) -> value::Descriptor {
        value::Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.compressed_size }
    }

    /// What an artifact's manifest says of it and of its index.
    pub fn descriptors(&self) -> impl Iterator<Item = value::Descriptor> {
        let index = self.index.map(|LayerIndexBlob { digest, size }| value::Descriptor {
            media_type: LAYER_INDEX_TYPE.into(),
            digest,
            size,
        });
        std::iter::once(self.descriptor()).chain(index)
    }
}

/// The config blob of an artifact: facts about its layers that follow from their content, in the layers' order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactConfig {
    /// One entry per output of the recipe.
    pub outputs: Vec<OutputReport>,
}

/// What one output's layer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputReport {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of all file contents.
    pub size: u64,
    /// Regular files, hard links counted each.
    pub file_count: u64,
    /// The five largest files, largest first, ties by path.
    pub largest_files: Vec<FileSize>,
}

/// A file and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSize {
    /// Absolute path in the image.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// An artifact as read back from the cache repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Digest of the artifact manifest.
    pub digest: Digest,
    /// One layer per output of the recipe.
    pub layers: Vec<Layer>,
    /// One report per layer.
    pub outputs: Vec<OutputReport>,
}

/// Why bytes from a registry are not an artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Larger than any artifact of ours.
    #[error("unable to read an artifact with {0}")]
    TooLarge(&'static str),
    /// Not the JSON that is expected.
    #[error("unable to read the {part} of an artifact")]
    Json {
        /// Manifest or config.
        part: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// JSON of another kind of thing, or parts that do not belong together.
    #[error("unable to read an artifact: {0}")]
    Mismatch(&'static str),
}

/// An OCI image manifest as artifacts use it (OCI image-spec, manifest.md "Guidelines for Artifact Usage").
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl ArtifactConfig {
    /// The config blob.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and lists: cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Config blob and manifest of an artifact of layers of which no more is known than what they say of themselves.
#[must_use]
pub fn of_layers(layers: &[Layer]) -> (Vec<u8>, Vec<u8>) {
    let report = |layer: &Layer| OutputReport {
        diff_id: layer.diff_id,
        size: layer.size,
        file_count: 0,
        largest_files: Vec::new(),
    };
    let config = ArtifactConfig { outputs: layers.iter().map(report).collect() }.to_bytes();
    let manifest = manifest(&config, layers);
    (config, manifest)
}

/// The manifest of an artifact with this config blob and these layers: equal content gives equal bytes.
#[must_use]
pub fn manifest(config: &[u8], layers: &[Layer]) -> Vec<u8> {
    // An index has the annotation of the layer that it is about.
    let describe = |layer: &Layer, of: value::Descriptor| Descriptor {
        annotations: [(DIFF_ID, layer.diff_id.to_string()), (SIZE, layer.size.to_string())]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        media_type: of.media_type,
        digest: of.digest,
        size: of.size,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.into(),
        artifact_type: ARTIFACT_TYPE.into(),
        config: Descriptor {
            media_type: ARTIFACT_CONFIG_TYPE.into(),
            digest: Digest::of(config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: layers.iter().flat_map(|layer| layer.descriptors().map(|of| describe(layer, of))).collect(),
    };
    serde_json::to_vec(&manifest).unwrap_or_default()
}

/// Digest and size of the config blob that a manifest names, so that it can be fetched.
pub fn config_of(manifest: &[u8]) -> Result<(Digest, u64), ArtifactError> {
    parse_manifest(manifest).map(|manifest| (manifest.config.digest, manifest.config.size))
}

/// The artifact that a manifest and its config blob describe. Both come from outside and are checked against each other.
pub fn parse(manifest: &[u8], config: &[u8]) -> Result<Artifact, ArtifactError> {
    let digest = Digest::of(manifest);
    let manifest = parse_manifest(manifest)?;
    if manifest.config.digest != Digest::of(config) {
        return Err(ArtifactError::Mismatch("its config has another digest"));
    }
    let config: ArtifactConfig =
        serde_json::from_slice(config).map_err(|source| ArtifactError::Json { part: "config", source })?;
    let layers = layers(manifest.layers)?;
    let belongs =
        |(layer, report): (&Layer, &OutputReport)| (layer.diff_id, layer.size) == (report.diff_id, report.size);
    if layers.len() != config.outputs.len() || !layers.iter().zip(&config.outputs).all(belongs) {
        return Err(ArtifactError::Mismatch("its config is about other layers"));
    }
    Ok(Artifact { digest, layers, outputs: config.outputs })
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ArtifactError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(ArtifactError::TooLarge("a manifest of over 4 MiB"));
    }
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|source| ArtifactError::Json { part: "manifest", source })?;
    if manifest.artifact_type != ARTIFACT_TYPE || manifest.config.media_type != ARTIFACT_CONFIG_TYPE {
        return Err(ArtifactError::Mismatch("its manifest is of another type"));
    }
    if manifest.layers.len() > MAX_LAYERS || manifest.config.size > MAX_MANIFEST as u64 {
        return Err(ArtifactError::TooLarge("over 1000 layers or a config of over 4 MiB"));
    }
    Ok(manifest)
}

/// The layers, each with the index that follows it.
fn layers(descriptors: Vec<Descriptor>) -> Result<Vec<Layer>, ArtifactError> {
    let mut layers: Vec<Layer> = Vec::new();
    for descriptor in descriptors {
        let is_index = descriptor.media_type == LAYER_INDEX_TYPE;
        let found = layer(descriptor)?;
        match layers.last_mut() {
            Some(last) if is_index && last.diff_id == found.diff_id => {
                last.index = Some(LayerIndexBlob { digest: found.digest, size: found.compressed_size });
            }
            _ if is_index => return Err(ArtifactError::Mismatch("an index is about another layer")),
            _ => layers.push(found),
        }
    }
    Ok(layers)
}

fn layer(descriptor: Descriptor) -> Result<Layer, ArtifactError> {
    fn annotation<T: std::str::FromStr>(descriptor: &Descriptor, key: &str) -> Result<T, ArtifactError> {
        let value = descriptor.annotations.get(key).and_then(|value| value.parse().ok());
        value.ok_or(ArtifactError::Mismatch("a layer lacks an annotation of ours"))
    }
    let diff_id = annotation(&descriptor, DIFF_ID)?;
    let size = annotation(&descriptor, SIZE)?;
    let Descriptor { media_type, digest, size: compressed_size, .. } = descriptor;
    Ok(Layer { media_type, digest, compressed_size, diff_id, size, index: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<u8>, Artifact) {
        let diff_id = Digest::of(b"tar");
        let media_type = media_type::LAYER.into();
        let index = Some(LayerIndexBlob { digest: Digest::of(b"index"), size: 5 });
        let layers = vec![Layer { media_type, digest: Digest::of(b"gz"), compressed_size: 2, diff_id, size: 3, index }];
        let largest_files = vec![FileSize { path: "/a".into(), size: 3 }];
        let outputs = vec![OutputReport { diff_id, size: 3, file_count: 1, largest_files }];
        let config = ArtifactConfig { outputs: outputs.clone() }.to_bytes();
        let manifest = manifest(&config, &layers);
        let digest = Digest::of(&manifest);
        (manifest, config, Artifact { digest, layers, outputs })
    }

    #[test]
    fn artifacts_survive_a_round_trip() {
        let (manifest, config, artifact) = sample();
        assert_eq!(parse(&manifest, &config).unwrap(), artifact);
        assert_eq!(config_of(&manifest).unwrap(), (Digest::of(&config), config.len() as u64));
        assert_eq!(manifest, sample().0, "the same twice");
    }

    #[test]
    fn foreign_and_inconsistent_artifacts_are_refused() {
        let (manifest, config, _) = sample();
        let replaced =
            |from: &str, to: &str| String::from_utf8(manifest.clone()).unwrap().replace(from, to).into_bytes();
        assert!(matches!(parse(&manifest, b"{}"), Err(ArtifactError::Mismatch(_))));
        assert!(matches!(parse(&replaced("artifact.v1", "other.v1"), &config), Err(ArtifactError::Mismatch(_))));
        assert!(matches!(parse(&replaced(DIFF_ID, "else"), &config), Err(ArtifactError::Mismatch(_))));
        let moved = String::from_utf8(manifest.clone()).unwrap();
        let (before, layers) = moved.split_once("\"layers\":[").unwrap();
        let (layer, index) = layers.split_once("},{").unwrap();
        let moved = format!("{before}\"layers\":[{{{},{layer}}}]}}", index.trim_end_matches("]}"));
        assert!(matches!(
            parse(moved.as_bytes(), &config),
            Err(ArtifactError::Mismatch("an index is about another layer"))
        ));
        assert!(matches!(parse(&replaced("size\":\"3", "size\":\"4"), &config), Err(ArtifactError::Mismatch(_))));
        assert!(matches!(parse(&vec![b' '; MAX_MANIFEST + 1], &config), Err(ArtifactError::TooLarge(_))));
        assert!(matches!(parse(b"", &config), Err(ArtifactError::Json { .. })));
    }
}
