//! One request to a registry: where it goes, authorization, redirects, retries. Knows nothing of what is asked.

use bytes::Bytes;
use reqwest::{
    Method, Request, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};

use super::{
    Client,
    error::{RegistryError, is_transient},
    retry::RetryPolicy,
    token::{self, Access, Scope},
};
use crate::{domain::value::Repository, shell::net};

/// More redirects are a loop.
const MOST_REDIRECTS: usize = 5;

/// One repository on the server that is asked for it: the registry itself or a mirror.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// The repository as this server names it; also what the credential is looked up for.
    pub repository: Repository,
    /// `https://host/v2/path/`.
    base: Url,
    /// A mirror gets one attempt, and is told which registry it stands for.
    mirror_of: Option<String>,
}

/// A request that can be sent again.
#[derive(Clone)]
pub(super) struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Endpoint {
    /// The URL of `path` below the repository, `?` and query included.
    pub fn url(&self, path: &str, what: &str) -> Result<Url, RegistryError> {
        let url = self.base.join(path);
        let mut url = url.map_err(|_| RegistryError::invalid(what, "it gives no valid URL"))?;
        if let Some(registry) = &self.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    pub fn is_mirror(&self) -> bool {
        self.mirror_of.is_some()
    }
}

impl Call {
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        // What is put here are media types, digests and numbers; anything else would be refused by the registry anyway.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    fn request(&self, url: &Url, authorization: Option<&HeaderValue>) -> Request {
        let mut request = Request::new(self.method.clone(), url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) {
            let length = HeaderValue::from(self.body.len());
            request.headers_mut().insert(header::CONTENT_LENGTH, length);
            *request.body_mut() = Some(self.body.clone().into());
        }
        request
    }
}

impl Client {
    /// The registry itself, for writes.
    pub(super) fn endpoint(&self, repository: &Repository) -> Result<Endpoint, RegistryError> {
        let host = match repository.registry() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if self.shared.http.is_plain_http(repository.registry()) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", repository.path()).parse();
        let base = base.map_err(|_| RegistryError::invalid(&repository.to_string(), "its host gives no valid URL"))?;
        Ok(Endpoint { repository: repository.clone(), base, mirror_of: None })
    }

