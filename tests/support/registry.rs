//! A small OCI registry in memory, on loopback, with faults to order and a record of every request.
// Each test file uses its own part of this one.
#![allow(dead_code)]
// A file of helpers is no test in the eyes of clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    serve::ListenerExt as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use minimalimage::domain::{
    task::Network,
    value::{Digest, Reference, Repository},
};
use reqwest::Url;

/// What was asked of a server.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub headers: HeaderMap,
    /// Length of the body as far as it was read.
    pub length: usize,
}

/// How a registry wants to be authorised.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    Anyone,
    Basic {
        user: String,
        password: String,
    },
    Bearer(Arc<TokenServer>),
}

/// Faults to order. Numbers count down, `Option`s are used up by their first use.
#[derive(Default)]
pub struct Faults {
    /// These many requests of that method are answered so, with that `Retry-After`.
    pub answers: Vec<(Method, u16, usize, Option<u64>)>,
    /// Mounts open an upload instead.
    pub no_mount: bool,
    /// The connection is cut after that many bytes of the next PATCH, which the registry keeps.
    pub cut_patch_after: Option<usize>,
    /// Only that many bytes of the next PATCH are kept, and the answer says so.
    pub keep_of_patch: Option<usize>,
    /// The next PATCH is obeyed, but its answer is lost.
    pub lose_patch_answer: bool,
    /// The connection is cut after that many bytes of the next PUT of a blob.
    pub cut_put_after: Option<usize>,
    /// The PUT that ends an upload is obeyed, but its answer is lost.
    pub lose_put_answer: bool,
    /// All tokens end before the PATCH with this number, from 1.
    pub revoke_before_patch: Option<usize>,
    /// The session is forgotten before the PATCH with this number, from 1.
    pub forget_before_patch: Option<usize>,
    /// PATCH is answered 405.
    pub no_patch: bool,
    /// `OCI-Chunk-Min-Length`; smaller PATCHes are refused.
    pub minimum_chunk: Option<usize>,
    /// `Location` with scheme and host, and a query that must come back.
    pub absolute_location: bool,
    /// Blobs are given with one byte changed.
    pub wrong_bytes: bool,
    /// Blobs are given without their last byte, as a stream without length.
    pub short_blobs: bool,
    /// The connection is cut after that many bytes of the next blob.
    pub cut_blob_after: Option<usize>,
    /// Ranges are ignored.
    pub no_ranges: bool,
    /// Reads of blobs are redirected to this base (`http://host:port`).
    pub redirect_blobs: Option<String>,
    /// Manifests come without `Docker-Content-Digest`.
    pub no_digest_header: bool,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<(String, Digest), Bytes>,
    manifests: BTreeMap<(String, Digest), (String, Bytes)>,
    tags: BTreeMap<(String, String), Digest>,
    uploads: BTreeMap<u64, (String, Vec<u8>)>,
    opened: u64,
    patches: usize,
}

/// The registry; it stops with the test's runtime.
pub struct TestRegistry {
    pub address: SocketAddr,
    auth: Auth,
    faults: Mutex<Faults>,
    content: Mutex<Content>,
    connections: AtomicUsize,
    log: Mutex<Vec<Seen>>,
}

/// The network settings under which loopback may be reached.
pub fn loopback() -> Network {
    Network { allowed_ranges: vec!["127.0.0.0/8".into(), "::1".into()], ..Network::default() }
}

