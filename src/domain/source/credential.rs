//! What source Secrets hold, and to whom it may be said.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Server, SourceUrl};
use crate::domain::{text::printable, value::Secret};

/// A credential together with the only server that it may be sent to, so that neither travels alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCredential {
    server: Server,
    credential: SourceCredential,
}

/// What a source Secret holds. Its text never shows the secret part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceCredential {
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
    #[error(
        "the source's Secret holds an ssh key, but sources are fetched over https: use `username` and `password`, or `token`"
    )]
    Ssh,
    /// A value that cannot be sent.
    #[error("key `{0}` of the source's Secret is empty or holds characters that cannot be sent")]
    Value(&'static str),
    /// The host that credentials are for is not written as one.
    #[error(
        "`{0}` does not name the host that credentials are for, expected scheme and host as in https://git.example.com"
    )]
    Server(String),
}

impl SourceCredential {
    /// Reads a Secret's keys.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CredentialError> {
        let value = |key: &'static str| -> Result<Option<String>, CredentialError> {
            let Some(bytes) = data.get(key) else { return Ok(None) };
            // Secrets made with `--from-file` end with a line break.
            let text =
                std::str::from_utf8(bytes).map_err(|_| CredentialError::Value(key))?.trim_end_matches(['\r', '\n']);
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
    pub(super) fn authorization(&self, purpose: Purpose) -> Secret {
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
    pub fn new(server: &str, credential: SourceCredential) -> Result<Self, CredentialError> {
        let refuse = |_| CredentialError::Server(printable(server.rsplit('@').next().unwrap_or_default().as_bytes()));
        Ok(Self { server: SourceUrl::parse(server).map_err(refuse)?.server(), credential })
    }

    /// The `Authorization` header for `url`; none when the credential is for another server.
    pub fn authorization_for(&self, url: &SourceUrl, purpose: Purpose) -> Option<Secret> {
        (url.server() == self.server).then(|| self.credential.authorization(purpose))
    }
}
