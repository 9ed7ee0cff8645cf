//! What can go wrong while a source is fetched. Messages name addresses without their query, never quote foreign servers.

use std::{io, path::PathBuf};

use crate::domain::{
    archive, git,
    source::{CredentialError, SourceUrl, UnsafePath, UrlError},
    task::FailureReason,
    value::Digest,
};
use crate::shell::net::AddressRefused;

/// Why a source could not be resolved or fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address is none that we fetch from.
    #[error("unable to use the source's address: {0}")]
    Url(#[from] UrlError),
    /// A submodule's address is none that we fetch from.
    #[error("unable to use the address of submodule `{path}`: {cause}")]
    SubmoduleUrl {
        /// Where it is in the source.
        path: String,
        /// What is wrong with it.
        cause: UrlError,
    },
    /// The Secret is of no use.
    #[error("unable to use the source's credentials: {0}")]
    Credential(#[from] CredentialError),
    /// No answer.
    #[error("failed to reach {url}")]
    Unreachable {
        /// What was asked.
        url: SourceUrl,
        /// The client's error, without its address.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server's address must not be reached.
    #[error(transparent)]
    Address(#[from] AddressRefused),
    /// The server stopped sending, or all of it took too long.
    #[error("failed to fetch {url}: {what}")]
    TooSlow {
        /// What was asked.
        url: SourceUrl,
        /// Which patience ended.
        what: String,
    },
    /// Credentials are wanted or were refused.
    #[error("failed to fetch {url}: the server answered {status}; {advice}")]
    AccessDenied {
        /// What was asked.
        url: SourceUrl,
        /// 401, 403 or 407.
        status: u16,
        /// What to do about it.
        advice: &'static str,
    },
    /// Any other bad status.
    #[error("failed to fetch {url}: the server answered {status}{advice}")]
    Status {
        /// What was asked.
        url: SourceUrl,
        /// The status.
        status: u16,
        /// What to do about it.
        advice: &'static str,
    },
    /// A redirect that is not followed.
    #[error("failed to fetch {url}: the server redirects {why}")]
    Redirect {
        /// What was asked.
        url: SourceUrl,
        /// Why it is not followed.
        why: &'static str,
    },
    /// The server speaks HTTP, but not Git, or not in a way we know.
    #[error("failed to fetch {url}: {what}")]
    Protocol {
        /// What was asked.
        url: SourceUrl,
        /// What was wrong with the answer.
        what: &'static str,
    },
    /// The branch, tag or HEAD is not there.
    #[error("unable to find {reference} in {url}")]
    NoSuchRef {
        /// The repository.
        url: SourceUrl,
        /// `branch main`, as users think of it.
        reference: String,
    },
    /// A branch, tag or commit is not written as one.
    #[error("unable to use the commit: {0}")]
    Commit(#[from] git::ParseObjectIdError),
    /// The commit is not there or not given out.
    #[error("unable to fetch commit {commit} from {url}: {why}")]
    NoSuchCommit {
        /// The repository.
        url: SourceUrl,
        /// The commit.
        commit: git::Commit,
        /// What was tried, what to do.
        why: &'static str,
    },
    /// The pack does not hold what was asked for, or is broken.
    #[error("failed to read the pack from {url}")]
    Pack {
        /// The repository.
        url: SourceUrl,
        /// What gix says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object is missing in the pack or is of another kind.
    #[error("failed to read object {id} of {url}: {what}")]
    Object {
        /// The repository.
        url: SourceUrl,
        /// The object.
        id: git::ObjectId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Submodules are nested too deep or too many, or one is not declared.
    #[error("unable to fill submodule `{path}`: {why}")]
    Submodule {
        /// Where it is in the source.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The download is not what was declared.
    #[error(
        "failed to verify {url}: expected {expected}, got {found}; declare the new digest if the change is intended"
    )]
    Digest {
        /// What was fetched.
        url: SourceUrl,
        /// As declared.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The archive is of no known kind or broken.
    #[error("unable to unpack {url}: {what}")]
    Archive {
        /// What was fetched.
        url: SourceUrl,
        /// What is wrong with it.
        what: String,
    },
    /// A path in the source is not safe.
    #[error("unable to unpack the source: path {0}")]
    UnsafePath(#[from] UnsafePath),
    /// An entry is not allowed.
    #[error("unable to unpack the source: `{path}` {why}")]
    Entry {
        /// Which.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// More than the limits allow.
    #[error("unable to take the source: it has more than {limit} {what}; the operator's limits can be raised")]
    TooLarge {
        /// How many.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// The directory is not in the source.
    #[error("unable to find directory `{directory}` in the source{}", suggestion(.close))]
    NoSuchDirectory {
        /// As asked for.
        directory: String,
        /// Names like it, or names that are there.
        close: Vec<String>,
    },
    /// The ConfigMap was changed after the operator looked at it.
    #[error(
        "unable to use the ConfigMap: it changed meanwhile, expected {expected}, found {found}; it is built again as it is now"
    )]
    ConfigMapChanged {
        /// What the operator saw.
        expected: Digest,
        /// What is mounted.
        found: Digest,
    },
    /// A local file could not be read or written.
    #[error("failed to access {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread of ours ended early.
    #[error("failed to finish the fetch: {0}")]
    Thread(&'static str),
}

fn suggestion(close: &[String]) -> String {
    if close.is_empty() { String::new() } else { format!("; there are: {}", close.join(", ")) }
}

impl SourceError {
    /// The reason for status, metrics and retries.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Unreachable { .. }
            | Self::TooSlow { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::Pack { .. } => FailureReason::SourceUnavailable,
            Self::AccessDenied { .. } | Self::Credential(_) => FailureReason::SourceAccessDenied,
            Self::Url(_)
            | Self::Address(_)
            | Self::SubmoduleUrl { .. }
            | Self::Redirect { .. }
            | Self::NoSuchRef { .. }
            | Self::Commit(_)
            | Self::NoSuchCommit { .. }
            | Self::Object { .. }
            | Self::Submodule { .. }
            | Self::Digest { .. }
            | Self::Archive { .. }
            | Self::UnsafePath(_)
            | Self::Entry { .. }
            | Self::TooLarge { .. }
            | Self::NoSuchDirectory { .. }
            | Self::ConfigMapChanged { .. } => FailureReason::SourceInvalid,
            Self::File { .. } | Self::Thread(_) => FailureReason::Internal,
        }
    }

    /// The error when a selection's directory never appeared.
    pub(super) fn missing<'a>(selection: &archive::Selection, others: impl Iterator<Item = &'a str>) -> Self {
        let directory = selection.directory().to_string();
        let close = crate::domain::source::close_names(&directory, others);
        Self::NoSuchDirectory { directory, close }
    }
}