impl TestRegistry {
    pub async fn start(auth: Auth) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            auth,
            faults: Mutex::default(),
            content: Mutex::default(),
            connections: AtomicUsize::default(),
            log: Mutex::default(),
        });
        let counted = Arc::clone(&registry);
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::Relaxed);
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&registry));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        registry
    }

    pub async fn open() -> Arc<Self> {
        Self::start(Auth::Anyone).await
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn repository(&self, path: &str) -> Repository {
        format!("{}/{path}", self.host()).parse().unwrap()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.content.lock().unwrap().blobs.insert((repository.into(), digest), bytes);
        digest
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut content = self.content.lock().unwrap();
        content.manifests.insert((repository.into(), digest), (media_type.into(), bytes));
        content.tags.insert((repository.into(), tag.into()), digest);
        digest
    }

    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Bytes> {
        self.content.lock().unwrap().blobs.get(&(repository.to_owned(), digest)).cloned()
    }

    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Bytes> {
        let content = self.content.lock().unwrap();
        let digest = content.tags.get(&(repository.to_owned(), tag.to_owned()))?;
        content.manifests.get(&(repository.to_owned(), *digest)).map(|(_, bytes)| bytes.clone())
    }

    /// Sessions that are neither finished nor deleted.
    pub fn open_uploads(&self) -> usize {
        self.content.lock().unwrap().uploads.len()
    }

    pub fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub fn forget_log(&self) {
        self.log.lock().unwrap().clear();
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many requests of `method` had `part` in their target.
    pub fn count(&self, method: &Method, part: &str) -> usize {
        self.log().iter().filter(|seen| seen.method == *method && seen.target.contains(part)).count()
    }

    /// How many requests could have changed something.
    pub fn writes(&self) -> usize {
        self.log().iter().filter(|seen| !matches!(seen.method, Method::GET | Method::HEAD)).count()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

/// What a request is about.
struct Asked {
    method: Method,
    repository: String,
    kind: String,
    name: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
}

async fn serve(State(registry): State<Arc<TestRegistry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.uri.to_string();
    let url: Url = format!("http://x{target}").parse().unwrap();
    let header = |name: header::HeaderName| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    let authorization = header(header::AUTHORIZATION);
    let seen = Seen {
        method: parts.method.clone(),
        target,
        authorization: authorization.clone(),
        headers: parts.headers.clone(),
        length: 0,
    };
    let index = {
        let mut log = registry.log.lock().unwrap();
        log.push(seen);
        log.len() - 1
    };
    let Some((repository, kind, name)) = split(url.path()) else { return error(StatusCode::NOT_FOUND, "UNSUPPORTED") };
    let query = url.query_pairs().into_owned().collect();
    let asked = Asked { method: parts.method, repository, kind, name, query, headers: parts.headers };
    if asked.method == Method::PATCH {
        let number = {
            let mut content = registry.content();
            content.patches += 1;
            content.patches
        };
        let mut faults = registry.faults();
        if faults.revoke_before_patch == Some(number)
            && let Auth::Bearer(server) = &registry.auth
        {
            server.revoke();
        }
        if faults.forget_before_patch.take_if(|patch| *patch == number).is_some() {
            registry.content().uploads.clear();
        }
    }
    if let Some(refusal) = registry.refuse(&asked, authorization.as_deref()) {
        return refusal;
    }
    let ordered =
        registry.faults().answers.iter_mut().find(|(method, _, times, _)| *method == asked.method && *times > 0).map(
            |(_, status, times, wait)| {
                *times -= 1;
                (*status, *wait)
            },
        );
    if let Some((status, wait)) = ordered {
        let mut response = error(StatusCode::from_u16(status).unwrap(), "UNAVAILABLE");
        if let Some(wait) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, wait.into());
        }
        return response;
    }
    match asked.kind.as_str() {
        "manifests" => registry.manifests(&asked, body).await,
        "uploads" => registry.uploads(&asked, body, index).await,
        _ => registry.blobs(&asked),
    }
}

/// Repository, kind and name of a path.
fn split(path: &str) -> Option<(String, String, String)> {
    let path = path.strip_prefix("/v2/")?;
    for kind in ["/blobs/uploads/", "/blobs/", "/manifests/"] {
        if let Some((repository, name)) = path.split_once(kind) {
            let kind = kind.trim_matches('/').rsplit('/').next()?;
            return Some((repository.into(), kind.into(), name.into()));
        }
    }
    None
}

fn error(status: StatusCode, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"in words","detail":"hidden"}}]}}"#);
    (status, body).into_response()
}

