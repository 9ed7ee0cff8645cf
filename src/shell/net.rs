//! How every part reaches other servers over http(s): trust roots, timeouts, proxies, and which addresses are refused.
//! Follows no redirect and knows no credential: whoever sends one decides where it goes.

use std::{
    collections::BTreeMap,
    error::Error as _,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use reqwest::{
    Body, Client, Request, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::domain::{
    task::{Network, RegistrySettings},
    value::{AddressPolicy, AddressRange, Refusal},
};

const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take to begin, and a body to go on.
const IDLE: Duration = Duration::from_mins(1);
/// The same for requests with large bodies: a registry may store all of it before it answers.
const IDLE_UPLOAD: Duration = Duration::from_mins(5);

/// The one kind of http client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

struct Inner {
    client: Client,
    /// Clients for hosts that have CA certificates of their own.
    clients: BTreeMap<String, Client>,
    policy: Arc<AddressPolicy>,
    registries: BTreeMap<String, RegistrySettings>,
}

/// Why there is no answer. Carries no URL, for URLs hold signatures.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The network settings cannot be used.
    #[error("unable to use the network settings: {0}")]
    Settings(String),
    /// The host's address is one that must not be reached.
    #[error(transparent)]
    AddressRefused(#[from] AddressRefused),
    /// Nothing came within the time allowed.
    #[error("failed to reach {host}: nothing received for {seconds} s")]
    Timeout {
        /// The server.
        host: String,
        /// How long we waited.
        seconds: u64,
    },
    /// Name resolution, connection, TLS or transfer failed.
    #[error("failed to reach {host}")]
    Transport {
        /// The server.
        host: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
}

impl NetError {
    /// Whether a server that was spoken to by TLS has answered without.
    #[must_use]
    pub fn is_plain_answer(&self) -> bool {
        let Self::Transport { source, .. } = self else { return false };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source);
        while let Some(cause) = next {
            if let Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) =
                cause.downcast_ref()
            {
                return true;
            }
            next = match cause.downcast_ref::<io::Error>() {
                // The cause of an error of the system is inside of it, not behind it.
                Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
                None => cause.source(),
            };
        }
        false
    }
}

/// A host whose address must not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to connect to {host}: {address} is {refusal}; {}", remedy(*.refusal))]
pub struct AddressRefused {
    /// The host as it was named.
    pub host: String,
    /// What it resolved to.
    pub address: IpAddr,
    /// Why not.
    pub refusal: Refusal,
}

fn remedy(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Denied => "the operator's flag --deny-address-range covers it",
        Refusal::Loopback | Refusal::LinkLocal | Refusal::NotAHost | Refusal::Metadata => {
            "the operator allows it with the flag --allow-address-range"
        }
    }
}

impl Http {
    /// A client by these settings.
    ///
    /// # Errors
    /// When a CA certificate or an address range in the settings cannot be read.
    pub fn new(network: &Network) -> Result<Self, NetError> {
        let policy = Arc::new(AddressPolicy {
            allowed: ranges(&network.allowed_ranges)?,
            denied: ranges(&network.denied_ranges)?,
        });
        let mut roots = usual_roots();
        trust(&mut roots, network.ca_certificates.as_deref(), "the CA certificates for all servers")?;
        let mut clients = BTreeMap::new();
        for (host, settings) in &network.registries {
            if settings.ca_certificates.is_some() {
                let mut roots = roots.clone();
                trust(&mut roots, settings.ca_certificates.as_deref(), &format!("the CA certificates for {host}"))?;
                clients.insert(host.clone(), client(roots, &policy)?);
            }
        }
        let client = client(roots, &policy)?;
        Ok(Self(Arc::new(Inner { client, clients, policy, registries: network.registries.clone() })))
    }

    /// Whether `host` (`host[:port]`) is spoken to without TLS: by its settings, or because it is this machine.
    #[must_use]
    pub fn is_plain_http(&self, host: &str) -> bool {
        self.0.registries.get(host).map_or_else(
            || is_this_machine(host),
            |settings| settings.plain_http || (settings.ca_certificates.is_none() && is_this_machine(host)),
        )
    }

