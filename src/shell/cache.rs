//! The cache repository: artifacts by digest, and signed records that find them by key.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    domain::{
        artifact::{self, Artifact},
        media_type,
        recipe::Key,
        record::{Signer, verified_artifact},
        snapshot::{Snapshot, blobs},
        value::{Digest, Repository},
    },
    shell::registry::{Client, RegistryError},
};

/// An artifact's config lists its largest files only; anything longer is not ours.
const CONFIG_LIMIT: u64 = 4 << 20;

/// A cache repository as seen with some credentials, believing one operator's key.
#[derive(Clone)]
pub struct Cache {
    client: Client,
    repository: Repository,
    public_key: String,
}

impl Cache {
    /// The cache in `repository`; records signed by other keys than `public_key` (base64) are not seen.
    #[must_use]
    pub fn new(client: Client, repository: Repository, public_key: String) -> Self {
        Self { client, repository, public_key }
    }

    /// The digest of the artifact that a valid record names for `key`, and that is really there.
    ///
    /// # Errors
    /// When the repository is not accessible.
    pub async fn find(&self, key: &Key) -> Result<Option<Digest>, RegistryError> {
        let Ok(reference) = self.repository.tagged(&key.tag()) else { return Ok(None) };
        let Some(record) = self.client.manifest(&reference).await? else { return Ok(None) };
        let Some(digest) = verified_artifact(&record.bytes, key, &self.repository, &self.public_key) else {
            return Ok(None);
        };
        let present = self.client.head_at_origin(&self.repository.pinned(digest)).await?;
        Ok(present.map(|_| digest))
    }

    /// The artifact that `find` leads to, if all its layers are there; they are not fetched.
    ///
    /// # Errors
    /// When the repository is not accessible.
    pub async fn lookup(&self, key: &Key) -> Result<Option<Artifact>, RegistryError> {
        let Some(digest) = self.find(key).await? else { return Ok(None) };
        match self.read(digest).await {
            Ok((artifact, _)) => {
                let layers = artifact.layers.iter().map(|layer| self.client.has_blob(&self.repository, layer.digest));
                let complete = futures::future::try_join_all(layers).await?.into_iter().all(|present| present);
                Ok(complete.then_some(artifact))
            }
            // A damaged artifact is no artifact: the stage runs again and replaces it.
            Err(RegistryError::NotFound { .. } | RegistryError::Invalid { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The snapshot that a valid record names for `key`, if all its layers are there.
    ///
    /// # Errors
    /// When the repository is not accessible.
    pub async fn snapshot(&self, key: &Key) -> Result<Option<Snapshot>, RegistryError> {
        let Some(digest) = self.find(key).await? else { return Ok(None) };
        let Some((snapshot, blobs)) = self.snapshot_image(digest).await? else { return Ok(None) };
        let blobs = blobs.into_iter().map(|blob| self.client.has_blob(&self.repository, blob));
        let complete = futures::future::try_join_all(blobs).await?.into_iter().all(|present| present);
        Ok(complete.then_some(snapshot))
    }

    /// The snapshot whose image has this digest, and the image's blobs, there or not.
    ///
    /// # Errors
    /// When the repository is not accessible.
    pub async fn snapshot_image(&self, digest: Digest) -> Result<Option<(Snapshot, Vec<Digest>)>, RegistryError> {
        let manifest = self.client.manifest(&self.repository.pinned(digest)).await?;
        Ok(manifest.and_then(|manifest| Some((Snapshot::parse(&manifest.bytes)?, blobs(&manifest.bytes)))))
    }

    /// The artifact with this manifest digest, and the manifest's size in bytes.
    ///
    /// # Errors
    /// When it is not there, not accessible, or not an artifact.
    pub async fn read(&self, digest: Digest) -> Result<(Artifact, u64), RegistryError> {
        let what = self.repository.pinned(digest);
        let missing = || RegistryError::NotFound { what: what.to_string(), said: String::new() };
        let invalid = |error: artifact::ArtifactError| RegistryError::Invalid {
            what: what.to_string(),
            problem: error.to_string(),
        };
        let manifest = self.client.manifest(&what).await?.ok_or_else(missing)?;
        let (config, _) = artifact::config_of(&manifest.bytes).map_err(invalid)?;
        let config = self.client.blob_bytes(&self.repository, config, CONFIG_LIMIT).await?;
        let artifact = artifact::parse(&manifest.bytes, &config).map_err(invalid)?;
        Ok((artifact, manifest.bytes.len() as u64))
    }

    /// Records `artifact`, an artifact or a snapshot whose manifest has `size` bytes, under `key`.
    ///
    /// # Errors
    /// When the repository does not take it.
    pub async fn record(&self, signer: &Signer, key: &Key, artifact: Digest, size: u64) -> Result<(), RegistryError> {
        let record = signer.record(key, &self.repository, (artifact, size), Timestamp::now());
        let Ok(reference) = self.repository.tagged(&key.tag()) else { return Ok(()) };
        self.client.push_manifest(&reference, media_type::INDEX, Bytes::from(record)).await.map(|_| ())
    }
}
