//! What a registry holds under a digest.

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Media type, digest and size of a blob or manifest (OCI image-spec, descriptor.md). Written with exactly these three
/// keys, in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// What they hash to.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}
