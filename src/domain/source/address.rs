//! Where sources are: http(s) addresses without secrets in them, and the servers that credentials are bound to.

use std::fmt;

use url::Url;

use crate::domain::text::printable;

/// An http(s) address without user name, password or fragment. Its text leaves out the query, which may be a signature.
// Boxed because every error carries one.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl(Box<Url>);

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
        Ok(Self(Box::new(url)))
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

    /// The address `path` further down, with `query` in place of any other.
    #[must_use]
    pub fn further(&self, path: &str, query: Option<&str>) -> Self {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        Self(url)
    }

    /// The address that [`SourceUrl::further`] made this one of with `path`; none if it was not made so.
    pub fn nearer(&self, path: &str) -> Option<Self> {
        let mut url = self.0.clone();
        url.set_path(self.0.path().strip_suffix(path)?.strip_suffix('/')?);
        url.set_query(None);
        Some(Self(url))
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
