//! Artifacts in the cache repository: their manifest, and the signed record that ties a key to one.

use serde::{Deserialize, Serialize};

use super::value::Digest;

/// Media type of an artifact manifest's `artifactType`.
pub const ARTIFACT_TYPE: &str = "application/vnd.minimalimage.artifact.v1";
/// Media type of an artifact manifest's config blob, an [`ArtifactConfig`].
pub const ARTIFACT_CONFIG_TYPE: &str = "application/vnd.minimalimage.artifact.config.v1+json";
/// Media type of a record's `artifactType`.
pub const RECORD_TYPE: &str = "application/vnd.minimalimage.record.v1";

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
