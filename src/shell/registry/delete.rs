//! Which tags a repository has, and less of what it holds.

use reqwest::{Method, StatusCode, header};
use serde::Deserialize;

use super::{
    Client, MANIFEST_LIMIT,
    error::RegistryError,
    token::Scope,
    transport::{Call, drain},
};
use crate::{
    domain::value::{Digest, Repository},
    shell::net,
};

/// Tags of one answer.
const PAGE: usize = 1000;
/// More tags than any cache repository has.
const MOST_TAGS: usize = 200_000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Every tag of `repository`; none where there is no such repository.
    ///
    /// # Errors
    /// When it is not accessible, or has more than 200 000.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        let endpoint = self.endpoint(repository)?;
        let access = self.access(&endpoint, Scope::pull(repository), repository);
        let invalid = |problem: &str| RegistryError::invalid(&access.what, problem);
        let mut all: Vec<String> = Vec::new();
        loop {
            let mut url = endpoint.url("tags/list", &access.what)?;
            url.query_pairs_mut().append_pair("n", &PAGE.to_string());
            if let Some(last) = all.last() {
                url.query_pairs_mut().append_pair("last", last);
            }
            let mut response = self.send(&endpoint, &access, &Call::new(Method::GET, url)).await?;
            match response.status() {
                StatusCode::NOT_FOUND => return Ok(Vec::new()),
                status if status.is_success() => {}
                _ => return Err(RegistryError::response(&access.what, response).await),
            }
            // OCI distribution-spec, "Listing Tags": where there is more, a Link says so.
            let more = response.headers().contains_key(header::LINK);
            let bytes = net::read_at_most(&mut response, MANIFEST_LIMIT).await;
            let bytes = bytes.map_err(|error| RegistryError::net(&access.what, error))?;
            let bytes = bytes.ok_or_else(|| invalid("its list of tags is larger than 4 MiB"))?;
            let page: Tags = serde_json::from_slice(&bytes).map_err(|_| invalid("its list of tags is no such list"))?;
            let page = page.tags.unwrap_or_default();
            let known = all.last().cloned();
            if !more || page.is_empty() || page.last() == known.as_ref() {
                all.extend(page);
                return Ok(all);
            }
            all.extend(page);
            if all.len() > MOST_TAGS {
                return Err(invalid("it has more than 200000 tags"));
            }
        }
    }

    /// Deletes the manifest `digest` of `repository`, and with it the tags that point to it; one that is gone does no harm.
    ///
    /// # Errors
    /// When the registry does not delete, or not for these credentials.
    pub async fn delete_manifest(&self, repository: &Repository, digest: Digest) -> Result<(), RegistryError> {
        let endpoint = self.endpoint(repository)?;
        let access = self.access(&endpoint, Scope::delete(repository), &repository.pinned(digest));
        let call = Call::new(Method::DELETE, endpoint.url(&format!("manifests/{digest}"), &access.what)?);
        let response = self.send(&endpoint, &access, &call).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Err(RegistryError::invalid(
                &access.what,
                "the registry does not let anything be deleted: allow it there (Docker's registry: \
                 REGISTRY_STORAGE_DELETE_ENABLED=true), or use its own retention rules",
            )),
            StatusCode::NOT_FOUND => {
                drain(response).await;
                Ok(())
            }
            status if status.is_success() => Ok(()),
            _ => Err(RegistryError::response(&access.what, response).await),
        }
    }
}