    /// The hosts to be asked before `host`.
    #[must_use]
    pub fn mirrors(&self, host: &str) -> &[String] {
        self.0.registries.get(host).map_or(&[], |settings| &settings.mirrors)
    }

    /// Sends a request and gives the head of its answer, a redirect too.
    ///
    /// # Errors
    /// When the address is refused, or no answer comes.
    pub async fn send(&self, request: Request) -> Result<Response, NetError> {
        let wait = if request.body().is_some_and(|body| body.as_bytes().is_none_or(|bytes| bytes.len() > 64 << 10)) {
            IDLE_UPLOAD
        } else {
            IDLE
        };
        let host = host_of(request.url());
        tokio::time::timeout(wait, self.execute(request)?).await.map_err(|_| timeout(&host, wait))?
    }

    /// Sends a request whose body is `pieces`; the time allowed begins anew with each piece that is taken.
    ///
    /// # Errors
    /// When the address is refused, no answer comes, or `pieces` ends with an error.
    pub async fn send_stream(
        &self,
        mut request: Request,
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response, NetError> {
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let pieces = pieces.inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        *request.body_mut() = Some(Body::wrap_stream(pieces));
        let host = host_of(request.url());
        let mut answer = self.execute(request)?;
        let mut before = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(IDLE_UPLOAD, &mut answer).await {
                return answer;
            }
            let now = taken.load(Ordering::Relaxed);
            if now == before {
                return Err(timeout(&host, IDLE_UPLOAD));
            }
            before = now;
        }
    }

    fn execute(&self, request: Request) -> Result<BoxFuture<'static, Result<Response, NetError>>, NetError> {
        let host = host_of(request.url());
        self.check_literal(request.url(), &host)?;
        let client = self.0.clients.get(&host).unwrap_or(&self.0.client).clone();
        Ok(Box::pin(async move { client.execute(request).await.map_err(|error| transport(&host, error)) }))
    }

    /// Addresses written into a URL are connected to without name resolution, so they are looked at here.
    fn check_literal(&self, url: &Url, host: &str) -> Result<(), NetError> {
        let literal = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let Ok(address) = literal.parse::<IpAddr>() else { return Ok(()) };
        match self.0.policy.refusal(address) {
            Some(refusal) => Err(AddressRefused { host: host.into(), address, refusal }.into()),
            None => Ok(()),
        }
    }
}

/// The next piece of an answer's body; none at its end.
///
/// # Errors
/// When the connection breaks or nothing comes for a minute.
pub async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, NetError> {
    match tokio::time::timeout(IDLE, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(transport(&host_of(response.url()), error)),
        Err(_) => Err(timeout(&host_of(response.url()), IDLE)),
    }
}

/// The whole body when it has at most `limit` bytes, else none.
///
/// # Errors
/// When the connection breaks or nothing comes for a minute.
pub async fn read_at_most(response: &mut Response, limit: usize) -> Result<Option<Bytes>, NetError> {
    let mut body = BytesMut::new();
    while let Some(piece) = next_piece(response).await? {
        if body.len() + piece.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.freeze()))
}

/// `host[:port]` as a reference would name the server of `url`.
#[must_use]
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn timeout(host: &str, after: Duration) -> NetError {
    NetError::Timeout { host: host.into(), seconds: after.as_secs() }
}

/// Finds our own refusal below the client's error, where the resolver left it.
fn transport(host: &str, error: reqwest::Error) -> NetError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<AddressRefused>() {
            return refused.clone().into();
        }
        cause = inner.source();
    }
    NetError::Transport { host: host.into(), source: error.without_url() }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn ranges(texts: &[String]) -> Result<Vec<AddressRange>, NetError> {
    let parse = |text: &String| text.parse().map_err(|error| NetError::Settings(format!("{error}")));
    texts.iter().map(parse).collect()
}

