//! Registry credentials: what docker config files say, and which entry is for which repository. Reads no files itself.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose};
use serde::Deserialize;

use super::value::{Digest, DigestHasher, Repository, Secret};

/// How a client proves to one registry who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User name and password, for the registry itself or its token server.
    Basic {
        /// Not secret, but not for logs either.
        username: String,
        /// The password or personal access token.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged at the token server.
    IdentityToken(Secret),
    /// A bearer token, sent to the registry as it is.
    RegistryToken(Secret),
}

impl Credential {
    /// Equal for equal credentials only; for keys of caches. Not for logs: short passwords could be guessed from it.
    #[must_use]
    pub fn identity(&self) -> Digest {
        match self {
            Self::Basic { username, password } => fingerprint(&["basic", username, password.expose()]),
            Self::IdentityToken(token) => fingerprint(&["identity", token.expose()]),
            Self::RegistryToken(token) => fingerprint(&["registry", token.expose()]),
        }
    }
}

/// The entries of docker config files (`.dockerconfigjson`), from several files where needed. Empty is anonymous.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keychain {
    /// `host[:port][/path]` to credential. Within one pattern the first file wins.
    entries: BTreeMap<String, Credential>,
}

/// Why a docker config file cannot be used. Quotes nothing of the file, which holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeychainError {
    /// It is not JSON of the expected form.
    #[error("the docker config is not valid JSON with an `auths` object, see line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An `auth` value is not base64 of `user:password`.
    #[error("the docker config's entry for `{0}` has an `auth` that is not base64 of user:password")]
    Auth(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(alias = "identityToken")]
    identitytoken: Option<String>,
    #[serde(alias = "registryToken")]
    registrytoken: Option<String>,
}

impl Keychain {
    /// The entries of one docker config file. Entries without a credential (a credential helper's traces) are left out.
    ///
    /// # Errors
    /// When it is not JSON of that form, or an `auth` is not base64 of `user:password`.
    pub fn parse(config: &[u8]) -> Result<Self, ParseKeychainError> {
        let file: File = serde_json::from_slice(config)
            .map_err(|error| ParseKeychainError::Json { line: error.line(), column: error.column() })?;
        let mut entries = BTreeMap::new();
        for (key, entry) in file.auths {
            if let Some(credential) = entry.credential(&key)? {
                // Keys such as `https://host` and `host` are one pattern; the order of a BTreeMap decides.
                entries.entry(pattern(&key)).or_insert(credential);
            }
        }
        Ok(Self { entries })
    }

    /// One credential for one host or `host/path`.
    #[must_use]
    pub fn single(host: &str, credential: Credential) -> Self {
        Self { entries: BTreeMap::from([(pattern(host), credential)]) }
    }

    /// These entries, and those of `later` for which there is none here.
    #[must_use]
    pub fn merge(mut self, later: Self) -> Self {
        for (pattern, credential) in later.entries {
            self.entries.entry(pattern).or_insert(credential);
        }
        self
    }

    /// The credential for `repository`: the longest entry that is its host or a path above it.
    #[must_use]
    pub fn find(&self, repository: &Repository) -> Option<&Credential> {
        let full = format!("{}/{}", canonical_host(repository.registry()), repository.path());
        let mut prefix = full.as_str();
        loop {
            if let Some(credential) = self.entries.get(prefix) {
                return Some(credential);
            }
            prefix = prefix.rsplit_once('/')?.0;
        }
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Equal for keychains with equal entries; for keys of caches, not for logs.
    #[must_use]
    pub fn identity(&self) -> Digest {
        let parts: Vec<String> = self
            .entries
            .iter()
            .flat_map(|(pattern, credential)| [pattern.clone(), credential.identity().to_string()])
            .collect();
        fingerprint(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl fmt::Debug for Keychain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Keychain").field(&self.entries.keys().collect::<Vec<_>>()).finish()
    }
}

impl Entry {
    fn credential(self, key: &str) -> Result<Option<Credential>, ParseKeychainError> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        if let (Some(username), Some(password)) = (given(self.username), given(self.password)) {
            return Ok(Some(Credential::Basic { username, password: Secret::new(password) }));
        }
        let Some(auth) = given(self.auth) else { return Ok(None) };
        decode_auth(&auth).map(Some).ok_or_else(|| ParseKeychainError::Auth(key.chars().take(100).collect()))
    }
}

/// `user:password` in base64, padded or not; some tools append NUL bytes.
fn decode_auth(auth: &str) -> Option<Credential> {
    let engine = general_purpose::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        general_purpose::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let decoded = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = decoded.trim_end_matches('\0').split_once(':')?;
    Some(Credential::Basic { username: username.into(), password: Secret::new(password) })
}

/// A key of `auths` as `host[:port][/path]`: without scheme, without the API version that Docker writes behind hosts.
fn pattern(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_host(host)),
        None => canonical_host(key),
    }
}