impl TestRegistry {
    fn refuse(&self, asked: &Asked, authorization: Option<&str>) -> Option<Response> {
        let challenge = match &self.auth {
            Auth::Anyone => return None,
            Auth::Basic { user, password } => {
                if authorization == Some(&basic(user, password)) {
                    return None;
                }
                r#"Basic realm="test""#.to_owned()
            }
            Auth::Bearer(server) => {
                let action = match (&asked.method, asked.kind.as_str()) {
                    (&Method::GET | &Method::HEAD, "blobs" | "manifests") => "pull",
                    _ => "push",
                };
                if server.allows(authorization, &asked.repository, action) {
                    return None;
                }
                format!(
                    r#"Basic realm="not this", Bearer realm="{}/token?kept=1,2",service="test service""#,
                    server.base()
                )
            }
        };
        let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        Some(response)
    }

    async fn manifests(&self, asked: &Asked, body: Body) -> Response {
        let digest = asked
            .name
            .parse::<Digest>()
            .ok()
            .or_else(|| self.content().tags.get(&(asked.repository.clone(), asked.name.clone())).copied());
        if asked.method == Method::PUT {
            let bytes = axum::body::to_bytes(body, 8 << 20).await.unwrap();
            let media_type = asked.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            let computed = Digest::of(&bytes);
            let mut content = self.content();
            content.manifests.insert((asked.repository.clone(), computed), (media_type, bytes));
            if asked.name.parse::<Digest>().is_err() {
                content.tags.insert((asked.repository.clone(), asked.name.clone()), computed);
            }
            return (StatusCode::CREATED, [("docker-content-digest", computed.to_string())]).into_response();
        }
        let Some(digest) = digest else { return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN") };
        let key = (asked.repository.clone(), digest);
        let mut content = self.content();
        if asked.method == Method::DELETE {
            let found = content.manifests.remove(&key).is_some();
            content.tags.retain(|(repository, _), tagged| *repository != asked.repository || *tagged != digest);
            return if found {
                StatusCode::ACCEPTED.into_response()
            } else {
                error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN")
            };
        }
        let Some((media_type, bytes)) = content.manifests.get(&key).cloned() else {
            return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        };
        let mut response = ([(header::CONTENT_TYPE, media_type)], bytes).into_response();
        if !self.faults().no_digest_header {
            response.headers_mut().insert("docker-content-digest", digest.to_string().parse().unwrap());
        }
        response
    }

    fn blobs(&self, asked: &Asked) -> Response {
        let digest = asked.name.parse::<Digest>().unwrap();
        let mut faults = self.faults();
        if let Some(base) = &faults.redirect_blobs {
            let target = format!("{base}/v2/{}/blobs/{digest}?signature=1", asked.repository);
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)]).into_response();
        }
        let Some(mut bytes) = self.blob(&asked.repository, digest) else {
            return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let mut status = StatusCode::OK;
        let mut headers = HeaderMap::new();
        if faults.wrong_bytes {
            let mut changed = bytes.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            bytes = changed.into();
        }
        if let Some(range) = asked.headers.get(header::RANGE).filter(|_| !faults.no_ranges) {
            let from =
                range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap();
            let text = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            bytes = bytes.slice(from..);
            status = StatusCode::PARTIAL_CONTENT;
        }
        if asked.method == Method::GET && faults.short_blobs {
            let pieces = [Ok::<_, std::io::Error>(bytes.slice(..bytes.len() - 1))];
            return (status, headers, Body::from_stream(futures::stream::iter(pieces))).into_response();
        }
        if asked.method == Method::GET
            && let Some(after) = faults.cut_blob_after.take()
        {
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            let pieces = [Ok(bytes.slice(..after)), Err(std::io::Error::other("cut"))];
            return (status, headers, Body::from_stream(futures::stream::iter(pieces))).into_response();
        }
        (status, headers, bytes).into_response()
    }

    async fn uploads(&self, asked: &Asked, body: Body, index: usize) -> Response {
        if asked.method == Method::POST {
            return self.open_upload(asked);
        }
        let id: u64 = asked.name.parse().unwrap();
        let unknown = || error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        if self.faults().absolute_location && asked.query.get("_state").is_none_or(|state| state != "a b/c") {
            return error(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID");
        }
        let Some(have) = self.content().uploads.get(&id).map(|(_, bytes)| bytes.len()) else { return unknown() };
        if asked.method == Method::GET {
            return self.session(StatusCode::NO_CONTENT, asked, id, have);
        }
        if asked.method == Method::DELETE {
            self.content().uploads.remove(&id);
            return StatusCode::NO_CONTENT.into_response();
        }
        let is_patch = asked.method == Method::PATCH;
        if is_patch && self.faults().no_patch {
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        let begins = asked
            .headers
            .get("content-range")
            .map(|range| range.to_str().unwrap().split('-').next().unwrap().parse::<usize>().unwrap());
        if begins.is_some_and(|begins| begins != have) {
            return self.session(StatusCode::RANGE_NOT_SATISFIABLE, asked, id, have);
        }
        let cut = if is_patch { self.faults().cut_patch_after.take() } else { self.faults().cut_put_after.take() };
        let mut received = self.receive(id, body, cut, index).await;
        if is_patch {
            if std::mem::take(&mut self.faults().lose_patch_answer) {
                cut_connection();
            }
            if let Some(keep) = self.faults().keep_of_patch.take() {
                received = keep;
                self.content().uploads.get_mut(&id).unwrap().1.truncate(have + keep);
            }
            if self.faults().minimum_chunk.is_some_and(|minimum| received < minimum) {
                return error(StatusCode::BAD_REQUEST, "SIZE_INVALID");
            }
            return self.session(StatusCode::ACCEPTED, asked, id, have + received);
        }
        let digest: Digest = asked.query["digest"].parse().unwrap();
        let Some((repository, bytes)) = self.content().uploads.remove(&id) else { return unknown() };
        if Digest::of(&bytes) != digest {
            return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        }
        self.put_blob(&repository, bytes);
        if std::mem::take(&mut self.faults().lose_put_answer) {
            cut_connection();
        }
        StatusCode::CREATED.into_response()
    }

    /// Adds the body to a session as it comes; cuts the connection after `cut` bytes.
    async fn receive(&self, id: u64, body: Body, cut: Option<usize>, index: usize) -> usize {
        let mut received = 0;
        let mut pieces = body.into_data_stream();
        while let Some(Ok(mut piece)) = pieces.next().await {
            if let Some(cut) = cut {
                piece.truncate(cut - received);
            }
            received += piece.len();
            self.log.lock().unwrap()[index].length = received;
            if let Some((_, bytes)) = self.content().uploads.get_mut(&id) {
                bytes.extend_from_slice(&piece);
            }
            if cut == Some(received) {
                cut_connection();
            }
        }
        received
    }

    fn open_upload(&self, asked: &Asked) -> Response {
        if let (Some(digest), Some(from)) = (asked.query.get("mount"), asked.query.get("from")) {
            let digest: Digest = digest.parse().unwrap();
            let may_read = match &self.auth {
                Auth::Bearer(server) => {
                    let authorization = asked.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                    server.allows(authorization, from, "pull")
                }
                Auth::Anyone | Auth::Basic { .. } => true,
            };
            if let Some(bytes) = self.blob(from, digest).filter(|_| may_read && !self.faults().no_mount) {
                self.put_blob(&asked.repository, bytes);
                return StatusCode::CREATED.into_response();
            }
        }
        let id = {
            let mut content = self.content();
            content.opened += 1;
            let id = content.opened;
            content.uploads.insert(id, (asked.repository.clone(), Vec::new()));
            id
        };
        let mut response = self.session(StatusCode::ACCEPTED, asked, id, 0);
        if let Some(minimum) = self.faults().minimum_chunk {
            response.headers_mut().insert("oci-chunk-min-length", minimum.into());
        }
        response
    }

    fn session(&self, status: StatusCode, asked: &Asked, id: u64, have: usize) -> Response {
        let mut location = format!("/v2/{}/blobs/uploads/{id}", asked.repository);
        if self.faults().absolute_location {
            location = format!("http://{}{location}?_state=a%20b%2Fc", self.address);
        }
        let range = format!("0-{}", have.saturating_sub(1));
        (status, [("location", location), ("range", range)]).into_response()
    }
}

/// Ends the connection's task without an answer, and without the message of a panic.
fn cut_connection() -> ! {
    std::panic::resume_unwind(Box::new("cut"))
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A token server on a port of its own, which records whom it saw.
pub struct TokenServer {
    pub address: SocketAddr,
    user: String,
    password: String,
    /// Repositories that the user may read, beside those that he may do everything with.
    readable: BTreeSet<String>,
    state: Mutex<Granted>,
}

#[derive(Default)]
struct Granted {
    tokens: BTreeMap<String, BTreeSet<String>>,
    count: usize,
    seen: Vec<Seen>,
}

/// The refresh token that a [`TokenServer`] takes.
pub const IDENTITY_TOKEN: &str = "the identity token";

impl TokenServer {
    pub async fn start(user: &str, password: &str) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            user: user.into(),
            password: password.into(),
            readable: BTreeSet::from(["public".to_owned()]),
            state: Mutex::default(),
        });
        let router = Router::new().fallback(grant).with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All tokens given out end.
    pub fn revoke(&self) {
        self.state.lock().unwrap().tokens.clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    fn allows(&self, authorization: Option<&str>, repository: &str, action: &str) -> bool {
        let state = self.state.lock().unwrap();
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let scopes = token.and_then(|token| state.tokens.get(token));
        scopes.is_some_and(|scopes| scopes.contains(&format!("{repository}:{action}")))
    }
}

async fn grant(State(server): State<Arc<TokenServer>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let form = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let target = parts.uri.to_string();
    let query = if parts.method == Method::POST {
        String::from_utf8(form.to_vec()).unwrap()
    } else {
        parts.uri.query().unwrap().into()
    };
    let url: Url = format!("http://x/?{query}").parse().unwrap();
    let values = |name: &str| {
        url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };
    let mut state = server.state.lock().unwrap();
    let seen = Seen {
        method: parts.method.clone(),
        target: format!("{target} {query}"),
        authorization,
        headers: parts.headers,
        length: form.len(),
    };
    let is_user = seen.authorization.as_deref() == Some(&basic(&server.user, &server.password))
        || values("refresh_token") == [IDENTITY_TOKEN];
    let is_wrong = seen.authorization.is_some() && !is_user;
    state.seen.push(seen);
    if is_wrong {
        return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    }
    let mut granted = BTreeSet::new();
    for scope in values("scope").iter().flat_map(|scopes| scopes.split(' ')) {
        let mut parts = scope.rsplitn(2, ':');
        let actions = parts.next().unwrap();
        let repository = parts.next().unwrap().strip_prefix("repository:").unwrap();
        for action in actions.split(',') {
            if is_user || (action == "pull" && server.readable.contains(repository)) {
                granted.insert(format!("{repository}:{action}"));
            }
        }
    }
    state.count += 1;
    let token = format!("token-{}", state.count);
    state.tokens.insert(token.clone(), granted);
    let key = if parts.method == Method::POST { "access_token" } else { "token" };
    format!(r#"{{"{key}":"{token}","expires_in":300}}"#).into_response()
}
