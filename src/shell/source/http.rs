//! HTTP for sources: redirects by hand, credentials only to their server, patience and sizes bounded. And archives from it.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    path::Path,
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use reqwest::{
    Method, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
};

use super::{FetchEnvironment, SourceError, unpack, writer::TreeWriter};
use crate::domain::{
    archive::Selection,
    source::{Purpose, RelativePath, ServerCredential, SourceUrl},
    value::{Digest, DigestHasher},
};
use crate::shell::net::{Http, NetError};

const MAX_REDIRECTS: usize = 5;
/// How long a server may be silent. Git servers that count objects send signs of life in between.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client together with what it may say to whom.
#[derive(Clone, Copy)]
pub(in crate::shell) struct Session<'a> {
    pub(in crate::shell) http: &'a Http,
    pub(in crate::shell) credential: Option<&'a ServerCredential>,
    pub(in crate::shell) purpose: Purpose,
}

/// An answer with a good status, and the address that gave it in the end.
pub(in crate::shell) struct Answer {
    pub(super) url: SourceUrl,
    response: Response,
}

impl Session<'_> {
    /// Gets `url`, following redirects. Only while nothing was received is a failure tried again.
    pub(in crate::shell) async fn get(&self, url: &SourceUrl, headers: &HeaderMap) -> Result<Answer, SourceError> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.patiently(Method::GET, &at, headers, &Bytes::new()).await?;
            if !response.status().is_redirection() {
                return self.accept(at, response);
            }
            at = redirected(&at, &response)?;
        }
        Err(SourceError::Redirect { url: url.clone(), why: "more than 5 times" })
    }

    /// Posts to `url`, which by then is known to be the right address: redirects are refused.
    pub(super) async fn post(
        &self,
        url: &SourceUrl,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, SourceError> {
        let response = self.patiently(Method::POST, url, headers, &Bytes::from(body)).await?;
        if response.status().is_redirection() {
            return Err(SourceError::Redirect { url: url.clone(), why: "in the middle of a conversation" });
        }
        self.accept(url.clone(), response)
    }

    async fn patiently(
        &self,
        method: Method,
        url: &SourceUrl,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, SourceError> {
        let attempt = || async {
            let response = self.send(method.clone(), url, headers, body.clone()).await?;
            match response.status().as_u16() {
                status @ (429 | 502 | 503 | 504) => Err(status_error(url.clone(), status)),
                _ => Ok(response),
            }
        };
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(3))
            .with_max_times(2)
            .with_jitter();
        let worth_it =
            |error: &SourceError| matches!(error, SourceError::Unreachable { .. } | SourceError::Status { .. });
        attempt.retry(waits).when(worth_it).await
    }

    async fn send(
        &self,
        method: Method,
        url: &SourceUrl,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, SourceError> {
        let mut request = Request::new(method, url.as_url().clone());
        request.headers_mut().clone_from(headers);
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        // Looked up for every request anew, so that a redirect to another server goes without.
        let authorization = self.credential.and_then(|credential| credential.authorization_for(url, self.purpose));
        if let Some(mut value) = authorization.and_then(|value| HeaderValue::from_str(value.expose()).ok()) {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        match tokio::time::timeout(PATIENCE, self.http.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(NetError::AddressRefused(refused))) => Err(SourceError::Address(refused)),
            Ok(Err(source)) => Err(SourceError::Unreachable { url: url.clone(), source: Box::new(source) }),
            Err(_) => Err(silent(url)),
        }
    }

    fn accept(&self, url: SourceUrl, response: Response) -> Result<Answer, SourceError> {
        let sent = self.credential.is_some_and(|credential| credential.authorization_for(&url, self.purpose).is_some());
        match response.status().as_u16() {
            200 => Ok(Answer { url, response }),
            status @ (401 | 403 | 407) => {
                let advice = match (self.credential, sent) {
                    (None, _) => {
                        "it wants credentials or has nothing there: check the address, or give a Secret with its host to the source; \
                         ADD sends none"
                    }
                    (Some(_), false) => "the credentials were not sent because they are for another host",
                    (Some(_), true) => "check that the credentials are valid and may read it",
                };
                Err(SourceError::AccessDenied { url, status, advice })
            }
            status => Err(status_error(url, status)),
        }
    }
}

fn status_error(url: SourceUrl, status: u16) -> SourceError {
    let advice = match status {
        404 | 410 => "; check the address, or the credentials: many servers answer so to those who may not see it",
        429 => "; it has had too many requests",
        _ => "",
    };
    SourceError::Status { url, status, advice }
}

fn silent(url: &SourceUrl) -> SourceError {
    SourceError::TooSlow { url: url.clone(), what: format!("nothing came for {} seconds", PATIENCE.as_secs()) }
}

fn redirected(from: &SourceUrl, response: &Response) -> Result<SourceUrl, SourceError> {
    let refuse = |why| SourceError::Redirect { url: from.clone(), why };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = from
        .redirect(location.ok_or_else(|| refuse("to nowhere"))?)
        .map_err(|_| refuse("to something that is not a plain http or https address"))?;
    if from.is_downgrade(&target) {
        return Err(refuse("from https to http"));
    }
    Ok(target)
}

impl Answer {
    /// Whether the body is of this type.
    pub(super) fn is_type(&self, content_type: &str) -> bool {
        self.response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes() == content_type.as_bytes())
    }

    /// The next piece of the body; none at its end.
    pub(in crate::shell) async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        match tokio::time::timeout(PATIENCE, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                Err(SourceError::Unreachable { url: self.url.clone(), source: Box::new(error.without_url()) })
            }
            Err(_) => Err(silent(&self.url)),
        }
    }
}

