//! What the operator hands to the agent of one build Pod, and what the agent answers in its termination message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::conditions::Reason;

use super::{
    artifact::Layer,
    recipe::{Key, Recipe},
    snapshot::{Prefix, SnapshotTask},
    text::one_line,
    value::{Digest, Repository},
};

/// The environment variable of the agent container that holds the [`StageTask`] as JSON.
pub const TASK_VARIABLE: &str = "MINIMALIMAGE_TASK";
/// Name of the container that fetches, packs and uploads.
pub const AGENT_CONTAINER: &str = "agent";
/// Name of the container that runs user code.
pub const BUILD_CONTAINER: &str = "build";
/// The emptyDir that both containers share: the wrapper binary, the socket, generated passwd and group files.
pub const SHARED_DIR: &str = "/run/minimalimage";
/// Where the agent finds the source's credentials, one file per key of the Secret.
pub const SOURCE_SECRET_DIR: &str = "/run/secrets/minimalimage/source";
/// Where the agent finds `.dockerconfigjson` files, one directory per Secret.
pub const REGISTRY_SECRET_DIR: &str = "/run/secrets/minimalimage/registry";
/// Where the agent finds the source ConfigMap's keys as files.
pub const SOURCE_CONFIG_MAP_DIR: &str = "/run/minimalimage-source";
/// The agent's own scratch space, which the build container does not see.
pub const AGENT_WORK_DIR: &str = "/var/lib/minimalimage";

/// One stage to be run by one Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageTask {
    /// What is done; with the source's digest it gives the exact key.
    pub recipe: Recipe,
    /// Where the source comes from; none when the recipe does not use it.
    pub source: Option<SourceTask>,
    /// The layers behind the recipe's inputs, in its order; all of them in `cache`.
    pub inputs: Vec<Layer>,
    /// Where artifacts and records are.
    pub cache: Repository,
    /// Only records signed with this Ed25519 public key (base64) are believed.
    pub public_key: String,
    /// Run the steps even when the cache holds the exact key.
    pub no_cache: bool,
    /// The operator's network settings that also hold for the agent.
    pub network: Network,
    /// Bounds on everything that comes from outside.
    pub limits: Limits,
    /// Where its steps are written, for messages.
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    pub places: Places,
    /// Where each of the recipe's packages is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub package_urls: Vec<String>,
    /// Whether the build container gets the operator's CA certificates (as a file named by the usual variables).
    pub inject_ca: bool,
    /// What its build container starts from and what is kept of it.
    #[serde(default)]
    pub snapshots: SnapshotTask,
    /// What its caches in the cache repository are found by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Key>,
}

/// Where a stage of a Dockerfile is written, each place as `Dockerfile:12`; all empty for other stages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Places {
    /// By step.
    pub steps: Vec<String>,
    /// Who copies something out of the stage, by its source.
    pub sources: BTreeMap<String, String>,
}

impl Places {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.sources.is_empty()
    }

    /// A failure with the place of its step in front.
    #[must_use]
    pub fn at_step(&self, step: Option<usize>, failure: AgentFailure) -> AgentFailure {
        failure.at(step.and_then(|step| self.steps.get(step)))
    }

    /// A failure with the place of a copy out of the stage in front.
    #[must_use]
    pub fn at_any_source(&self, failure: AgentFailure) -> AgentFailure {
        failure.at(self.sources.values().next())
    }

    /// A failure with the place of the copy that takes `source` in front.
    #[must_use]
    pub fn at_source(&self, source: &str, failure: AgentFailure) -> AgentFailure {
        failure.at(self.sources.get(source))
    }
}

/// Where a source comes from, resolved: it names exactly one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceTask {
    /// What is fetched.
    pub origin: Origin,
    /// The directory below its root that is the source; nothing above it is visible. Empty for all.
    pub directory: String,
}

