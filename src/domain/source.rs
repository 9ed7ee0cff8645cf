//! Sources as values: safe relative paths, addresses, credentials and the digest of a ConfigMap. Fetches nothing.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use url::Url;

use super::value::{Digest, DigestHasher, Secret};

/// The longest path that a source may hold: Linux' PATH_MAX without the NUL.
pub const MAX_PATH: usize = 4095;
/// The longest file name: Linux' NAME_MAX.
const MAX_NAME: usize = 255;

/// A path below some root, as bytes: no empty, `.` or `..` components, not absolute. Empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelativePath(Vec<u8>);

/// Why a path from outside is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsafePath {
    /// It begins with `/`.
    #[error("`{0}` is absolute, expected a path below the source's root")]
    Absolute(String),
    /// It has a component `..`.
    #[error("`{0}` leads upwards with `..`")]
    Upwards(String),
    /// It has a NUL byte.
    #[error("`{0}` has a NUL byte")]
    Nul(String),
    /// It is longer than Linux allows.
    #[error("`{0}` is longer than {MAX_PATH} bytes, or a name in it than {MAX_NAME}")]
    TooLong(String),
}

impl RelativePath {
    /// Takes a path as archives and people write it: `./` and doubled or trailing slashes are dropped.
    pub fn parse(text: &[u8]) -> Result<Self, UnsafePath> {
        if text.starts_with(b"/") {
            return Err(UnsafePath::Absolute(printable(text)));
        }
        let mut path = Self::default();
        for part in text.split(|byte| *byte == b'/') {
            if !matches!(part, b"" | b".") {
                path = path.join(part)?;
            }
        }
        Ok(path)
    }

    /// This path with one more component, which must be a plain file name.
    pub fn join(&self, name: &[u8]) -> Result<Self, UnsafePath> {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if matches!(name, b"" | b"." | b"..") {
            return Err(UnsafePath::Upwards(printable(&path)));
        }
        if name.contains(&b'/') {
            return Err(UnsafePath::Absolute(printable(&path)));
        }
        if name.contains(&0) {
            return Err(UnsafePath::Nul(printable(&path)));
        }
        if path.len() > MAX_PATH || name.len() > MAX_NAME {
            return Err(UnsafePath::TooLong(printable(&path)));
        }
        Ok(Self(path))
    }

    /// This path with `below` under it.
    pub fn append(&self, below: &Self) -> Result<Self, UnsafePath> {
        below.components().try_fold(self.clone(), |path, name| path.join(name))
    }

    /// The names from the root downwards; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The path as bytes, without a slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this path, and its name there; none for the root.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.0.is_empty() => None,
            None => Some((Self::default(), &self.0)),
        }
    }

    /// What remains below `directory`; the root when both are equal, none when this path is not within it.
    pub fn below(&self, directory: &Self) -> Option<Self> {
        if directory.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&directory.0[..])?;
        match rest.split_first() {
            None => Some(Self::default()),
            Some((b'/', rest)) => Some(Self(rest.to_vec())),
            Some(_) => None,
        }
    }

    /// What remains after the first `count` components; none when there are not more than that.
    pub fn strip(&self, count: u32) -> Option<Self> {
        let mut rest = &self.0[..];
        for _ in 0..count {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            rest = &rest[slash + 1..];
        }
        (!rest.is_empty()).then(|| Self(rest.to_vec()))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&printable(&self.0))
    }
}

/// Bytes from outside as one short line of text: control characters escaped, at most 200 characters.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line: String =
        text.chars().take(200).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if text.chars().nth(200).is_some() {
        line.push('…');
    }
    line
}

/// The up to three names nearest to `wanted`, or the first five of all when none is near: for "did you mean".
pub fn close_names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<&str> = names.collect();
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .map(|name| (distance(wanted, name), *name))
        .filter(|(distance, name)| *distance <= 1 + wanted.len().max(name.len()) / 3)
        .collect();
    near.sort_unstable();
    if near.is_empty() {
        return names.into_iter().take(5).map(String::from).collect();
    }
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance over bytes, of the first 100.
fn distance(left: &str, right: &str) -> usize {
    let right = &right.as_bytes()[..right.len().min(100)];
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, a) in left.bytes().take(100).enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// An http(s) address without user name, password or fragment. Its text leaves out the query, which may be a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl(Url);

/// Why an address is refused. The address itself is not quoted when it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an URL, or one without a host.
    #[error("`{0}` is not an address, expected https://host/path")]
    Malformed(String),
    /// Neither http nor https.
    #[error("addresses with `{0}` are not supported, expected https://host/path")]
    Scheme(String),
    /// A user name or password in the address.
    #[error("the address at host `{0}` has a user name or password in it, use a Secret instead")]
    Userinfo(String),
}

