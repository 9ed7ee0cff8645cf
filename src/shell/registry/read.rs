//! What a registry has: manifests and small blobs. Not found is a value.

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;

use super::{
    Client, MANIFEST_LIMIT, Manifest,
    error::RegistryError,
    token::{Access, Scope},
    transport::{Call, Endpoint, drain},
};
use crate::{
    domain::{
        media_type,
        value::{Descriptor, Digest, Reference, Repository},
    },
    shell::net,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    #[serde(default)]
    schema_version: u32,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Client {
    /// The manifest or index behind `reference`, from a mirror where one has it; none when there is none.
    ///
    /// # Errors
    /// When it is not accessible, too large, malformed, or not what the reference is pinned to.
    pub async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>, RegistryError> {
        for endpoint in self.endpoints(reference.repository())? {
            let found = self.manifest_from(&endpoint, Scope::pull(&endpoint.repository), reference).await;
            match found {
                Ok(None) | Err(_) if endpoint.is_mirror() => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// Type, digest and size of what `reference` points to, without its bytes where the registry tells the digest.
    ///
    /// # Errors
    /// When it is not accessible, or what the registry says of it cannot be used.
    pub async fn head(&self, reference: &Reference) -> Result<Option<Descriptor>, RegistryError> {
        for endpoint in self.endpoints(reference.repository())? {
            let found = self.head_from(&endpoint, Scope::pull(&endpoint.repository), reference).await;
            match found {
                Ok(None) | Err(_) if endpoint.is_mirror() => {}
                found => return found,
            }
        }
        Ok(None)
    }

    /// The same, of the registry itself: what a mirror has is no reason not to push.
    ///
    /// # Errors
    /// As for [`Client::head`].
    pub async fn head_at_origin(&self, reference: &Reference) -> Result<Option<Descriptor>, RegistryError> {
        let endpoint = self.endpoint(reference.repository())?;
        self.head_from(&endpoint, Scope::pull(&endpoint.repository), reference).await
    }

    /// The blob `digest` of `repository`, which has at most `limit` bytes.
    ///
    /// # Errors
    /// When it does not exist, is not accessible, is larger, or has another digest.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        digest: Digest,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut blob = self.blob_at_most(repository, digest, limit).await?;
        let mut bytes = bytes::BytesMut::new();
        while let Some(piece) = blob.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Whether `repository` itself has the blob `digest`.
    ///
    /// # Errors
    /// When it is not accessible.
    pub async fn has_blob(&self, repository: &Repository, digest: Digest) -> Result<bool, RegistryError> {
        self.has_blob_as(repository, digest, Scope::pull(repository)).await
    }

    /// The same with the scope of the push that it belongs to, so that one token serves for all of it.
    pub(super) async fn has_blob_as(
        &self,
        repository: &Repository,
        digest: Digest,
        scope: Scope,
    ) -> Result<bool, RegistryError> {
        let endpoint = self.endpoint(repository)?;
        let access = self.access(&endpoint, scope, &repository.pinned(digest));
        let call = Call::new(Method::HEAD, endpoint.url(&format!("blobs/{digest}"), &access.what)?);
        let response = self.send(&endpoint, &access, &call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(RegistryError::response(&access.what, response).await),
        }
    }

    pub(super) async fn manifest_from(
        &self,
        endpoint: &Endpoint,
        scope: Scope,
        reference: &Reference,
    ) -> Result<Option<Manifest>, RegistryError> {
        let access = self.access(endpoint, scope, reference);
        let Some(response) = self.ask(endpoint, &access, Method::GET, reference).await? else { return Ok(None) };
        read_manifest(&access, reference, response).await.map(Some)
    }

    pub(super) async fn head_from(
        &self,
        endpoint: &Endpoint,
        scope: Scope,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let access = self.access(endpoint, scope.clone(), reference);
        let Some(response) = self.ask(endpoint, &access, Method::HEAD, reference).await? else { return Ok(None) };
        let text = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let digest = text("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let size = text("content-length").and_then(|size| size.parse::<u64>().ok());
        match (digest, text("content-type"), size) {
            (Some(digest), Some(media_type), Some(size)) if reference.digest().is_none_or(|pin| pin == digest) => {
                Ok(Some(Descriptor { media_type: bare(&media_type), digest, size }))
            }
            // The header is optional in the specification; then the bytes tell.
            _ => Ok(self.manifest_from(endpoint, scope, reference).await?.map(|manifest| manifest.descriptor())),
        }
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        method: Method,
        reference: &Reference,
    ) -> Result<Option<Response>, RegistryError> {
        let url = endpoint.url(&format!("manifests/{}", reference.manifest_name()), &access.what)?;
        let accept =
            [media_type::INDEX, media_type::MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST].join(", ");
        let call = Call::new(method, url).header(header::ACCEPT, &accept);
        let response = self.send(endpoint, access, &call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => {
                drain(response).await;
                Ok(None)
            }
            status if status.is_success() => Ok(Some(response)),
            _ => Err(RegistryError::response(&access.what, response).await),
        }
    }
}

async fn read_manifest(
    access: &Access,
    reference: &Reference,
    mut response: Response,
) -> Result<Manifest, RegistryError> {
    let invalid = |problem: String| RegistryError::invalid(&access.what, problem);
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(bare);
    let bytes = net::read_at_most(&mut response, MANIFEST_LIMIT).await;
    let bytes = bytes.map_err(|error| RegistryError::net(&access.what, error))?;
    let bytes = bytes.ok_or_else(|| invalid("its manifest is larger than 4 MiB".into()))?;
    let digest = Digest::of(&bytes);
    if let Some(pin) = reference.digest().filter(|pin| *pin != digest) {
        return Err(invalid(format!("the registry gave {digest} for {pin}")));
    }
    let kind: Kind =
        serde_json::from_slice(&bytes).map_err(|_| invalid("its manifest is not JSON of that kind".into()))?;
    if kind.schema_version == 1 {
        return Err(invalid("it is in Docker's old format (schema 1), which no current registry writes".into()));
    }
    // What the document says of itself is covered by its digest, unlike the header.
    let said = kind.media_type.or(content_type.filter(|said| said.contains("manifest") || said.contains("index")));
    let fallback = if kind.manifests.is_some() { media_type::INDEX } else { media_type::MANIFEST };
    Ok(Manifest { media_type: said.unwrap_or_else(|| fallback.into()), digest, bytes })
}

/// A media type without parameters.
fn bare(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_owned()
}
