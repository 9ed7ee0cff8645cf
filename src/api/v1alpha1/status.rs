//! `status`: what was built, from what, and what is going on. Sizes are in bytes; display fields are for columns.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator last saw and did. The last good image stays here through later failures.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation of the spec that this status speaks of; -1 before the operator has seen the resource.
    pub observed_generation: i64,

    /// Ready: the image of the current spec is pushed. Reconciling: present and True while the operator works on it or
    /// will try again by itself. Stalled: present and True when a failure needs a change by a person.
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The value of the annotation minimalimage.dev/requestedAt that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_requested_at: Option<String>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt that was acted on last; `flux` looks for it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// The value of the annotation minimalimage.dev/noCacheRequestedAt that was acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_no_cache_requested_at: Option<String>,

    /// When that was acted on: no snapshot that is older is used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_no_cache_time: Option<Time>,

    /// When the tags and branches that the build depends on were looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<Time>,

    /// The last good image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,

    /// What that image starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseStatus>,

    /// The source that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,

    /// Uncompressed bytes of the largest builder image, which is what the image would start from without stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder_size: Option<i64>,

    /// `builderSize` for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder_display_size: Option<String>,

    /// The stages of the build in hand, or else of the last one.
    #[schemars(length(max = 129))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub stages: Vec<StageStatus>,

    /// The last time that a node could not start from a snapshot; for an hour none is used or made then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_failure: Option<SnapshotFailure>,

    /// The build in hand; absent when nothing is going on. It pins what the build resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// The last build that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_build: Option<Build>,

    /// Builds that ended, newest first, bounded by the history limits.
    #[schemars(length(max = 100))]
    pub history: Vec<Build>,
}

/// A snapshot that no container could be started from.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotFailure {
    /// What the node said.
    pub message: String,
    /// When.
    pub time: Time,
}

/// A pushed image.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// The image by digest, as a Pod would name it.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The digest's first digits, for columns.
    pub display_digest: String,
    /// The tags that were pushed.
    pub tags: Vec<String>,
    /// Uncompressed bytes: the base and the files of all layers.
    pub size: i64,
    /// `size` for people.
    pub display_size: String,
    /// Bytes of the compressed layers.
    pub compressed_size: i64,
    /// Regular files in the layers on top of the base.
    pub file_count: i64,
    /// The largest files in the layers on top of the base.
    #[schemars(length(max = 5))]
    pub largest_files: Vec<FileStatus>,
    /// The layers, lowest first.
    #[schemars(length(max = 127))]
    pub layers: Vec<LayerStatus>,
    /// What was pushed by platform.
    pub platforms: Vec<PlatformStatus>,
    /// The same image with a shell and tools, where `spec.image.debug` asks for it; its tags end in `-debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<DebugStatus>,
    /// Digest of the certificates that it trusts beside those of its base, as a PEM text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// What the preflight found doubtful: files of the image that could not be executed or loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub warnings: Vec<String>,
}

/// A debug image.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DebugStatus {
    /// It by digest, as a Pod would name it.
    pub reference: String,
    /// What its tools are of, as `name=version`.
    pub package: String,
}

/// One file.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileStatus {
    /// Path in the image.
    pub path: String,
    /// Bytes.
    pub size: i64,
}

/// One layer.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LayerStatus {
    /// Digest of the compressed layer.
    pub digest: String,
    /// Uncompressed bytes; absent for layers of an image base, which are never unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Compressed bytes.
    pub compressed_size: i64,
    /// Where it comes from: a stage's name, `source`, `files` or `base`.
    pub from: String,
}

/// What was pushed for one platform.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlatformStatus {
    /// For example linux/amd64.
    pub platform: String,
    /// Digest of the platform's manifest.
    pub digest: String,
}

/// What an image starts from.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BaseStatus {
    /// `Scratch`, `Image` or `Packages`.
    pub kind: String,
    /// The base's name for columns: `scratch`, its reference, or what it is put together for.
    pub display_name: String,
    /// The reference by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest that the reference pointed to; of a base of packages the digest of their list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Uncompressed bytes, as its compressed layers state them.
    pub size: i64,
    /// Bytes of its compressed layers.
    pub compressed_size: i64,
    /// How many percent of the image's uncompressed bytes are the base's.
    pub share: i64,
    /// When it was made: by its own config; of packages, when the newest of their suites was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<String>,
    /// What the tag points to now, where the base is given as TAG@DIGEST and that is another image: looked at at every interval.
    /// Bases by tag and of packages are built anew instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
    /// The distribution that its packages are of, with its version; of an image what its os-release says. Absent where nothing
    /// says it, and without a preflight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// How many packages are in it; of an image as many as var/lib/dpkg/status.d lists. Absent where nothing says it,
    /// and without a preflight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_count: Option<i64>,
    /// The packages, as name=version; the first 300.
    #[schemars(length(max = 300))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// When the suites were made that were read last; older ones are not believed afterwards.
    #[schemars(length(max = 3))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<SuiteStatus>,
}