/// The kinds of sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Origin {
    /// One commit of a Git repository over http(s).
    Git {
        /// The repository.
        url: String,
        /// The commit's full SHA-1.
        commit: String,
        /// Whether submodules are filled, recursively.
        submodules: bool,
        /// The only scheme and host (`https://git.example.com`) that the mounted credentials may be sent to.
        credential_host: Option<String>,
    },
    /// An archive over http(s): tar, tar.gz, tar.xz, tar.zst or zip, told apart by content.
    Http {
        /// Where it is.
        url: String,
        /// What it must hash to.
        digest: Digest,
        /// Leading path components dropped from every entry.
        strip_components: u32,
        /// As for Git.
        credential_host: Option<String>,
    },
    /// One file over http(s), taken as it is. Credentials are sent to nobody.
    File {
        /// Where it is.
        url: String,
        /// What it must hash to.
        digest: Digest,
        /// What it is called in the source.
        name: String,
    },
    /// The keys of a ConfigMap, mounted at [`SOURCE_CONFIG_MAP_DIR`].
    ConfigMap {
        /// What the operator saw; a ConfigMap that changed since is a failure, not another build.
        digest: Digest,
    },
    /// Files given in the resource itself: path to content.
    Inline {
        /// Relative path to text.
        files: BTreeMap<String, String>,
    },
}

/// How registries and other servers are reached, by operator settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// By registry host as references name it (`host[:port]`).
    pub registries: BTreeMap<String, RegistrySettings>,
    /// CA certificates (PEM) trusted for every server beside the usual roots.
    pub ca_certificates: Option<String>,
    /// Address ranges (CIDR) that connections may reach although they are loopback or link-local.
    pub allowed_ranges: Vec<String>,
    /// Address ranges (CIDR) that connections must not reach, for example the API server.
    pub denied_ranges: Vec<String>,
}

/// How one registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// http instead of https. The host `localhost` and loopback addresses are plain http by default.
    pub plain_http: bool,
    /// CA certificates (PEM) trusted for this host.
    pub ca_certificates: Option<String>,
    /// Hosts asked first for reads, in order; a mirror that lacks the content is passed over.
    pub mirrors: Vec<String>,
}

/// Bounds, in bytes or counts, on what a stage may take in and give out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Uncompressed bytes of all artifact layers of one stage.
    pub artifact_bytes: u64,
    /// Files, directories and links in one artifact layer.
    pub artifact_entries: u64,
    /// Bytes of the source, unpacked.
    pub source_bytes: u64,
    /// Files, directories and links in the source.
    pub source_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { artifact_bytes: 10 << 30, artifact_entries: 1_000_000, source_bytes: 4 << 30, source_entries: 500_000 }
    }
}

/// What an agent took from its build container beside the outputs: layers of one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Digest of the artifact's manifest.
    pub artifact: Digest,
    /// What each layer is.
    pub numbers: Vec<usize>,
}

/// The agent's termination message: under 1 KiB, because all containers of a Pod share 12 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentMessage {
    /// Digest of the artifact manifest in the cache repository, when there is one.
    pub artifact: Option<Digest>,
    /// Content digest of what the steps saw of the source.
    pub source: Option<Digest>,
    /// When the source's revision was made, in seconds since 1970; commits alone say that.
    pub source_time: Option<i64>,
    /// Whether the artifact was there already and no step ran.
    pub cached: bool,
    /// What the steps before each cut took from the source, where they took anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// The snapshots that were made, by their cuts, of a stage that failed later too. Each is on top of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Sent>,
    /// The caches that are worth keeping, by their place in the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caches: Option<Sent>,
    /// Why there is no artifact.
    pub failure: Option<AgentFailure>,
    /// Where the time went.
    pub timings: Timings,
}

impl AgentMessage {
    /// The termination message: JSON of at most 1000 bytes; of a failure's message so much is cut.
    #[must_use]
    pub fn text(&self) -> String {
        let mut message = self.clone();
        loop {
            // Numbers, texts and enums: cannot fail.
            let text = serde_json::to_string(&message).unwrap_or_default();
            match &mut message.failure {
                Some(failure) if text.len() > 1000 && !failure.message.is_empty() => {
                    let mut end = failure.message.len().saturating_sub((text.len() - 1000).div_ceil(2));
                    while !failure.message.is_char_boundary(end) {
                        end -= 1;
                    }
                    failure.message.truncate(end);
                }
                _ => return text,
            }
        }
    }
}