/// Docker Hub has several names; hosts compare without case.
fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        _ => host,
    }
}

/// A hash over `parts` which no other list of parts has.
fn fingerprint(parts: &[&str]) -> Digest {
    let mut hasher = DigestHasher::default();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.into(), password: Secret::new(password) }
    }

    fn keychain(json: &str) -> Keychain {
        Keychain::parse(json.as_bytes()).unwrap()
    }

    fn find(keychain: &Keychain, repository: &str) -> Option<Credential> {
        keychain.find(&repository.parse().unwrap()).cloned()
    }

    #[test]
    fn every_form_of_entry_is_read() {
        let keychain = keychain(
            r#"{"auths": {
                "a.io": {"auth": "dTpwOnE="}, "b.io": {"auth": "dTpwOnE"}, "c.io": {"username": "u", "password": "p"},
                "d.io": {"auth": "dTpw", "identitytoken": "it"}, "e.io": {"registrytoken": "rt"}, "f.io": {}
            }, "credsStore": "desktop"}"#,
        );
        assert_eq!(find(&keychain, "a.io/x"), Some(basic("u", "p:q")));
        assert_eq!(find(&keychain, "b.io/x"), Some(basic("u", "p:q")));
        assert_eq!(find(&keychain, "c.io/x"), Some(basic("u", "p")));
        assert_eq!(find(&keychain, "d.io/x"), Some(Credential::IdentityToken(Secret::new("it"))));
        assert_eq!(find(&keychain, "e.io/x"), Some(Credential::RegistryToken(Secret::new("rt"))));
        assert_eq!(find(&keychain, "f.io/x"), None);
    }

    #[test]
    fn docker_hub_is_found_under_all_its_names() {
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io", "DOCKER.io"]
        {
            let keychain = Keychain::single(key, basic("u", "p"));
            assert_eq!(find(&keychain, "golang"), Some(basic("u", "p")), "{key}");
        }
    }

    #[test]
    fn the_longest_path_at_component_borders_wins() {
        let keychain = Keychain::single("host.io", basic("host", ""))
            .merge(Keychain::single("host.io/team", basic("team", "")))
            .merge(Keychain::single("https://host.io/team/app/", basic("app", "")));
        for (repository, user) in [
            ("host.io/other", "host"),
            ("host.io/team", "team"),
            ("host.io/team/x", "team"),
            ("host.io/teams", "host"),
            ("host.io/team/app/y", "app"),
            ("host.io/team/apps", "team"),
        ] {
            assert_eq!(find(&keychain, repository), Some(basic(user, "")), "{repository}");
        }
    }

    #[test]
    fn hosts_match_exactly() {
        let keychain = Keychain::single("host.io:5000", basic("u", "p"));
        assert!(find(&keychain, "host.io:5000/a").is_some());
        for other in ["host.io/a", "host.io:5001/a", "sub.host.io:5000/a"] {
            assert_eq!(find(&keychain, other), None, "{other}");
        }
    }

    #[test]
    fn the_first_file_wins_and_order_changes_the_identity() {
        let one = Keychain::single("host.io", basic("one", ""));
        let two = Keychain::single("host.io", basic("two", ""));
        assert_eq!(find(&one.clone().merge(two.clone()), "host.io/a"), Some(basic("one", "")));
        assert_ne!(one.clone().merge(two.clone()).identity(), two.merge(one.clone()).identity());
        assert_eq!(one.identity(), one.clone().merge(Keychain::default()).identity());
    }

    #[test]
    fn neither_debug_nor_errors_show_secrets() {
        let keychain = keychain(r#"{"auths": {"a.io": {"username": "u", "password": "hunter2"}}}"#);
        assert_eq!(format!("{keychain:?}"), r#"Keychain(["a.io"])"#);
        assert!(!format!("{:?}", basic("u", "hunter2")).contains("hunter2"));
        for bad in [r#"{"auths": {"a.io": "hunter2"}}"#, r#"{"auths": {"a.io": {"auth": "hunter2hunter2"}}}"#] {
            let error = Keychain::parse(bad.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
