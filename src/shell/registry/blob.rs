//! A blob as it comes: piece by piece, continued after a broken connection, checked against its digest before its last
//! piece is given out.

use bytes::Bytes;
use futures::Stream;
use reqwest::{Method, Response, StatusCode, header};

use super::{Client, error::RegistryError, retry::Attempts, token::Scope, transport::Call};
use crate::{
    domain::value::{Digest, DigestHasher, Repository},
    shell::net,
};

/// After this much progress a connection may break as often again.
const PROGRESS: u64 = 8 << 20;

/// A blob being read. Whoever gets its end without an error has got exactly the bytes of its digest.
pub struct Blob {
    client: Client,
    repository: Repository,
    what: String,
    digest: Digest,
    /// The exact size where it is known, else the most that is taken.
    size: Option<u64>,
    limit: u64,
    hasher: DigestHasher,
    /// The answer being read, and how many of its bytes are known already.
    response: Option<(Response, u64)>,
    attempts: Attempts,
    broken_at: u64,
    is_done: bool,
}

impl Client {
    /// The blob `digest` of `repository`, of exactly `size` bytes, from a mirror where one has it.
    ///
    /// # Errors
    /// When it does not exist or is not accessible, or the registry says that it has another size.
    pub async fn blob(&self, repository: &Repository, digest: Digest, size: u64) -> Result<Blob, RegistryError> {
        self.open(repository, digest, Some(size), size).await
    }

    /// The same when only a limit is known.
    pub(super) async fn blob_at_most(
        &self,
        repository: &Repository,
        digest: Digest,
        limit: u64,
    ) -> Result<Blob, RegistryError> {
        self.open(repository, digest, None, limit).await
    }

    async fn open(
        &self,
        repository: &Repository,
        digest: Digest,
        size: Option<u64>,
        limit: u64,
    ) -> Result<Blob, RegistryError> {
        let mut blob = Blob {
            client: self.clone(),
            repository: repository.clone(),
            what: repository.pinned(digest).to_string(),
            digest,
            size,
            limit,
            hasher: DigestHasher::default(),
            response: None,
            attempts: self.shared.retry.start(),
            broken_at: 0,
            is_done: false,
        };
        blob.response = Some(blob.request().await?);
        Ok(blob)
    }
}

impl Blob {
    /// The next piece; none after the last, when digest and size were right.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, or the connection breaks too often.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while !self.is_done {
            let (mut response, known) = match self.response.take() {
                Some(answer) => answer,
                None => self.request().await?,
            };
            match net::next_piece(&mut response).await {
                Ok(Some(piece)) if piece.len() as u64 <= known => {
                    self.response = Some((response, known - piece.len() as u64));
                }
                Ok(Some(mut piece)) => {
                    drop(piece.split_to(usize::try_from(known).unwrap_or_default()));
                    self.take(&piece)?;
                    self.response = Some((response, 0));
                    return Ok(Some(piece));
                }
                Ok(None) => self.end()?,
                Err(error) => self.pause(RegistryError::net(&self.what, error)).await?,
            }
        }
        Ok(None)
    }

    /// The pieces as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, RegistryError>> + Send {
        futures::stream::try_unfold(self, |mut blob| async move { Ok(blob.next().await?.map(|piece| (piece, blob))) })
    }

    /// Counts and hashes a piece; with the last byte of a known size the digest is checked before anyone sees it.
    fn take(&mut self, piece: &Bytes) -> Result<(), RegistryError> {
        self.hasher.update(piece);
        if self.hasher.count() > self.limit {
            return Err(self.invalid(&format!("it has more than the expected {} bytes", self.limit)));
        }
        if Some(self.hasher.count()) == self.size {
            self.check_digest()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), RegistryError> {
        if let Some(size) = self.size.filter(|size| *size != self.hasher.count()) {
            return Err(self.invalid(&format!("it has {} bytes instead of {size}", self.hasher.count())));
        }
        self.check_digest()?;
        self.is_done = true;
        Ok(())
    }

    fn check_digest(&self) -> Result<(), RegistryError> {
        let found = self.hasher.clone().finish();
        if found == self.digest { Ok(()) } else { Err(self.invalid(&format!("its bytes have the digest {found}"))) }
    }

    async fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.hasher.count() >= self.broken_at + PROGRESS {
            self.attempts = self.client.shared.retry.start();
        }
        self.broken_at = self.hasher.count();
        let may_continue = error.is_retryable() && self.attempts.pause(error.retry_after()).await;
        if may_continue { Ok(()) } else { Err(error) }
    }

    /// Asks mirrors and registry for what is still missing.
    async fn request(&self) -> Result<(Response, u64), RegistryError> {
        let from = self.hasher.count();
        let mut last = None;
        for endpoint in self.client.endpoints(&self.repository)? {
            let access = self.client.access(&endpoint, Scope::pull(&endpoint.repository), &self.what);
            let mut call = Call::new(Method::GET, endpoint.url(&format!("blobs/{}", self.digest), &self.what)?);
            if from > 0 {
                call = call.header(header::RANGE, &format!("bytes={from}-"));
            }
            let answer = match self.client.send(&endpoint, &access, &call).await {
                Ok(response) if response.status().is_success() => self.positioned(response, from),
                Ok(response) => Err(RegistryError::response(&self.what, response).await),
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.invalid("no registry was asked")))
    }

    /// The answer, and how many of its first bytes are known already: all before `from` when the server knows no ranges.
    fn positioned(&self, response: Response, from: u64) -> Result<(Response, u64), RegistryError> {
        let begins = if response.status() == StatusCode::PARTIAL_CONTENT {
            content_range_start(&response).filter(|begins| *begins == from)
        } else {
            Some(0)
        };
        let begins = begins.ok_or_else(|| self.invalid("the registry gave another part than asked for"))?;
        if let (Some(size), Some(length)) = (self.size, response.content_length())
            && begins + length != size
        {
            return Err(self.invalid(&format!("the registry has {} bytes of it instead of {size}", begins + length)));
        }
        Ok((response, from - begins))
    }

    fn invalid(&self, problem: &str) -> RegistryError {
        RegistryError::invalid(&self.what, problem)
    }
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn content_range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}
