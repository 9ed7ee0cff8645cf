//! Fetches files of an archive. What they are is known before they come: nobody's credentials are sent, and nothing else is taken.

use std::io::Write;

use reqwest::header::HeaderMap;

use crate::{
    domain::{
        debian::release::IndexFile,
        source::{Purpose, SourceUrl},
        value::DigestHasher,
    },
    shell::{
        net::Http,
        source::{
            SourceError,
            http::{Answer, Session},
        },
    },
};

use super::BaseError;

/// The text at `what`, of at most `limit` bytes.
pub(super) async fn text(http: &Http, what: &str, limit: u64) -> Result<String, BaseError> {
    let mut answer = get(http, what).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|source| failed(what, source))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(mismatch(what, "it is too large"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| mismatch(what, "it is not text"))
}

/// Writes the file at `what` to `into`; what was written counts only if it is what is expected.
pub(super) async fn file(http: &Http, what: &str, expected: IndexFile, into: &mut impl Write) -> Result<(), BaseError> {
    let mut answer = get(http, what).await?;
    let mut hasher = DigestHasher::default();
    while let Some(chunk) = answer.chunk().await.map_err(|source| failed(what, source))? {
        hasher.update(&chunk);
        if hasher.count() > expected.size {
            return Err(mismatch(what, "it is too large"));
        }
        into.write_all(&chunk)?;
    }
    if hasher.count() < expected.size {
        return Err(mismatch(what, "it is truncated"));
    }
    if hasher.finish() != expected.digest {
        return Err(mismatch(what, "its digest is another one"));
    }
    Ok(())
}

async fn get(http: &Http, what: &str) -> Result<Answer, BaseError> {
    let url = SourceUrl::parse(what).map_err(|error| failed(what, error.into()))?;
    let session = Session { http, credential: None, purpose: Purpose::Download };
    session.get(&url, &HeaderMap::new()).await.map_err(|source| failed(what, source))
}

fn failed(what: &str, source: SourceError) -> BaseError {
    BaseError::Fetch { what: what.to_owned(), source }
}

fn mismatch(what: &str, problem: &'static str) -> BaseError {
    BaseError::Mismatch { what: what.to_owned(), problem }
}
