//! A server that stands between the test's own operator and another one, and sees every write before it is made and
//! after it was.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, Method, Response, StatusCode},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use kube::Client;

use crate::fixture::setting;

/// The largest thing that a test sends.
const BYTES: usize = 256 << 20;

/// A request that changes something.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// Whether a write is about to be made, or was made and is about to be answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// What a test does at a write; the write, or its answer, waits for it.
pub(crate) type Hook = Arc<dyn Fn(Write, Moment) -> BoxFuture<'static, ()> + Send + Sync>;

/// Where writes go.
enum Target {
    ApiServer(Client),
    Registry { client: reqwest::Client, host: String },
}

struct Shared {
    target: Target,
    hook: Hook,
    /// Writes from elsewhere, the agents' above all, are not the operator's.
    operator: IpAddr,
}

/// Stands before the API server; gives its address.
pub(crate) async fn api_server(client: Client, hook: Hook) -> SocketAddr {
    serve([127, 0, 0, 1].into(), Target::ApiServer(client), hook).await
}

/// Stands before the open registry; gives its host and port, by which Pods reach it too.
pub(crate) async fn registry(hook: Hook) -> String {
    let host = setting("MINIMALIMAGE_REGISTRY");
    let address = host.rsplit_once(':').and_then(|(address, _)| address.parse().ok()).expect("an address with a port");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    serve(address, Target::Registry { client, host }, hook).await.to_string()
}

/// The same with nothing done at writes. An operator can be told that it speaks plain http, the node's container runtime is not:
/// nothing can be pulled from it.
pub(crate) async fn registry_for_the_operator_alone() -> String {
    registry(Arc::new(|_, _| Box::pin(std::future::ready(())))).await
}

async fn serve(address: IpAddr, target: Target, hook: Hook) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let local = listener.local_addr().unwrap();
    let shared = Arc::new(Shared { target, hook, operator: address });
    let router = Router::new().fallback(forward).with_state(shared);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    local
}

async fn forward(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BYTES).await else { return refused() };
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let write = Write { method: parts.method.clone(), path, body };
    let seen = peer.ip() == shared.operator && ![Method::GET, Method::HEAD].contains(&write.method);
    // On its own: a write that has come this far is made and seen, also when its sender is killed meanwhile.
    let made = tokio::spawn(async move {
        if seen {
            (shared.hook)(write.clone(), Moment::Before).await;
        }
        let answer = shared.target.send(&write, end_to_end(parts.headers)).await;
        if seen {
            (shared.hook)(write, Moment::After).await;
        }
        answer.unwrap_or_else(refused)
    });
    made.await.unwrap_or_else(|_| refused())
}

impl Target {
    async fn send(&self, write: &Write, mut headers: HeaderMap) -> Option<Response<Body>> {
        let (parts, body) = match self {
            Self::ApiServer(client) => {
                headers.remove("host");
                let mut request = http::Request::new(kube::client::Body::from(write.body.clone()));
                *request.method_mut() = write.method.clone();
                *request.uri_mut() = write.path.parse().ok()?;
                *request.headers_mut() = headers;
                let (parts, body) = client.send(request).await.ok()?.into_parts();
                (parts, Body::new(body))
            }
            Self::Registry { client, host } => {
                let url = format!("http://{host}{}", write.path);
                let request = client.request(write.method.clone(), url).headers(headers).body(write.body.clone());
                let answer: http::Response<reqwest::Body> = request.send().await.ok()?.into();
                let (parts, body) = answer.into_parts();
                (parts, Body::new(body))
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = end_to_end(parts.headers);
        Some(answer)
    }
}

/// Headers without those that are for one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in ["connection", "transfer-encoding", "keep-alive", "expect"] {
        headers.remove(HeaderName::from_static(name));
    }
    headers
}

fn refused() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
