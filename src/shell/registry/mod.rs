//! The registry client: manifests, blobs and uploads by the OCI distribution-spec. Holds no more of a layer than one chunk.
//!
//! - `transport`: one request with authorization, redirects and retries.
//! - `token`, `challenge`: who may do what, in the registry's and its token server's words.
//! - `read`, `blob`, `resolve`: what a registry has; mirrors are asked first.
//! - `delete`: which tags there are, and less of them.
//! - `push`, `upload`: what it gets; mounted or left alone where that is possible.

mod blob;
mod challenge;
mod delete;
mod error;
mod push;
mod read;
mod resolve;
mod retry;
mod spool;
mod token;
mod transport;
mod unpacked;
mod upload;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

pub use blob::Blob;
pub use error::RegistryError;
pub use push::{Pushed, Transfer};
pub use resolve::FoundImage;
pub use retry::RetryPolicy;
pub use upload::Upload;

use crate::{
    domain::{
        credentials::Keychain,
        task::Network,
        value::{Descriptor, Digest, Repository},
    },
    shell::net::{Http, NetError},
};

/// No manifest may be larger (OCI distribution-spec, "Pushing Manifests").
pub const MANIFEST_LIMIT: usize = 4 << 20;

/// All registries by the operator's settings: connections, tokens and known ways of authorization are shared by everyone
/// who asks with the same credential. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    tokens: token::Tokens,
    retry: RetryPolicy,
    spool: PathBuf,
}

/// The registries as seen with one keychain. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    keychain: Arc<Keychain>,
}

/// A manifest as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it says of itself, else what the registry says of it.
    pub media_type: String,
    /// Computed from the bytes.
    pub digest: Digest,
    /// At most 4 MiB.
    pub bytes: Bytes,
}

impl Manifest {
    /// The descriptor under which an index would list it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest, size: self.bytes.len() as u64 }
    }
}

impl Registry {
    /// Registries by these settings.
    ///
    /// # Errors
    /// When a CA certificate or an address range in the settings cannot be read.
    pub fn new(network: &Network) -> Result<Self, NetError> {
        Ok(Self::over(Http::new(network)?))
    }

    /// Registries over an http client that other parts use too.
    #[must_use]
    pub fn over(http: Http) -> Self {
        let shared = Shared {
            http,
            tokens: token::Tokens::default(),
            retry: RetryPolicy::default(),
            spool: std::env::temp_dir(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same settings with nothing cached, other delays, and another directory for what a registry without chunked
    /// uploads forces onto the disk.
    #[must_use]
    pub fn tuned(&self, retry: RetryPolicy, spool: PathBuf) -> Self {
        let shared = Shared { http: self.shared.http.clone(), tokens: token::Tokens::default(), retry, spool };
        Self { shared: Arc::new(shared) }
    }

    /// The registries as seen with `keychain`.
    #[must_use]
    pub fn with(&self, keychain: impl Into<Arc<Keychain>>) -> Client {
        Client { shared: Arc::clone(&self.shared), keychain: keychain.into() }
    }
}

impl Client {
    /// Whose rights apply to `repository`: equal for equal credentials, none when anonymous. For keys of caches.
    #[must_use]
    pub fn identity(&self, repository: &Repository) -> Option<Digest> {
        self.keychain.find(repository).map(crate::domain::credentials::Credential::identity)
    }
}
