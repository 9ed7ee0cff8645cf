//! `spec.dockerfile`: stages given by a Dockerfile.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stage::EnvVarSource;

/// A Dockerfile in place of `stages`. Its last stage, or `target`, becomes the image; the stages that it needs run as Jobs.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.path) && has(self.inline))").message("give either path or inline, not both"))]
pub struct DockerfileSpec {
    /// The Dockerfile in the source, relative to the source's directory, which is the build context.
    /// Default: Dockerfile. Example: build/Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')").message("give a path below the source's directory, without a leading / and without .."))]
    pub path: Option<String>,

    /// The Dockerfile itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,

    /// The stage that becomes the image, by name or number. Default: the last one. Example: release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub target: Option<String>,

    /// Values for the Dockerfile's ARG instructions, as `docker build --build-arg`. They are part of the cache key and
    /// can be read by whoever may read the resource: not for secrets. Example: [{name: VERSION, value: "1.2"}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub args: Vec<BuildArgument>,

    /// Secrets for `RUN --mount=type=secret`, as `docker build --secret`. Each is in the Pods of those stages alone that use
    /// it; what it holds is not part of the cache key. Example: [{id: npmrc, valueFrom: {secretKeyRef: {name: npm, key: .npmrc}}}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub secrets: Vec<BuildSecret>,

    /// How the Pods of its stages are set up.
    #[serde(default)]
    pub pod: StagePod,

    /// Lets the stage that becomes the image run commands: the image is then that stage's own image and everything that they
    /// leave behind. It gets as large as with `docker build`, and its stage runs as a whole on each change.
    /// Default: false, such a stage is refused as FinalStageNotMinimal.
    #[serde(default)]
    pub allow_large_base: bool,

    /// Whether what a stage does before it copies changing files is kept, so that it need not be done again. Default: made
    /// where that pays, for a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotSpec>,
}

/// Snapshots: images in the cache repository of what a stage's container held at some point. They need podSecurity Baseline:
/// what a Restricted stage writes is in volumes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotSpec {
    /// When they are made. Default: Auto. Example: Never.
    #[serde(default)]
    pub policy: SnapshotPolicy,

    /// After this time one is made anew, so that `apt-get update` finds what is new by then; a forced build uses none either.
    /// Default: 168h. Example: 24h.
    #[serde(default = "default_max_age")]
    #[schemars(schema_with = "super::duration_schema")]
    pub max_age: String,
}

/// When snapshots are made. Auto: where the steps took longer than the snapshot takes. Always: before each copy that something
/// ran ahead of. Never: not at all.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SnapshotPolicy {
    /// Where the steps took longer than the snapshot takes.
    #[default]
    Auto,
    /// Before each copy that something ran ahead of.
    Always,
    /// Not at all.
    Never,
}

fn default_max_age() -> String {
    "168h".into()
}

/// A value for an ARG.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildArgument {
    /// The argument's name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,

    /// Its value. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 8192))]
    pub value: String,
}

/// A secret of a build.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildSecret {
    /// The `id` of the mounts that want it.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,

    /// A key of a Secret or ConfigMap of this namespace.
    pub value_from: EnvVarSource,
}

/// The Pods of a Dockerfile's stages; each field as in a stage of `stages`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StagePod {
    /// Requests and limits of the build containers. Default: requests of 100m CPU and 128Mi memory, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the nodes that the stages may run on; the platform's kubernetes.io/arch is added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Tolerations of the Pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// RuntimeClass of the Pods. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,

    /// How long each Pod may take from its start, images pulled included. Default: 1h. Example: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::optional_duration_schema")]
    pub timeout: Option<String>,

    /// Whether the operator's proxy settings reach RUN as HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Default: false.
    #[serde(default)]
    pub proxy: bool,

    /// Whether the operator's CA certificates reach RUN, as in a stage of `stages`. Default: false.
    #[serde(default)]
    pub ca_certificates: bool,
}