impl SourceUrl {
    /// Takes an address as users write it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        // scp-like addresses (`git@host:path`) are no URLs at all; say what is meant instead of "relative URL without a base".
        let scp = !text.contains("://") && text.split('/').next().is_some_and(|head| head.contains(':'));
        if scp {
            return Err(UrlError::Scheme("ssh".into()));
        }
        // What does not parse may still hold a password, so only its head is shown.
        let malformed = || UrlError::Malformed(printable(text.rsplit('@').next().unwrap_or_default().as_bytes()));
        let mut url = Url::parse(text).map_err(|_| malformed())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlError::Scheme(url.scheme().to_owned()));
        }
        let host = url.host_str().ok_or_else(malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Userinfo(host.to_owned()));
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// The address for the HTTP client.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Where a `Location` header leads to from here.
    pub fn redirect(&self, location: &str) -> Result<Self, UrlError> {
        let target = self.0.join(location).map_err(|_| UrlError::Malformed(printable(location.as_bytes())))?;
        Self::parse(target.as_str())
    }

    /// Whether going from here to `target` would give up encryption.
    pub fn is_downgrade(&self, target: &Self) -> bool {
        self.0.scheme() == "https" && target.0.scheme() != "https"
    }

    /// The server: scheme, host and port.
    pub fn server(&self) -> Server {
        Server {
            scheme: self.0.scheme().to_owned(),
            host: self.0.host_str().unwrap_or_default().to_owned(),
            port: self.0.port_or_known_default().unwrap_or_default(),
        }
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        formatter.write_str(&printable(shown.as_str().as_bytes()))
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Scheme, host and port: what a credential is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    scheme: String,
    host: String,
    port: u16,
}

/// A credential together with the only server that it may be sent to, so that neither travels alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCredential {
    server: Server,
    credential: Credential,
}

/// What a source Secret holds. Its text never shows the secret part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `username` and `password`, as in `kubernetes.io/basic-auth`.
    Basic {
        /// Sent in the clear by HTTP basic authentication, as is the password.
        username: String,
        /// Password or access token.
        password: Secret,
    },
    /// `token`: an access token; Git servers take it as the password of any user, others as a bearer token.
    Token(Secret),
    /// `bearerToken`: always sent as a bearer token.
    Bearer(Secret),
}

/// What is asked for; Git servers and others want access tokens in different forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Git over HTTP.
    Git,
    /// A plain download.
    Download,
}

/// Why a source Secret is of no use. Names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// None of the known keys.
    #[error("the source's Secret has none of the keys `username` and `password`, `token` or `bearerToken`")]
    NoKeys,
    /// Keys for ssh only.
    #[error("the source's Secret holds an ssh key, but sources are fetched over https: use `username` and `password`, or `token`")]
    Ssh,
    /// A value that cannot be sent.
    #[error("key `{0}` of the source's Secret is empty or holds characters that cannot be sent")]
    Value(&'static str),
    /// The host that credentials are for is not written as one.
    #[error("`{0}` does not name the host that credentials are for, expected scheme and host as in https://git.example.com")]
    Server(String),
}

impl Credential {
    /// Reads a Secret's keys.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CredentialError> {
        let value = |key: &'static str| -> Result<Option<String>, CredentialError> {
            let Some(bytes) = data.get(key) else { return Ok(None) };
            // Secrets made with `--from-file` end with a line break.
            let text = std::str::from_utf8(bytes).map_err(|_| CredentialError::Value(key))?.trim_end_matches(['\r', '\n']);
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err(CredentialError::Value(key));
            }
            Ok(Some(text.to_owned()))
        };
        if let Some(token) = value("bearerToken")? {
            return Ok(Self::Bearer(Secret::new(token)));
        }
        let username = value("username")?;
        if username.as_ref().is_some_and(|name| name.contains(':')) {
            return Err(CredentialError::Value("username"));
        }
        match (username, value("password")?, value("token")?) {
            (username, Some(password), _) => Ok(Self::basic(username, password)),
            (Some(username), None, Some(token)) => Ok(Self::basic(Some(username), token)),
            (None, None, Some(token)) => Ok(Self::Token(Secret::new(token))),
            (_, None, None) if data.contains_key("ssh-privatekey") || data.contains_key("identity") => {
                Err(CredentialError::Ssh)
            }
            (_, None, None) => Err(CredentialError::NoKeys),
        }
    }

    fn basic(username: Option<String>, password: String) -> Self {
        // GitHub, GitLab and Gitea take an access token with any user name.
        Self::Basic { username: username.unwrap_or_else(|| "git".into()), password: Secret::new(password) }
    }

    /// The value of the `Authorization` header.
    fn authorization(&self, purpose: Purpose) -> Secret {
        let basic = |username: &str, password: &Secret| {
            Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
        };
        match (self, purpose) {
            (Self::Basic { username, password }, _) => basic(username, password),
            (Self::Token(token), Purpose::Git) => basic("git", token),
            (Self::Token(token), Purpose::Download) | (Self::Bearer(token), _) => {
                Secret::new(format!("Bearer {}", token.expose()))
            }
        }
    }
}

impl ServerCredential {
    /// Binds a credential to `server`, written `https://host[:port]`.
    pub fn new(server: &str, credential: Credential) -> Result<Self, CredentialError> {
        let refuse = |_| CredentialError::Server(printable(server.rsplit('@').next().unwrap_or_default().as_bytes()));
        Ok(Self { server: SourceUrl::parse(server).map_err(refuse)?.server(), credential })
    }

    /// The `Authorization` header for `url`; none when the credential is for another server.
    pub fn authorization_for(&self, url: &SourceUrl, purpose: Purpose) -> Option<Secret> {
        (url.server() == self.server).then(|| self.credential.authorization(purpose))
    }
}

/// The identity of a ConfigMap's content; `data` holds the bytes of `data` and `binaryData` together.
pub fn config_map_digest(data: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut hasher = DigestHasher::default();
    hasher.update(b"minimalimage configmap 1\n");
    for (key, value) in data {
        // Lengths go first so that no two ConfigMaps run together to the same bytes.
        for part in [key.as_bytes(), value] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
    }
    hasher.finish()
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
