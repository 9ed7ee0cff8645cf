//! `MinimalImage` in `minimalimage.dev/v1alpha1`. Field docs are user docs: `kubectl explain` prints them.

mod base;
mod dockerfile;
mod image;
mod source;
mod stage;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use base::{Base, Distribution, ImageBase, PackagesBase, Pocket, RuntimeBase, ScratchBase, ScriptPolicy};
pub use dockerfile::{BuildArgument, BuildSecret, DockerfileSpec, SnapshotPolicy, SnapshotSpec, StagePod};
pub use image::{Copy, File, ImageSpec, Include, LiteralVariable, Port, Protocol};
pub use source::{
    ConfigMapSource, GitReference, GitSource, HttpSource, InlineFile, InlineSource, LocalReference, Source,
};
pub use stage::{Cache, ClaimReference, EnvVar, EnvVarSource, KeySelector, Stage};
pub use status::{
    BaseStatus, Build, BuildReason, DebugStatus, FileStatus, ImageStatus, LayerStatus, PinnedImage, PlatformStatus,
    Progress, SnapshotFailure, SourceStatus, StageState, StageStatus, Status, SuiteStatus,
};

/// Set this annotation to a new value to build now, whatever the interval.
pub const REQUESTED_AT: &str = "minimalimage.dev/requestedAt";
/// Like [`REQUESTED_AT`], and every stage runs again though its artifact is known.
pub const NO_CACHE_REQUESTED_AT: &str = "minimalimage.dev/noCacheRequestedAt";
/// Flux's spelling of [`REQUESTED_AT`].
pub const FLUX_REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// A small, safe container image built from source: builder stages run as plain Jobs, only the files named here leave
/// them, and the final image is put together in the registry.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "minimalimage.dev",
    version = "v1alpha1",
    kind = "MinimalImage",
    plural = "minimalimages",
    shortname = "mimg",
    category = "images",
    namespaced,
    status = "Status",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.image.displaySize"),
    printcolumn(name = "Builder", type_ = "string", json_path = ".status.builderDisplaySize"),
    printcolumn(name = "Base", type_ = "string", json_path = ".status.base.displayName"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.image.displayDigest"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspend", type_ = "boolean", priority = 1, json_path = ".spec.suspend"),
    printcolumn(name = "Revision", type_ = "string", priority = 1, json_path = ".status.source.revision"),
    printcolumn(name = "Image", type_ = "string", priority = 1, json_path = ".status.image.reference"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.stages) || !self.stages.exists(s, s.name == 'source')").message("the stage name `source` is reserved for the source itself; choose another"), validation = Rule::new("!(has(self.stages) && has(self.dockerfile))").message("give either stages or dockerfile, not both"), validation = Rule::new("has(self.dockerfile) || has(self.image.copy) || has(self.image.files) || has(self.image.include) || has(self.image.base.image) || has(self.image.base.packages) || has(self.image.base.runtime)").message("image: give copy, files, include or a base; without any of them it would be empty"), validation = Rule::new("!has(self.dockerfile) || !(has(self.image.copy) || has(self.image.include) || has(self.image.certificates) || has(self.image.base.image) || has(self.image.base.scratch) || has(self.image.base.packages) || has(self.image.base.runtime) || has(self.image.command) || has(self.image.args) || has(self.image.env) || has(self.image.workingDir) || has(self.image.user) || has(self.image.ports) || has(self.image.volumes) || has(self.image.stopSignal))").message("with dockerfile only labels, annotations, files and debug of image can be given; the rest comes from the Dockerfile"))]
pub struct MinimalImageSpec {
    /// How often a branch, a tag and the tags of builder and base images are looked at for something newer, with some
    /// jitter. Sources and images that are pinned by commit or digest are never polled, but for the tag of a base given as TAG@DIGEST.
    /// Default: 10m. Example: 1h.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "duration_schema")]
    pub interval: String,

    /// Stops new builds and polling; what was built stays. A running build is ended. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// Where the files come from that stages build and that the image may copy. Default: no source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// Secrets (kubernetes.io/dockerconfigjson) of this namespace for pulling builder and base images.
    /// Example: [{name: registry-login}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// ServiceAccount of the build Pods. Its API token is never mounted; its image pull secrets are used where
    /// `imagePullSecrets` names none. Default: the namespace's default ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Builder stages. Each is one Pod of its builder image; stages that do not copy from each other run side by side.
    /// Default: none, then the image holds only files of the source and of `image.files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub stages: Vec<Stage>,

    /// A Dockerfile in place of `stages`; of `image` only labels, annotations, files and debug can then be given.
    /// Example: {path: Dockerfile, target: release}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<DockerfileSpec>,

    /// The final image: what it starts from, what is copied into it, how it runs.
    #[serde(default)]
    pub image: ImageSpec,

