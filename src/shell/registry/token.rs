//! Authorization: which header a request to a registry carries, the tokens behind it, and their cache.
//! A credential is sent to the registry it is for and to the token server which that registry names, to nobody else.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, Request, Response, StatusCode, Url, header, header::HeaderValue};
use serde::Deserialize;

use super::{
    challenge::{self, Challenge},
    error::{RegistryError, is_transient},
    retry::RetryPolicy,
};
use crate::{
    domain::{
        credentials::Credential,
        value::{Digest, Repository, Secret},
    },
    shell::net::{self, Http},
};

/// What a token allows, as the token server is asked for it: `repository:PATH:ACTIONS`, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Scope(BTreeSet<String>);

impl Scope {
    pub fn pull(repository: &Repository) -> Self {
        Self::with(repository, "pull")
    }

    pub fn push(repository: &Repository) -> Self {
        Self::with(repository, "pull,push")
    }

    pub fn delete(repository: &Repository) -> Self {
        Self::with(repository, "delete,pull")
    }

    /// Both scopes in one token.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn with(repository: &Repository, actions: &str) -> Self {
        Self(BTreeSet::from([format!("repository:{}:{actions}", repository.path())]))
    }
}

/// On whose behalf something is asked of which registry.
#[derive(Clone)]
pub(super) struct Access {
    /// The registry as references name it.
    pub host: String,
    pub credential: Option<Credential>,
    pub scope: Scope,
    /// The reference, for messages.
    pub what: String,
}

/// How a registry wants to be authorised.
#[derive(Clone)]
enum Auth {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

#[derive(Clone)]
struct Token {
    value: Secret,
    until: Instant,
}

type Identity = Option<Digest>;
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Tokens and known ways of authorization, by who asks. Shared by all clients of a process.
#[derive(Default)]
pub(super) struct Tokens {
    auths: Mutex<HashMap<(Identity, String), Auth>>,
    slots: Mutex<BTreeMap<(Identity, String, Scope), Slot>>,
}

/// Beyond this many the whole cache is dropped: simpler than an order of age, and it refills with one request each.
const MOST_SLOTS: usize = 20_000;
/// A token that ends this soon is not used for a new request.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    /// The header for a request; none when the registry is not known to want one.
    pub async fn header(
        &self,
        http: &Http,
        access: &Access,
        retry: RetryPolicy,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let value = match (self.auth(access), &access.credential) {
            (None, _) => return Ok(None),
            (Some(_), Some(Credential::RegistryToken(token))) => format!("Bearer {}", token.expose()),
            (Some(Auth::Basic), Some(Credential::Basic { username, password })) => basic(username, password),
            (Some(Auth::Basic), Some(Credential::IdentityToken(_))) => {
                return Err(RegistryError::denied(
                    &access.what,
                    "the registry wants a password, not an identity token",
                ));
            }
            (Some(Auth::Basic), None) => return Err(RegistryError::denied(&access.what, wants(access))),
            (Some(Auth::Bearer { realm, service }), _) => {
                let slot = self.slot(access);
                let mut slot = slot.lock().await;
                let token = match slot.clone().filter(|token| token.until > Instant::now() + MARGIN) {
                    Some(token) => token,
                    None => fetch(http, access, &realm, service.as_deref(), retry).await?,
                };
                *slot = Some(token.clone());
                format!("Bearer {}", token.value.expose())
            }
        };
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| RegistryError::denied(&access.what, "the credential cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Learns from an answer 401 to a request with `sent`; an error when it says nothing that we can do.
    pub async fn learn(
        &self,
        http: &Http,
        access: &Access,
        response: &Response,
        sent: Option<&HeaderValue>,
    ) -> Result<(), RegistryError> {
        let lines = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges = challenge::parse(lines.iter().filter_map(|line| line.to_str().ok()));
        let auth = choose(&challenges, &access.what, http.is_plain_http(&access.host))?;
        if let Auth::Bearer { .. } = auth {
            let slot = self.slot(access);
            let mut slot = slot.lock().await;
            // Another request may have renewed the token since; then that one is used.
            let stale = slot.as_ref().is_some_and(|token| {
                sent.is_some_and(|sent| sent.as_bytes() == format!("Bearer {}", token.value.expose()).as_bytes())
            });
            if stale {
                *slot = None;
            }
        }
        let mut auths = self.auths.lock().unwrap_or_else(PoisonError::into_inner);
        if auths.len() >= MOST_SLOTS {
            auths.clear();
        }
        auths.insert((identity(access), access.host.clone()), auth);
        Ok(())
    }

    fn auth(&self, access: &Access) -> Option<Auth> {
        let auths = self.auths.lock().unwrap_or_else(PoisonError::into_inner);
        auths.get(&(identity(access), access.host.clone())).cloned()
    }

    fn slot(&self, access: &Access) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_SLOTS {
            slots.clear();
        }
        Arc::clone(slots.entry((identity(access), access.host.clone(), access.scope.clone())).or_default())
    }
}

fn identity(access: &Access) -> Identity {
    access.credential.as_ref().map(Credential::identity)
}

/// What is wrong when the registry refuses; names no user.
pub(super) fn wants(access: &Access) -> String {
    match access.credential {
        None => format!(
            "{} refuses anonymous access, or it does not exist; a pull or push secret for it is needed",
            access.host
        ),
        Some(_) => format!("{} refuses the credentials given for it, or it does not exist", access.host),
    }
}

/// Bearer before Basic, as other clients choose; the realm must be safe to send a credential to.
fn choose(challenges: &[Challenge], what: &str, plain_http: bool) -> Result<Auth, RegistryError> {
    let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
    let Some(realm) = bearer.and_then(|challenge| challenge.parameters.get("realm")) else {
        return if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            Ok(Auth::Basic)
        } else {
            Err(RegistryError::denied(what, "the registry answers 401 without a challenge that we know"))
        };
    };
    let refuse = |problem: &str| RegistryError::invalid(what, format!("the registry's token server {problem}"));
    let realm: Url = realm.parse().map_err(|_| refuse("has no valid URL"))?;
    match realm.scheme() {
        "https" => {}
        "http" if plain_http => {}
        _ => return Err(refuse("is not https, credentials are not sent there")),
    }
    let service = bearer.and_then(|challenge| challenge.parameters.get("service")).cloned();
    Ok(Auth::Bearer { realm, service })
}