impl AgentFailure {
    /// A failure without an exit code; control characters are escaped, over 500 bytes are cut.
    pub fn new(reason: FailureReason, message: impl AsRef<str>) -> Self {
        Self { reason, message: one_line(message.as_ref().as_bytes(), 500), exit_code: None }
    }

    fn at(self, place: Option<&String>) -> Self {
        match place {
            Some(place) => Self { message: format!("{place}: {}", self.message), ..self },
            None => self,
        }
    }
}

/// Why a stage gave no artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFailure {
    /// What kind of failure.
    pub reason: FailureReason,
    /// For people, with the next step; at most 500 bytes, no secrets, nothing quoted from foreign servers.
    pub message: String,
    /// The exit code of the failing step, where one failed; 128 + signal number when it was killed.
    pub exit_code: Option<i32>,
}

/// The kinds of failures that an agent tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// The source cannot be fetched now: network, server error. Trying again may help.
    SourceUnavailable,
    /// The server refused the credentials or wants some.
    SourceAccessDenied,
    /// The source is not as declared: wrong digest, no such directory, too large, unsafe paths.
    SourceInvalid,
    /// A package cannot be fetched now: network, server error, a mirror that is being updated. Trying again may help.
    ArchiveUnavailable,
    /// The packages do not make a base.
    BaseInvalid,
    /// The snapshot that the build container was started from was made from other files; no step ran.
    SnapshotOutdated,
    /// A registry cannot be reached or answers with errors. Trying again may help.
    RegistryUnavailable,
    /// A registry refused the credentials or wants some.
    RegistryAccessDenied,
    /// A step ended with a code other than 0.
    StepFailed,
    /// A declared artifact path does not exist after the steps.
    ArtifactPathMissing,
    /// The build container sent something that is not allowed: undeclared paths, devices, too much.
    ArtifactInvalid,
    /// The build container went away before it was done (killed, out of memory).
    BuildInterrupted,
    /// A fault of the agent itself.
    Internal,
}

impl FailureReason {
    /// The same as conditions say it. A fault of the agent's own is an interruption: another Pod may do better.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::SourceUnavailable => Reason::SourceUnavailable,
            Self::SourceAccessDenied => Reason::SourceAccessDenied,
            Self::SourceInvalid => Reason::SourceInvalid,
            Self::ArchiveUnavailable => Reason::ArchiveUnavailable,
            Self::BaseInvalid => Reason::BaseInvalid,
            Self::RegistryUnavailable => Reason::RegistryUnavailable,
            Self::RegistryAccessDenied => Reason::RegistryAccessDenied,
            Self::StepFailed => Reason::StageFailed,
            Self::ArtifactPathMissing => Reason::ArtifactPathMissing,
            Self::ArtifactInvalid => Reason::ArtifactInvalid,
            Self::BuildInterrupted | Self::Internal | Self::SnapshotOutdated => Reason::BuildInterrupted,
        }
    }
}

/// Milliseconds spent, for status and metrics; never part of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timings {
    /// Fetching the source and input artifacts.
    pub fetch: u64,
    /// From the first step's start to the last one's end.
    pub steps: u64,
    /// Packing, compressing and uploading, which happen in one pass.
    pub pack: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fit_into_a_kibibyte_whatever_they_say() {
        for text in ["short".to_owned(), "\u{1}\"\\".repeat(400), "ü".repeat(2000)] {
            let failure = AgentFailure { exit_code: Some(1), ..AgentFailure::new(FailureReason::Internal, text) };
            let digest = Some(Digest::of(b""));
            let prefixes = digest.map(|source| Prefix { step: usize::MAX, source });
            let message = AgentMessage {
                artifact: digest,
                source: digest,
                source_time: Some(i64::MAX),
                prefixes: prefixes.into_iter().cycle().take(3).collect(),
                snapshots: digest.map(|artifact| Sent { artifact, numbers: vec![usize::MAX; 3] }),
                caches: digest.map(|artifact| Sent { artifact, numbers: (0..16).collect() }),
                failure: Some(failure),
                ..AgentMessage::default()
            };
            assert!(message.text().len() <= 1000, "{}", message.text());
            assert!(serde_json::from_str::<AgentMessage>(&message.text()).is_ok());
        }
    }
}
