//! `spec.source` parsed: what to resolve and what to fetch.

use std::collections::BTreeMap;

use crate::{
    api::v1alpha1::Source,
    domain::{task::Origin, value::Digest},
};

use super::Problems;

/// Together, inline files must fit into a task, which is one environment variable of the agent.
const INLINE_BYTES: usize = 64 * 1024;

/// Where files come from, not yet resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePlan {
    /// What kind, with its parameters.
    pub kind: SourceKind,
    /// The directory below its root; empty for all.
    pub directory: String,
}

/// The kinds of sources.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// A Git repository.
    Git {
        /// Its address.
        url: String,
        /// What is checked out.
        target: GitTarget,
        /// Whether submodules are filled.
        submodules: bool,
        /// Name of the Secret with credentials.
        secret: Option<String>,
    },
    /// An archive.
    Http {
        /// Its address.
        url: String,
        /// What it hashes to.
        digest: Digest,
        /// Leading path components that are dropped.
        strip_components: u32,
        /// Name of the Secret with credentials.
        secret: Option<String>,
    },
    /// A ConfigMap.
    ConfigMap {
        /// Its name.
        name: String,
    },
    /// Files of the spec.
    Inline {
        /// Path to content.
        files: BTreeMap<String, String>,
    },
}

/// What of a Git repository is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitTarget {
    /// The default branch.
    Head,
    /// A branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A full commit ID.
    Commit(String),
}

impl SourcePlan {
    /// The revision, where the spec alone says it.
    #[must_use]
    pub fn pinned_revision(&self) -> Option<String> {
        match &self.kind {
            SourceKind::Git { target: GitTarget::Commit(commit), .. } => Some(commit.clone()),
            SourceKind::Git { .. } | SourceKind::ConfigMap { .. } => None,
            SourceKind::Http { digest, strip_components, .. } => Some(format!("{digest}+{strip_components}")),
            SourceKind::Inline { files } => {
                Some(Digest::of(&serde_json::to_vec(files).unwrap_or_default()).to_string())
            }
        }
    }

    /// What exactly of the source the steps can see at `revision`, as far as that is known without fetching it.
    #[must_use]
    pub fn identity(&self, revision: &str) -> String {
        let submodules = matches!(self.kind, SourceKind::Git { submodules: true, .. });
        format!("{revision} submodules={submodules} directory={}", self.directory)
    }

    /// Whether its revision is a commit.
    #[must_use]
    pub fn is_git(&self) -> bool {
        matches!(self.kind, SourceKind::Git { .. })
    }

    /// Name of the Secret that the agent needs to fetch it.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        match &self.kind {
            SourceKind::Git { secret, .. } | SourceKind::Http { secret, .. } => secret.as_deref(),
            SourceKind::ConfigMap { .. } | SourceKind::Inline { .. } => None,
        }
    }

    /// What the agent fetches at `revision`; `credential_host` is what the Secret's annotation allows.
    ///
    /// None when `revision` is not of this source's kind.
    #[must_use]
    pub fn origin(&self, revision: &str, credential_host: Option<&str>) -> Option<Origin> {
        let credential_host = credential_host.map(str::to_owned);
        Some(match &self.kind {
            SourceKind::Git { url, submodules, .. } => {
                Origin::Git { url: url.clone(), commit: revision.to_owned(), submodules: *submodules, credential_host }
            }
            SourceKind::Http { url, digest, strip_components, .. } => {
                Origin::Http { url: url.clone(), digest: *digest, strip_components: *strip_components, credential_host }
            }
            SourceKind::ConfigMap { .. } => Origin::ConfigMap { digest: revision.parse().ok()? },
            SourceKind::Inline { files } => Origin::Inline { files: files.clone() },
        })
    }
}

pub(super) fn plan(source: &Source, problems: &mut Problems) -> Option<SourcePlan> {
    let directory = source.directory.as_deref().unwrap_or_default().trim_matches('/');
    let directory = if directory == "." { "" } else { directory.trim_start_matches("./") };
    if directory.split('/').any(|part| part == "..") {
        problems.add("source.directory", "`..` is not possible, give a path below the source's root");
    }
    let secret = |reference: &Option<crate::api::v1alpha1::LocalReference>| reference.as_ref().map(|r| r.name.clone());
    let kind = if let Some(git) = &source.git {
        let reference = git.reference.clone().unwrap_or_default();
        let target = match (reference.branch, reference.tag, reference.commit) {
            (None, None, None) => GitTarget::Head,
            (Some(branch), None, None) => GitTarget::Branch(branch),
            (None, Some(tag), None) => GitTarget::Tag(tag),
            (None, None, Some(commit)) => GitTarget::Commit(commit),
            _ => {
                problems.add("source.git.ref", "give one of branch, tag and commit");
                return None;
            }
        };
        let (url, secret) = (git.url.clone(), secret(&git.secret_ref));
        SourceKind::Git { url, target, submodules: git.submodules, secret }
    } else if let Some(http) = &source.http {
        let digest = problems.take("source.http.digest", http.digest.parse())?;
        let (url, secret) = (http.url.clone(), secret(&http.secret_ref));
        SourceKind::Http { url, digest, strip_components: http.strip_components, secret }
    } else if let Some(config_map) = &source.config_map {
        SourceKind::ConfigMap { name: config_map.name.clone() }
    } else if let Some(inline) = &source.inline {
        let files = inline.by_path();
        let bytes: usize = files.iter().map(|(path, content)| path.len() + content.len()).sum();
        if bytes > INLINE_BYTES {
            problems.add(
                "source.inline.files",
                format!("{bytes} bytes are too many, expected at most {INLINE_BYTES}: use a ConfigMap or Git"),
            );
        }
        SourceKind::Inline { files }
    } else {
        problems.add("source", "give exactly one of git, http, configMap and inline");
        return None;
    };
    Some(SourcePlan { kind, directory: directory.to_owned() })
}