/// A new token, by the flow that fits the credential.
async fn fetch(
    http: &Http,
    access: &Access,
    realm: &Url,
    service: Option<&str>,
    retry: RetryPolicy,
) -> Result<Token, RegistryError> {
    let mut attempts = retry.start();
    loop {
        let error = match http.send(request(access, realm, service)).await {
            Ok(response) if response.status().is_success() => return read(access, response).await,
            Ok(response) if is_transient(response.status()) => RegistryError::response(&access.what, response).await,
            Ok(response) => return Err(refused(access, response).await),
            Err(error) => RegistryError::net(&access.what, error),
        };
        if !error.is_retryable() || !attempts.pause(error.retry_after()).await {
            return Err(error);
        }
    }
}

/// Docker's token flow (GET with Basic, or anonymous), or for identity tokens its OAuth2 flow (POST).
fn request(access: &Access, realm: &Url, service: Option<&str>) -> Request {
    let scopes = access.scope.0.iter().map(String::as_str);
    let mut url = realm.clone();
    if let Some(Credential::IdentityToken(token)) = &access.credential {
        // A URL without a base is the shortest way to a form encoder.
        let mut form = reqwest::Url::clone(realm);
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "minimalimage")
            .append_pair("scope", &scopes.collect::<Vec<_>>().join(" "))
            .append_pair("refresh_token", token.expose());
        let mut request = Request::new(Method::POST, url);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form_type);
        *request.body_mut() = form.query().map(|form| form.to_owned().into());
        return request;
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut request = Request::new(Method::GET, url);
    if let Some(Credential::Basic { username, password }) = &access.credential
        && let Ok(mut value) = HeaderValue::try_from(basic(username, password))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

async fn read(access: &Access, mut response: Response) -> Result<Token, RegistryError> {
    let body =
        net::read_at_most(&mut response, 1 << 20).await.map_err(|error| RegistryError::net(&access.what, error))?;
    let answer: Option<TokenAnswer> = body.and_then(|body| serde_json::from_slice(&body).ok());
    let answer = answer.and_then(|answer| Some((answer.token.or(answer.access_token)?, answer.expires_in)));
    let (value, expires_in) =
        answer.ok_or_else(|| RegistryError::invalid(&access.what, "the registry's token server gave no token"))?;
    // Without a value a token lives 60 seconds (distribution's token specification); a day is long enough.
    let lifetime = Duration::from_secs(expires_in.unwrap_or(60).clamp(10, 86_400));
    Ok(Token { value: Secret::new(value), until: Instant::now() + lifetime })
}

async fn refused(access: &Access, response: Response) -> RegistryError {
    match (response.status(), RegistryError::response(&access.what, response).await) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND, _) => {
            RegistryError::denied(&access.what, format!("the token server of {}", wants(access)))
        }
        (_, error) => error,
    }
}

fn basic(username: &str, password: &Secret) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_must_be_https_unless_the_registry_is_plain_http() {
        let challenges = |realm: &str| challenge::parse([format!("Bearer realm=\"{realm}\"").as_str()]);
        assert!(choose(&challenges("https://auth.other.io/token"), "x", false).is_ok());
        assert!(choose(&challenges("http://auth.io/token"), "x", true).is_ok());
        for realm in ["http://auth.io/token", "ftp://auth.io", "/token", ""] {
            assert!(choose(&challenges(realm), "x", false).is_err(), "{realm}");
        }
    }

    #[test]
    fn bearer_is_preferred_and_unknown_schemes_are_refused() {
        let choice = |line: &str| choose(&challenge::parse([line]), "x", false);
        assert!(matches!(choice(r#"Basic realm="x", Bearer realm="https://a.io""#), Ok(Auth::Bearer { .. })));
        assert!(matches!(choice(r#"Basic realm="x""#), Ok(Auth::Basic)));
        assert!(matches!(choice("Negotiate"), Err(RegistryError::AccessDenied { .. })));
    }
}
