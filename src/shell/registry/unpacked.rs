//! How large an image is unpacked, without unpacking it: gzip ends with the length of what it holds.

use reqwest::{Method, StatusCode, header};

use super::{Client, FoundImage, RegistryError, token::Scope, transport::Call};
use crate::{
    domain::value::{Descriptor, Repository},
    shell::net,
};

/// A gzip member ends with ISIZE, the length of its input modulo 2^32 in four bytes, lowest first (RFC 1952, 2.3.1).
const ISIZE_BYTES: u64 = 4;

impl Client {
    /// Uncompressed bytes of the layers of `image`, by their own account. A layer that does not tell (another compression,
    /// no ranges, over 4 GiB, several members) counts as large as it is compressed: the sum is then too small, never zero.
    ///
    /// # Errors
    /// When the registry is not accessible.
    pub async fn unpacked_size(&self, repository: &Repository, image: &FoundImage) -> Result<u64, RegistryError> {
        let sizes = image.layers.iter().map(|layer| self.layer_size(repository, layer));
        Ok(futures::future::try_join_all(sizes).await?.into_iter().sum())
    }

    async fn layer_size(&self, repository: &Repository, layer: &Descriptor) -> Result<u64, RegistryError> {
        if !layer.media_type.ends_with("gzip") || layer.size < ISIZE_BYTES {
            return Ok(layer.size);
        }
        let what = repository.pinned(layer.digest).to_string();
        let range = format!("bytes={}-{}", layer.size - ISIZE_BYTES, layer.size - 1);
        for endpoint in self.endpoints(repository)? {
            let access = self.access(&endpoint, Scope::pull(&endpoint.repository), &what);
            let url = endpoint.url(&format!("blobs/{}", layer.digest), &what)?;
            let call = Call::new(Method::GET, url).header(header::RANGE, &range);
            let mut response = match self.send(&endpoint, &access, &call).await {
                Ok(response) => response,
                Err(_) if endpoint.is_mirror() => continue,
                Err(error) => return Err(error),
            };
            // A server without ranges would send all of it.
            if response.status() != StatusCode::PARTIAL_CONTENT {
                continue;
            }
            let bytes = net::read_at_most(&mut response, 4).await.map_err(|error| RegistryError::net(&what, error))?;
            let length = bytes.and_then(|bytes| Some(u32::from_le_bytes(bytes.as_ref().try_into().ok()?)));
            return Ok(length.map_or(layer.size, u64::from).max(layer.size));
        }
        Ok(layer.size)
    }
}
