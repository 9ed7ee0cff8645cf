//! `spec.stages`: what runs in builder images.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::image::Copy;

/// One builder stage: a Pod of the builder image that runs one command and gives artifacts to whoever copies from it.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.run) && has(self.command))").message("give either run (a shell line) or command, not both"), validation = Rule::new("has(self.run) || has(self.command) || !has(self.args)").message("args need a command"))]
pub struct Stage {
    /// Name by which others copy from this stage.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Builder image by tag or digest; a tag is resolved to a digest before use and looked at again at every interval.
    /// Example: golang:1.26.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// Variables for the command. Literal values are part of the stage's cache key; of variables with `valueFrom` only
    /// the variable's own name is. Example: [{name: CGO_ENABLED, value: "0"}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Whether the whole source is put into the working directory first. Entries of `copy` with `from: source` take
    /// its place: then only what they name is put there, and only that is part of the cache key. Default: true.
    #[serde(default = "yes")]
    pub copy_source: bool,

    /// Files put into the stage before the command runs: `from` is another stage or `source`.
    /// Example: [{from: deps, source: /workspace/lib, destination: /workspace/lib}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub copy: Vec<Copy>,

    /// Shell line or script, run by `/bin/sh -e -c` in the working directory.
    /// Example: CGO_ENABLED=0 go build -o /workspace/app .
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub run: Option<String>,

    /// Program and leading arguments, run without a shell. `$(NAME)` is not replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,

    /// Further arguments for `command`, or positional parameters ($0, $1, …) for `run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 8192)))]
    pub args: Option<Vec<String>>,

    /// Directory that the command runs in; made when missing. Default: /workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub working_dir: Option<String>,

    /// Directories that survive from build to build. What is in them is not part of the cache key: a cache must only
    /// make a build faster, never change its result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub caches: Vec<Cache>,

    /// Requests and limits of the build container. Default: requests of 100m CPU and 128Mi memory, no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the nodes that the stage may run on; the platform's kubernetes.io/arch is added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Tolerations of the Pod, as in a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the Pod, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// RuntimeClass of the Pod, for example one that puts it into a sandbox. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,

    /// How long the Pod may take from its start, images pulled included. Default: 1h. Example: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::optional_duration_schema")]
    pub timeout: Option<String>,

    /// Whether the operator's proxy settings reach the command as HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
    /// Default: false.
    #[serde(default)]
    pub proxy: bool,

    /// Whether the operator's CA certificates reach the command: a bundle of them and the usual roots, named by
    /// SSL_CERT_FILE, CURL_CA_BUNDLE, GIT_SSL_CAINFO, REQUESTS_CA_BUNDLE, PIP_CERT and NODE_EXTRA_CA_CERTS.
    /// Default: false.
    #[serde(default)]
    pub ca_certificates: bool,
}

/// A variable: a value, or where it comes from.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("give either value or valueFrom, not both"))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_.-]*$"))]
    pub name: String,

    /// Its value; `$(NAME)` is not replaced. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub value: Option<String>,

    /// A key of a Secret or ConfigMap of this namespace. Values are masked in the log tail that status shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where a value comes from that is not in the spec.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)").message("give exactly one of secretKeyRef and configMapKeyRef"))]
pub struct EnvVarSource {
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,

    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
}

/// A key of an object of this namespace.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySelector {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A directory that survives from build to build: in a claim, or in the cache repository.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.persistentVolumeClaim) != has(self.registry)").message("give exactly one of persistentVolumeClaim and registry"))]
pub struct Cache {
    /// Name of the cache.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Where it is mounted. Example: /home/build/.cache/go-build.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub path: String,

    /// The claim that holds it. Each stage of each MinimalImage has a directory of its own in the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimReference>,

    /// The cache repository holds it: an artifact of at most 2 GB, fetched before the stage's first command and sent back
    /// after its success when a tenth of it is new. Each stage of each MinimalImage has one of its own. Example: {}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryCache>,
}

impl Stage {
    /// The caches that claims hold, each with its claim's name.
    pub fn claims(&self) -> impl Iterator<Item = (&Cache, &str)> {
        self.caches
            .iter()
            .filter_map(|cache| Some((cache, cache.persistent_volume_claim.as_ref()?.claim_name.as_str())))
    }

    /// The caches that the cache repository holds.
    pub fn registry_caches(&self) -> impl Iterator<Item = &Cache> {
        self.caches.iter().filter(|cache| cache.registry.is_some())
    }
}

/// A cache in the cache repository. There is nothing to set.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryCache {}

/// A PersistentVolumeClaim of this namespace.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimReference {
    /// Name of the claim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

fn yes() -> bool {
    true
}