    /// The mirrors, then the registry itself, for reads.
    pub(super) fn endpoints(&self, repository: &Repository) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = Vec::new();
        for mirror in self.shared.http.mirrors(repository.registry()) {
            let mirrored = format!("{}/{}", mirror.trim_end_matches('/'), repository.path()).parse::<Repository>();
            let host = mirror.split('/').next().unwrap_or_default();
            // A mirror without dot and port would be taken for a path on Docker Hub.
            let mirrored = mirrored.ok().filter(|mirrored| mirrored.registry() == host).ok_or_else(|| {
                let problem = format!("the mirror {mirror} in the operator's settings is not host[:port][/path]");
                RegistryError::invalid(&repository.to_string(), problem)
            })?;
            let endpoint = self.endpoint(&mirrored)?;
            endpoints.push(Endpoint { mirror_of: Some(repository.registry().to_owned()), ..endpoint });
        }
        endpoints.push(self.endpoint(repository)?);
        Ok(endpoints)
    }

    pub(super) fn access(&self, endpoint: &Endpoint, scope: Scope, what: &dyn ToString) -> Access {
        Access {
            host: endpoint.repository.registry().to_owned(),
            credential: self.keychain.find(&endpoint.repository).cloned(),
            scope,
            what: what.to_string(),
        }
    }

    /// Sends until there is an answer that is not transient; mirrors are asked once.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        call: &Call,
    ) -> Result<Response, RegistryError> {
        let mut attempts = self.retry_for(endpoint).start();
        loop {
            let error = match self.send_once(endpoint, access, call).await {
                Ok(response) if !is_transient(response.status()) => return Ok(response),
                Ok(response) => RegistryError::response(&access.what, response).await,
                Err(error) => error,
            };
            if !error.is_retryable() || !attempts.pause(error.retry_after()).await {
                return Err(error);
            }
        }
    }

    /// Sends once, with authorization renewed once where the registry wants that, and follows redirects of reads.
    pub(super) async fn send_once(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        call: &Call,
    ) -> Result<Response, RegistryError> {
        let mut response = self.authorized(endpoint, access, call, &call.url).await?;
        let is_read = matches!(call.method, Method::GET | Method::HEAD);
        for _ in 0..MOST_REDIRECTS {
            let Some(next) = redirect_target(&response) else { return Ok(response) };
            if !is_read {
                return Err(RegistryError::invalid(&access.what, "the registry redirects a write"));
            }
            let is_downgrade = response.url().scheme() == "https" && next.scheme() != "https";
            if is_downgrade && !self.shared.http.is_plain_http(&net::host_of(&next)) {
                return Err(RegistryError::invalid(&access.what, "the registry redirects from https to http"));
            }
            drain(response).await;
            response = self.authorized(endpoint, access, call, &next).await?;
        }
        Err(RegistryError::invalid(&access.what, "the registry redirects more than five times"))
    }

    /// Credentials go to the registry's own origin only; an upload's location or a redirect may lie elsewhere.
    async fn authorized(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        call: &Call,
        url: &Url,
    ) -> Result<Response, RegistryError> {
        let net = |error| RegistryError::net(&access.what, error);
        let (http, tokens) = (&self.shared.http, &self.shared.tokens);
        if url.origin() != endpoint.base.origin() {
            return http.send(call.request(url, None)).await.map_err(net);
        }
        let retry = self.retry_for(endpoint);
        let header = tokens.header(http, access, retry).await?;
        let response = http.send(call.request(url, header.as_ref())).await.map_err(net)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        tokens.learn(http, access, &response, header.as_ref()).await?;
        drain(response).await;
        let header = tokens.header(http, access, retry).await?;
        let response = http.send(call.request(url, header.as_ref())).await.map_err(net)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(match RegistryError::response(&access.what, response).await {
                RegistryError::AccessDenied { what, said, .. } => {
                    RegistryError::AccessDenied { what, problem: token::wants(access), said }
                }
                other => other,
            });
        }
        Ok(response)
    }

    /// Sends a body that exists only once. Its answer 401 is an error after which a new attempt has a new token.
    pub(super) async fn send_stream(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        call: &Call,
        pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        length: u64,
    ) -> Result<Response, RegistryError> {
        let (http, tokens) = (&self.shared.http, &self.shared.tokens);
        let is_ours = call.url.origin() == endpoint.base.origin();
        let header = if is_ours { tokens.header(http, access, self.shared.retry).await? } else { None };
        let mut request = call.request(&call.url, header.as_ref());
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let response =
            http.send_stream(request, pieces).await.map_err(|error| RegistryError::net(&access.what, error))?;
        if is_ours && response.status() == StatusCode::UNAUTHORIZED {
            tokens.learn(http, access, &response, header.as_ref()).await?;
        }
        Ok(response)
    }

    fn retry_for(&self, endpoint: &Endpoint) -> RetryPolicy {
        if endpoint.is_mirror() { RetryPolicy::none() } else { self.shared.retry }
    }
}

/// Reads what is left of a small body that nobody wants: only then is the connection used again.
pub(super) async fn drain(mut response: Response) {
    if let Err(error) = net::read_at_most(&mut response, 64 << 10).await {
        tracing::trace!(error = %error, "an unwanted body broke off");
    }
}

fn redirect_target(response: &Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    location(response)
}

/// The `Location` of an answer, resolved against where it came from.
pub(super) fn location(response: &Response) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let mut next = response.url().join(location).ok()?;
    // Registries behind a proxy that ends TLS often name themselves with http.
    let is_same_host = next.host() == response.url().host();
    if is_same_host && response.url().scheme() == "https" && next.scheme() == "http" && next.port().is_none() {
        next.set_scheme("https").ok()?;
    }
    matches!(next.scheme(), "http" | "https").then_some(next)
}
