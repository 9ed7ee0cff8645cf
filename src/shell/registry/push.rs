//! What a registry gets: small blobs, blobs of other repositories, manifests. Nothing is written that is there already.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode, Url, header};

use super::{
    Client, MANIFEST_LIMIT,
    error::RegistryError,
    token::{Access, Scope},
    transport::{Call, Endpoint, location},
    upload::{complete_url, delete_session},
};
use crate::domain::value::{Descriptor, Digest, Reference, Repository};

/// What became of a blob that another repository has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// It was there already.
    Present,
    /// The registry took it over without moving bytes.
    Mounted,
    /// It was read there and written here.
    Copied {
        /// How many bytes.
        bytes: u64,
    },
}

/// What became of a blob or manifest that was to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// What it is known by.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Whether anything was written; not when the registry had it.
    pub written: bool,
}

/// Where a push goes and on whose behalf.
#[derive(Clone)]
pub(super) struct Destination {
    pub client: Client,
    pub repository: Repository,
    pub endpoint: Endpoint,
    pub access: Access,
}

impl Client {
    pub(super) fn destination(&self, repository: &Repository) -> Result<Destination, RegistryError> {
        let endpoint = self.endpoint(repository)?;
        let access = self.access(&endpoint, Scope::push(repository), repository);
        Ok(Destination { client: self.clone(), repository: repository.clone(), endpoint, access })
    }