/// Downloads an archive, checks its digest, and only then unpacks it.
pub(super) async fn fetch_archive(
    session: Session<'_>,
    url: &SourceUrl,
    digest: Digest,
    selection: Selection,
    environment: &FetchEnvironment<'_>,
    into: &Path,
) -> Result<(), SourceError> {
    let file = download(session, url, digest, environment).await?;
    let (url, limits, into) = (url.clone(), environment.limits.clone(), into.to_owned());
    super::blocking(move || unpack::unpack(&url, file, selection, &limits, &into)).await
}

/// Downloads a file, checks its digest, and only then puts it at `name` in `into`.
pub(super) async fn fetch_file(
    session: Session<'_>,
    url: &SourceUrl,
    digest: Digest,
    name: &RelativePath,
    environment: &FetchEnvironment<'_>,
    into: &Path,
) -> Result<(), SourceError> {
    let mut file = download(session, url, digest, environment).await?;
    let (limits, name, into) = (environment.limits.clone(), name.clone(), into.to_owned());
    super::blocking(move || TreeWriter::new(&into, &limits)?.file(&name, false, &mut file)).await
}

/// What is at `url`, if it hashes to `digest`.
async fn download(
    session: Session<'_>,
    url: &SourceUrl,
    digest: Digest,
    environment: &FetchEnvironment<'_>,
) -> Result<File, SourceError> {
    let work_dir = environment.work_dir;
    let file_error = |source| SourceError::File { path: work_dir.to_owned(), source };
    let mut file = tempfile::tempfile_in(work_dir).map_err(file_error)?;
    let mut answer = session.get(url, &HeaderMap::new()).await?;
    let limit = environment.limits.source_bytes;
    let mut hasher = DigestHasher::default();
    while let Some(chunk) = answer.chunk().await? {
        hasher.update(&chunk);
        if hasher.count() > limit {
            return Err(SourceError::TooLarge { limit, what: "bytes" });
        }
        file.write_all(&chunk).map_err(file_error)?;
    }
    let found = hasher.finish();
    if found != digest {
        return Err(SourceError::Digest { url: url.clone(), expected: digest, found });
    }
    file.rewind().map_err(file_error)?;
    Ok(file)
}
