//! `spec.source`: where files come from.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Exactly one kind of source.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.git), has(self.http), has(self.configMap), has(self.inline)].filter(x, x).size() == 1").message("give exactly one of git, http, configMap and inline"))]
pub struct Source {
    /// A Git repository over http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,

    /// An archive over http or https: tar, tar.gz, tar.xz, tar.zst or zip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,

    /// The keys of a ConfigMap of this namespace as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// Files given here. For a few small ones: together at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineSource>,

    /// The directory of the source that is built; nothing above it is visible, and a commit that leaves it as it was
    /// starts no step. Default: the root of the source. Example: services/web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')").message("give a path below the source's root, without a leading / and without .."))]
    pub directory: Option<String>,
}

/// A Git repository over http or https.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// The repository. Example: https://github.com/acme/simplecal.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^@]+$"))]
    pub url: String,

    /// What is checked out. Default: the repository's default branch.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,

    /// Secret of this namespace with `username` and `password`, or `token`. Its annotation `minimalimage.dev/host`
    /// names the only server that it is sent to, for example https://github.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,

    /// Whether submodules are fetched too, with theirs. Default: false.
    #[serde(default)]
    pub submodules: bool,
}

/// At most one of branch, tag and commit.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.branch), has(self.tag), has(self.commit)].filter(x, x).size() == 1").message("give exactly one of branch, tag and commit"))]
pub struct GitReference {
    /// A branch; looked at for new commits at every interval. Example: main.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,

    /// A tag; looked at every interval too, as tags can be moved. Example: v1.2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,

    /// A full commit ID of 40 hex digits; never polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 40, max = 40), regex(pattern = r"^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
}

/// An archive over http or https.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSource {
    /// The archive. Example: https://example.com/simplecal-1.0.tar.gz.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^@]+$"))]
    pub url: String,

    /// SHA-256 of the archive; anything else that the server sends is refused. Example: sha256:9f86d0….
    #[schemars(length(min = 71, max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: String,

    /// Leading directories that are cut from every path in the archive. Default: 0. Example: 1 for release archives
    /// that hold everything in one directory.
    #[serde(default)]
    #[schemars(range(min = 0, max = 32))]
    pub strip_components: u32,

    /// As for `git.secretRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// The keys of a ConfigMap as files.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapSource {
    /// The ConfigMap; looked at for changes at every interval.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Files given in the resource.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineSource {
    /// The files.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub files: Vec<InlineFile>,
}

/// One file.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineFile {
    /// Path below the source's root. Example: cmd/main.go.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')").message("give a path below the source's root, without a leading / and without .."))]
    pub path: String,

    /// Its text.
    #[schemars(length(max = 65536))]
    pub content: String,
}

/// The name of an object in the same namespace.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl InlineSource {
    /// The files by path.
    #[must_use]
    pub fn by_path(&self) -> BTreeMap<String, String> {
        self.files.iter().map(|file| (file.path.clone(), file.content.clone())).collect()
    }
}
