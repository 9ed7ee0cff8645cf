//! What ADD takes from servers, named so that it can only ever be one thing: a file by its digest, a tree by its commit.

use serde::{Deserialize, Serialize};

use super::{
    task::{Origin, SourceTask},
    value::Digest,
};

/// One thing from a server. Nobody's credentials are sent for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Remote {
    /// A file over http(s).
    File {
        /// Where it is.
        url: String,
        /// What it must hash to.
        digest: Digest,
        /// What it is called.
        name: String,
    },
    /// The tree of a commit, or a directory of it.
    Git {
        /// The repository.
        url: String,
        /// The commit's full SHA-1.
        commit: String,
        /// Whether submodules are filled.
        submodules: bool,
        /// The directory below the tree's root; empty for all.
        directory: String,
    },
}

impl Remote {
    /// What an agent fetches for it.
    #[must_use]
    pub fn task(&self) -> SourceTask {
        match self.clone() {
            Self::File { url, digest, name } => {
                SourceTask { origin: Origin::File { url, digest, name }, directory: String::new() }
            }
            Self::Git { url, commit, submodules, directory } => {
                SourceTask { origin: Origin::Git { url, commit, submodules, credential_host: None }, directory }
            }
        }
    }
}