/// A suite of a distribution that was read.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuiteStatus {
    /// Its name.
    pub suite: String,
    /// When it was made.
    pub time: Time,
}

/// The source of the last good image.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// Commit, or digest of an archive, a ConfigMap or inline files.
    pub revision: String,

    /// When the commit was made, by its committer's clock. Absent for other sources, and for a commit whose stages were
    /// all in the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// One stage.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// The stage's name.
    pub name: String,
    /// What it is doing.
    #[serde(default)]
    pub state: StageState,
    /// Its builder image by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Uncompressed bytes of the builder image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<i64>,
    /// Hash of all its inputs; a stage with a known key does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Digest of its artifact's manifest in the cache repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_digest: Option<String>,
    /// Uncompressed bytes of its artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_size: Option<i64>,
    /// Its Job, for `kubectl logs job/NAME -c build` while the build is in hand; afterwards only a failed stage's is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// When a node took its Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it had given its artifact or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Why it waits or failed, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the command that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines that a failed stage printed, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    /// The snapshot that it was started from in place of its builder image: an image by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Milliseconds of its command, as the agent measured them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_milliseconds: Option<i64>,
}

/// What a stage is doing.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StageState {
    /// Needs artifacts of other stages first, or its turn.
    #[default]
    Pending,
    /// Its Pod is there and does not run yet; `message` says why.
    Waiting,
    /// Its steps run.
    Running,
    /// Its artifact was known; nothing ran.
    Cached,
    /// It ran and gave its artifact.
    Built,
    /// It failed; `message` says why.
    Failed,
    /// Nothing that is needed copies from it.
    Skipped,
}

/// A build in hand and what it has pinned, so that a restarted operator goes on with the same inputs.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Why it was started.
    pub reason: BuildReason,
    /// The same for people.
    pub message: String,
    /// The generation of the spec that it builds.
    pub generation: i64,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Whether it is only a look at tags and branches so far, which becomes a build if something has changed.
    pub poll: bool,
    /// Whether all that it depends on is resolved; the fields below hold it then.
    pub resolved: bool,
    /// The revision of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Digests of builder and base images.
    #[schemars(length(max = 64))]
    pub images: Vec<PinnedImage>,
    /// Digest of the list of the base's packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<String>,
    /// Digest of the certificates of `spec.image.certificates`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// The request that no cached artifact may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<String>,
    /// Job attempts below this number belong to earlier builds.
    pub first_attempt: u32,
    /// How often something outside the stages (a registry, a server) failed in a row.
    pub failures: u32,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
}

/// What a tag pointed to.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PinnedImage {
    /// The image as the spec names it, written out.
    pub reference: String,
    /// What the reference pointed to: an image or an index.
    pub digest: String,
    /// The manifest for the platform.
    pub manifest_digest: String,
    /// Uncompressed bytes, as the compressed layers state them.
    pub size: i64,
    /// Bytes of the compressed layers.
    pub compressed_size: i64,
}

/// Why a build was started.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BuildReason {
    /// The resource is new.
    #[default]
    Created,
    /// The spec changed.
    SpecChanged,
    /// The source has a new revision.
    SourceChanged,
    /// A builder image's tag was moved.
    BuilderChanged,
    /// The base image's tag was moved, or there are newer packages.
    BaseChanged,
    /// An annotation asked for it.
    Requested,
}

/// A build that ended.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Build {
    /// Why it was started.
    pub reason: BuildReason,
    /// The same for people.
    pub message: String,
    /// Whether it gave an image.
    pub succeeded: bool,
    /// The condition reason that it ended with.
    pub result: String,
    /// The generation of the spec that it built.
    pub generation: i64,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The revision of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Digest of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Uncompressed bytes of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Hash over the spec's effect and all that it resolved to: a build with the same inputs is not started by itself.
    pub inputs: String,
}