    /// Puts a small blob into `repository` unless it is there.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn push_bytes(&self, repository: &Repository, bytes: Bytes) -> Result<Pushed, RegistryError> {
        let digest = Digest::of(&bytes);
        self.destination(repository)?.push_bytes(bytes, digest).await
    }

    /// Brings the blob `descriptor` of `from` (as `source` sees it) into `to`, the cheapest way that works. It is never
    /// held as a whole, and never unpacked.
    ///
    /// # Errors
    /// When the source does not give it, or the registry does not take it.
    pub async fn mount_or_copy(
        &self,
        source: &Client,
        from: &Repository,
        to: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Transfer, RegistryError> {
        let destination = self.destination(to)?;
        if self.has_blob_as(to, descriptor.digest, Scope::push(to)).await? {
            return Ok(Transfer::Present);
        }
        let mut session = None;
        if from.registry() == to.registry() && from != to {
            match destination.mount(from, descriptor.digest).await {
                Ok(Mount::Done) => return Ok(Transfer::Mounted),
                Ok(Mount::Session(opened)) => session = Some(opened),
                // A token for both repositories may be refused where one for the destination alone is not.
                Err(
                    RegistryError::AccessDenied { .. } | RegistryError::NotFound { .. } | RegistryError::Invalid { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        destination.copy(session, source, from, descriptor).await
    }

    /// Puts a manifest into `reference`'s repository, under its tag, or under its digest when it has that alone. When the
    /// registry has the same digest there already, nothing is written.
    ///
    /// # Errors
    /// When it is larger than 4 MiB, is not what `reference` is pinned to, or the registry does not take it.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Pushed, RegistryError> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        let what = reference.to_string();
        if bytes.len() > MANIFEST_LIMIT {
            return Err(RegistryError::invalid(&what, "its manifest is larger than 4 MiB"));
        }
        if reference.digest().is_some_and(|pin| pin != digest) {
            return Err(RegistryError::invalid(&what, format!("the manifest to be pushed has the digest {digest}")));
        }
        let Destination { endpoint, mut access, .. } = self.destination(reference.repository())?;
        access.what = what;
        // A reference with both is written under its tag; the digest above is the check.
        let named = match reference.tag() {
            Some(tag) => reference
                .repository()
                .tagged(tag)
                .map_err(|error| RegistryError::invalid(&access.what, error.to_string()))?,
            None => reference.clone(),
        };
        let present = self.head_from(&endpoint, access.scope.clone(), &named).await?;
        if present.is_some_and(|present| present.digest == digest) {
            return Ok(Pushed { digest, size, written: false });
        }
        let url = endpoint.url(&format!("manifests/{}", named.manifest_name()), &access.what)?;
        let call = Call::new(Method::PUT, url).header(header::CONTENT_TYPE, media_type).body(bytes);
        let response = self.send(&endpoint, &access, &call).await?;
        if !response.status().is_success() {
            return Err(RegistryError::response(&access.what, response).await);
        }
        let stored = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        if stored.is_some_and(|stored| stored.starts_with("sha256:") && stored != digest.to_string()) {
            return Err(RegistryError::invalid(&access.what, "the registry changed the manifest that it was given"));
        }
        Ok(Pushed { digest, size, written: true })
    }
}

enum Mount {
    Done,
    Session(Url),
}

impl Destination {
    pub fn what(&self) -> &str {
        &self.access.what
    }

    pub async fn send(&self, call: &Call) -> Result<reqwest::Response, RegistryError> {
        self.client.send(&self.endpoint, &self.access, call).await
    }

    pub async fn has(&self, digest: Digest) -> Result<bool, RegistryError> {
        self.client.has_blob_as(&self.repository, digest, Scope::push(&self.repository)).await
    }

    /// A new upload session, and the smallest chunk that the registry wants (`OCI-Chunk-Min-Length`).
    pub async fn open(&self) -> Result<(Url, usize), RegistryError> {
        let call = Call::new(Method::POST, self.endpoint.url("blobs/uploads/", self.what())?);
        let response = self.send(&call).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(RegistryError::response(self.what(), response).await);
        }
        let minimum =
            response.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let session = location(&response).ok_or_else(|| self.no_location())?;
        Ok((session, minimum.unwrap_or(0)))
    }

    pub fn no_location(&self) -> RegistryError {
        RegistryError::invalid(self.what(), "the registry opens an upload without a usable Location")
    }

    /// HEAD, then POST and one PUT: two requests that every registry knows.
    pub async fn push_bytes(&self, bytes: Bytes, digest: Digest) -> Result<Pushed, RegistryError> {
        let size = bytes.len() as u64;
        if self.has(digest).await? {
            return Ok(Pushed { digest, size, written: false });
        }
        let mut attempts = self.client.shared.retry.start();
        loop {
            let (session, _) = self.open().await?;
            let call = Call::new(Method::PUT, complete_url(&session, digest))
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(bytes.clone());
            let error = match self.client.send_once(&self.endpoint, &self.access, &call).await {
                Ok(response) if response.status().is_success() => return Ok(Pushed { digest, size, written: true }),
                Ok(response) => RegistryError::response(self.what(), response).await,
                Err(error) => error,
            };
            // The answer may have been lost after the registry stored the blob; a session may have been forgotten.
            let is_worth_it = error.is_retryable() || matches!(error, RegistryError::NotFound { .. });
            if !is_worth_it || !attempts.pause(error.retry_after()).await {
                return Err(error);
            }
            if self.has(digest).await? {
                return Ok(Pushed { digest, size, written: true });
            }
        }
    }

    async fn mount(&self, from: &Repository, digest: Digest) -> Result<Mount, RegistryError> {
        let mut url = self.endpoint.url("blobs/uploads/", self.what())?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.path());
        let scope = self.access.scope.clone().and(Scope::pull(from));
        let access = Access { scope, ..self.access.clone() };
        let response = self.client.send(&self.endpoint, &access, &Call::new(Method::POST, url)).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Mount::Done),
            StatusCode::ACCEPTED => location(&response).map(Mount::Session).ok_or_else(|| self.no_location()),
            _ => Err(RegistryError::response(self.what(), response).await),
        }
    }

    /// One PUT whose body is the source's answer as it comes.
    async fn copy(
        &self,
        mut session: Option<Url>,
        source: &Client,
        from: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Transfer, RegistryError> {
        let mut attempts = self.client.shared.retry.start();
        loop {
            let opened = match session.take() {
                Some(session) => session,
                None => self.open().await?.0,
            };
            let error = match self.copy_once(&opened, source, from, descriptor).await {
                Ok(()) => return Ok(Transfer::Copied { bytes: descriptor.size }),
                Err(error) => error,
            };
            delete_session(self.clone(), opened).await;
            if !error.is_retryable() || !attempts.pause(error.retry_after()).await {
                return Err(error);
            }
            if self.has(descriptor.digest).await? {
                return Ok(Transfer::Copied { bytes: descriptor.size });
            }
        }
    }

    async fn copy_once(
        &self,
        session: &Url,
        source: &Client,
        from: &Repository,
        descriptor: &Descriptor,
    ) -> Result<(), RegistryError> {
        let blob = source.blob(from, descriptor.digest, descriptor.size).await?;
        // What went wrong at the source reaches the transport as a broken body only; the reason is kept beside it.
        let failure = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&failure);
        let pieces = blob.into_stream().map(move |piece| {
            piece.map_err(|error| {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                std::io::Error::other("the source failed")
            })
        });
        let call = Call::new(Method::PUT, complete_url(session, descriptor.digest))
            .header(header::CONTENT_TYPE, "application/octet-stream");
        let answer = self.client.send_stream(&self.endpoint, &self.access, &call, pieces, descriptor.size).await;
        let source_failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answer {
            Ok(response) if response.status().is_success() => Ok(()),
            _ if source_failure.is_some() => Err(source_failure.unwrap_or_else(|| self.no_location())),
            Ok(response) => Err(self.stream_refused(response).await),
            Err(error) => Err(error),
        }
    }

    /// An answer to a body that is gone: an expired token or a forgotten session are worth a new attempt.
    pub async fn stream_refused(&self, response: reqwest::Response) -> RegistryError {
        match (response.status(), RegistryError::response(self.what(), response).await) {
            (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, error) => RegistryError::Unavailable {
                what: self.what().to_owned(),
                problem: error.to_string(),
                retry_after: None,
                source: None,
            },
            (_, error) => error,
        }
    }
}
