//! Why a registry did not do what was asked, in words for people and in kinds for programs.
//! Quotes nothing of a registry's answer but the code and message of its OCI error list.

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde::Deserialize;

use crate::{
    api::conditions::Reason,
    domain::text::printable,
    shell::net::{self, AddressRefused, NetError},
};

/// A failure; the message names the reference.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry has no such manifest, blob or repository.
    #[error("unable to find {what}{said}")]
    NotFound {
        /// The reference.
        what: String,
        /// The registry's own words, in parentheses, or nothing.
        said: String,
    },
    /// The registry or its token server refuses the credentials, or wants some.
    #[error("unable to access {what}: {problem}{said}")]
    AccessDenied {
        /// The reference.
        what: String,
        /// Who refused what.
        problem: String,
        /// The registry's own words, in parentheses, or nothing.
        said: String,
    },
    /// The registry cannot be reached, is overloaded or failed, also after some retries.
    #[error("failed to reach the registry for {what}: {problem}")]
    Unavailable {
        /// The reference.
        what: String,
        /// What happened last.
        problem: String,
        /// When the registry wants to be asked again.
        retry_after: Option<Duration>,
        /// The transport's own error.
        #[source]
        source: Option<NetError>,
    },
    /// The registry forgot a half-done upload: it has to be done again from its first byte.
    #[error("failed to upload to {what}: the registry lost the upload, which must start again")]
    UploadLost {
        /// The repository.
        what: String,
    },
    /// The answer is not what was asked for: wrong digest, too large, malformed, or a refusal of the request itself.
    #[error("unable to use {what}: {problem}")]
    Invalid {
        /// The reference.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The host's address is one that must not be reached.
    #[error("unable to reach the registry for {what}")]
    AddressRefused {
        /// The reference.
        what: String,
        /// Host, address, and how to allow it.
        #[source]
        source: AddressRefused,
    },
}

impl RegistryError {
    /// The kind of failure as conditions say it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::ImageNotFound,
            Self::AccessDenied { .. } => Reason::RegistryAccessDenied,
            Self::Unavailable { .. } | Self::UploadLost { .. } => Reason::RegistryUnavailable,
            Self::Invalid { .. } | Self::AddressRefused { .. } => Reason::RegistryInvalid,
        }
    }

    /// Whether the same call may succeed later with nothing changed by people.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::UploadLost { .. } => true,
            Self::NotFound { .. } | Self::AccessDenied { .. } | Self::Invalid { .. } | Self::AddressRefused { .. } => {
                false
            }
        }
    }

    /// When the registry wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn invalid(what: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), problem: problem.into() }
    }

    pub(super) fn denied(what: &str, problem: impl Into<String>) -> Self {
        Self::AccessDenied { what: what.into(), problem: problem.into(), said: String::new() }
    }

    pub(super) fn net(what: &str, error: NetError) -> Self {
        let what = what.into();
        match error {
            NetError::AddressRefused(source) => Self::AddressRefused { what, source },
            NetError::Settings(problem) => Self::Invalid { what, problem },
            error if error.is_plain_answer() => {
                let problem = "the registry answers in plain http: say so, with plainHttp: true for its host among the \
                               operator's registries or in the --registries-file";
                Self::Invalid { what, problem: problem.into() }
            }
            error @ (NetError::Timeout { .. } | NetError::Transport { .. }) => {
                Self::Unavailable { what, problem: "no answer".into(), retry_after: None, source: Some(error) }
            }
        }
    }

    /// What an answer that is no success means.
    pub(super) async fn response(what: &str, mut response: Response) -> Self {
        let status = response.status();
        let retry_after = retry_after(&response);
        let said = read_errors(&mut response).await.said();
        let what = what.to_owned();
        match status {
            StatusCode::NOT_FOUND => Self::NotFound { what, said },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::AccessDenied { what, problem: format!("the registry answers {}", status.as_u16()), said }
            }
            status if is_transient(status) => Self::Unavailable {
                what,
                problem: format!("it answers {}{said}", status.as_u16()),
                retry_after,
                source: None,
            },
            status => Self::Invalid { what, problem: format!("the registry answers {}{said}", status.as_u16()) },
        }
    }
}

/// Answers after which the same request may succeed.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in seconds; the form with a date is left to our own delays.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The error list of the OCI distribution-spec ("Error Codes").
#[derive(Deserialize, Default)]
pub(super) struct ErrorList {
    #[serde(default)]
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The error list in a body; empty when it holds anything else.
pub(super) async fn read_errors(response: &mut Response) -> ErrorList {
    match net::read_at_most(response, 64 << 10).await {
        Ok(Some(body)) => serde_json::from_slice(&body).unwrap_or_default(),
        Ok(None) | Err(_) => ErrorList::default(),
    }
}

impl ErrorList {
    pub(super) fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code == code)
    }

    /// The first error's code and message, cut and cleaned; empty when there is none.
    fn said(&self) -> String {
        let Some(first) = self.errors.first() else { return String::new() };
        let text = format!("{} {}", first.code, first.message);
        let clean = printable(text.trim().as_bytes());
        if clean.is_empty() { clean } else { format!(" (the registry says: {clean})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_message_are_quoted_and_cut() {
        let list = |json: &str| serde_json::from_str::<ErrorList>(json).unwrap_or_default().said();
        assert_eq!(
            list(r#"{"errors":[{"code":"DENIED","message":"no\u0007 access","detail":"secret"}]}"#),
            " (the registry says: DENIED no\\u{7} access)"
        );
        assert_eq!(list("<html>secret</html>"), "");
        assert_eq!(list(r#"{"errors":[{"code":"","message":""}]}"#), "");
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "y".repeat(5000));
        assert_eq!(list(&long).len(), 200 + " (the registry says: )".len());
    }
}