    /// The platform that stages run on and that the image is for; the operator's own image must be for it too.
    /// Default: [linux/amd64].
    #[serde(default = "default_platforms")]
    #[schemars(length(min = 1, max = 1), inner(length(max = 32), regex(pattern = r"^linux/[a-z0-9]+(/[a-z0-9]+)?$")))]
    pub platforms: Vec<String>,

    /// Where the image is pushed.
    pub destination: Destination,

    /// Where stage artifacts are kept. Default: the destination's repository with `-cache` appended, with the
    /// destination's Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheRepository>,

    /// The Pod Security Standard that build Pods keep. Restricted: they run as user 65532, files can only be put below
    /// /workspace, /tmp and /home/build. Baseline: the builder image's own user, which is usually root in the
    /// container; stages of a Dockerfile start as root, as Docker has it. Default: Restricted, with `dockerfile` Baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,

    /// What happens when the image's program could not start, as its files and those of its base tell before anything is
    /// pushed: a library that is missing or too old, another architecture, no interpreter, a file that may not be executed.
    /// Enforce: no image is pushed; what is wrong with other files is a warning. Strict: no image is pushed when any program
    /// or library of the artifacts could not be loaded. Warn: only Events and `status.image.warnings` tell. Off: nothing is
    /// looked at. An entrypoint that comes from a volume needs Warn. Default: Enforce.
    #[serde(default)]
    pub preflight: Preflight,

    /// How many successful builds `status.history` remembers. Default: 10.
    #[serde(default = "default_successful_history")]
    #[schemars(range(min = 0, max = 50))]
    pub successful_history_limit: u32,

    /// How many failed builds `status.history` remembers. Default: 5.
    #[serde(default = "default_failed_history")]
    #[schemars(range(min = 0, max = 50))]
    pub failed_history_limit: u32,
}

impl MinimalImageSpec {
    /// The login for the cache repository: its own, else the destination's.
    #[must_use]
    pub fn cache_secret(&self) -> Option<&LocalReference> {
        let own = self.cache.as_ref().and_then(|cache| cache.secret_ref.as_ref());
        own.or(self.destination.secret_ref.as_ref())
    }
}

/// Where the image is pushed.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Repository with its registry, without a tag. Example: ghcr.io/acme/simplecal.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.contains('@') && !self.matches(':[^/]*$')").message("give the repository without a tag or digest; tags belong in destination.tags"))]
    pub repository: String,

    /// Tags that the image gets. `$(commit)`, `$(commitShort)` (12 digits), `$(timestamp)` (the build's start in UTC,
    /// as 20260131T235959Z) and `$(generation)` are replaced; an unknown name is an error. A change here alone pushes
    /// tags without building. A tag is whose image was pushed last: two MinimalImages should not share one.
    /// Default: [latest]. Example: [latest, "$(commit)"].
    #[serde(default = "default_tags")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,

    /// Secret (kubernetes.io/dockerconfigjson) of this namespace for pushing. Default: push without a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// Where stage artifacts are kept.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheRepository {
    /// Repository with its registry, without a tag. On the destination's registry, layers are mounted from here
    /// without being sent again. Example: ghcr.io/acme/cache.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,

    /// Secret (kubernetes.io/dockerconfigjson) of this namespace for this repository. Default: the destination's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// The Pod Security Standard that build Pods keep. Restricted: they run as user 65532, files can only be put below
/// /workspace, /tmp and /home/build. Baseline: the builder image's own user, which is usually root in the container; stages
/// of a Dockerfile start as root, as Docker has it. Default: Restricted, with `dockerfile` Baseline.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodSecurity {
    /// Passes the `restricted` standard: user 65532, no capabilities, seccomp.
    Restricted,
    /// Passes the `baseline` standard: the builder image's user, still without privilege.
    Baseline,
}

/// What happens when the image's program could not start, as its files and those of its base tell before anything is
/// pushed: a library that is missing or too old, another architecture, no interpreter, a file that may not be executed.
/// An entrypoint that comes from a volume needs Warn. Default: Enforce.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Preflight {
    /// No image is pushed whose program cannot start; what is wrong with other files is a warning.
    #[default]
    Enforce,
    /// The same for all programs and libraries of the artifacts.
    Strict,
    /// Everything is a warning.
    Warn,
    /// Nothing is looked at.
    Off,
}

fn default_interval() -> String {
    "10m".into()
}

fn default_platforms() -> Vec<String> {
    vec!["linux/amd64".into()]
}

fn default_tags() -> Vec<String> {
    vec!["latest".into()]
}

fn default_successful_history() -> u32 {
    10
}

fn default_failed_history() -> u32 {
    5
}

/// Go's notation of a duration, as Kubernetes resources write it: `90s`, `10m`, `1h30m`.
fn duration_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$", "maxLength": 32})
}

fn optional_duration_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "nullable": true, "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$", "maxLength": 32})
}