/// Roots carried in the binary, for images without CA files, and those of the system where it has some.
fn usual_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The roots carried in the binary as PEM, for tools in images that have none.
#[must_use]
pub fn carried_roots() -> String {
    let pem = |certificate: &CertificateDer| {
        let text = STANDARD.encode(certificate);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(pem).collect()
}

fn trust(roots: &mut rustls::RootCertStore, pem: Option<&str>, what: &str) -> Result<(), NetError> {
    let Some(pem) = pem else { return Ok(()) };
    let refuse = |problem: String| NetError::Settings(format!("{what} are not PEM: {problem}"));
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(refuse("no certificate found".into())) } else { Ok(()) }
}

fn client(roots: rustls::RootCertStore, policy: &Arc<AddressPolicy>) -> Result<Client, NetError> {
    let refuse = |problem: &dyn std::fmt::Display| NetError::Settings(format!("no TLS: {problem}"));
    // The provider is named here, so that no process default is needed and a second one in the tree does no harm.
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .user_agent(concat!("minimalimage/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(FilteringResolver(Arc::clone(policy)))
        .build()
        .map_err(|error| refuse(&error))
}

/// The system's resolver without the addresses that must not be reached: what is checked is what is connected to.
struct FilteringResolver(Arc<AddressPolicy>);

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let mut refused = None;
            let mut reachable = Vec::new();
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match policy.refusal(address.ip()) {
                    None => reachable.push(address),
                    Some(refusal) => {
                        let host = name.as_str().to_owned();
                        refused.get_or_insert(AddressRefused { host, address: address.ip(), refusal });
                    }
                }
            }
            match refused {
                Some(refused) if reachable.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(reachable.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Request {
        Request::new(reqwest::Method::GET, url.parse().unwrap())
    }

    #[test]
    fn the_carried_roots_are_pem_that_tools_can_read() {
        let text = carried_roots();
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
        assert!(text.lines().all(|line| line.len() <= 64));
    }

    #[tokio::test]
    async fn special_addresses_are_refused_by_name_and_by_number() {
        let http = Http::new(&Network::default()).unwrap();
        for url in
            ["http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/", "http://0x7f.1:1/", "http://2130706433/"]
        {
            let error = http.send(get(url)).await.unwrap_err();
            assert!(matches!(error, NetError::AddressRefused(_)), "{url}: {error:?}");
            assert!(error.to_string().contains("--allow-address-range"), "{error}");
        }
    }

    #[tokio::test]
    async fn allowed_ranges_are_reached_and_denied_ones_never() {
        let allowed_ranges = vec!["127.0.0.0/8".into(), "::1".into()];
        let http = Http::new(&Network { allowed_ranges: allowed_ranges.clone(), ..Network::default() }).unwrap();
        let error = http.send(get("http://localhost:1/")).await.unwrap_err();
        assert!(matches!(error, NetError::Transport { .. }), "{error:?}");
        let denied_ranges = vec!["127.0.0.0/8".into(), "::1".into()];
        let http = Http::new(&Network { allowed_ranges, denied_ranges, ..Network::default() }).unwrap();
        let error = http.send(get("http://localhost:1/")).await.unwrap_err();
        assert!(error.to_string().contains("--deny-address-range"), "{error}");
    }

    #[test]
    fn unusable_settings_are_refused() {
        let no_pem = Some("not pem".to_owned());
        for network in [
            Network { allowed_ranges: vec!["nonsense".into()], ..Network::default() },
            Network { ca_certificates: no_pem.clone(), ..Network::default() },
            Network {
                registries: [(
                    "a.io".into(),
                    RegistrySettings { ca_certificates: no_pem, ..RegistrySettings::default() },
                )]
                .into(),
                ..Network::default()
            },
        ] {
            assert!(matches!(Http::new(&network), Err(NetError::Settings(_))));
        }
    }

    #[test]
    fn this_machine_is_plain_http_by_default() {
        let http = Http::new(&Network::default()).unwrap();
        for (host, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("10.0.0.1:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(http.is_plain_http(host), plain, "{host}");
        }
    }
}
