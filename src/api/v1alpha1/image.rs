//! `spec.image`: the final image.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Base, EnvVarSource};

/// The final image. What is not set is inherited from the base, as in a Dockerfile.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSpec {
    /// What the image starts from. Default: scratch, an empty image.
    #[serde(default)]
    pub base: Base,

    /// What programs expect that need no shell, on any base and on scratch. CACertificates: the certificate authorities that
    /// Debian trusts, as /etc/ssl/certs/ca-certificates.crt, in place of what an image has there. TimeZones: the time zone database, /usr/share/zoneinfo.
    /// NonRootUser: the user nonroot (65532) with a home, as whom the program runs unless `user` says otherwise.
    /// Tmp: /tmp, for all to write to. Default: nothing. Example: [CACertificates, TimeZones].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub include: Vec<Include>,

    /// Certificates of further authorities, PEM texts in ConfigMaps or Secrets of this namespace: the image trusts them beside
    /// those that its base or `include` has. They become part of the image; keys are left out. Added to the base's bundle, at the
    /// place of Debian, Alpine, Red Hat or SUSE, and to the Java keystore /etc/ssl/certs/java/cacerts if there is one; a base
    /// without a bundle gets /etc/ssl/certs/ca-certificates.crt. Default: none. Example: [{configMapKeyRef: {name: authorities, key: ca.crt}}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub certificates: Vec<EnvVarSource>,

    /// Whether the image is pushed once more under each of its tags with `-debug` behind it, with a shell and the usual tools
    /// (Debian's busybox-static, in /busybox at the end of PATH) on top: to look around where the image has none. The image
    /// itself stays without them. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub debug: bool,

    /// Files put into the image: `from` is a stage or `source`. Files of one stage become one layer, as long as their
    /// order does not matter. Example: [{from: build, source: /workspace/app, destination: /app}].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub copy: Vec<Copy>,

    /// Small text files given here; they make the last layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub files: Vec<File>,

    /// The program, as `command` in a Pod: ENTRYPOINT in a Dockerfile. Setting it without `args` clears the base's
    /// CMD. Example: ["/app"].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 8192)))]
    pub command: Option<Vec<String>>,

    /// Its default arguments, as `args` in a Pod: CMD in a Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 8192)))]
    pub args: Option<Vec<String>>,

    /// Variables that the image sets, on top of the base's. Values end up in the image: not for secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<LiteralVariable>,

    /// Directory that the program starts in. Default: the base's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub working_dir: Option<String>,

    /// User and group that the program runs as, names or numbers. Default: the base's. Example: "65532:65532".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$")
    )]
    pub user: Option<String>,

    /// Ports that the program listens on; for readers and tools, nothing is opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<Port>,

    /// Labels of the image's config, on top of the base's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the image's manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,

    /// Directories declared as volumes, on top of the base's. Example: [/data].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024), regex(pattern = "^/")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub volumes: Vec<String>,

    /// Signal that asks the program to end. Default: the base's. Example: SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^(SIG[A-Z0-9+-]+|[0-9]{1,3})$"))]
    pub stop_signal: Option<String>,
}

/// One copy, with the rules of COPY in a Dockerfile: a directory's contents are copied; a destination that ends with /
/// is a directory, and several matches of a pattern need one.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Copy {
    /// The stage that the files come from, or `source`.
    #[schemars(length(min = 1, max = 40))]
    pub from: String,

    /// File, directory or pattern (`*`, `?`, `[a-z]`; `**` across directories); absolute in a stage, relative to the
    /// source's directory in the source. Example: /workspace/app.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,

    /// Absolute path that they get. Example: /app.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub destination: String,

    /// Permission bits in octal for everything copied. Default: those that the files have, without setuid and setgid;
    /// a privileged file that `source` itself names is refused then. Example: "0755".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 5), regex(pattern = "^0?[0-7]{3,4}$"))]
    pub mode: Option<String>,

    /// Numeric user and group of everything copied. Default: "0:0". Example: "65532:65532".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21), regex(pattern = "^[0-9]{1,10}(:[0-9]{1,10})?$"))]
    pub owner: Option<String>,
}

/// A small text file.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// Absolute path in the image. Example: /etc/app.conf.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub path: String,

    /// Its text.
    #[schemars(length(max = 65536))]
    pub content: String,

    /// Permission bits in octal. Default: "0644".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 5), regex(pattern = "^0?[0-7]{3,4}$"))]
    pub mode: Option<String>,

    /// Numeric user and group. Default: "0:0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21), regex(pattern = "^[0-9]{1,10}(:[0-9]{1,10})?$"))]
    pub owner: Option<String>,
}

/// A variable with a literal value.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LiteralVariable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^=\x00]+$"))]
    pub name: String,

    /// Its value. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 8192))]
    pub value: String,
}

/// A port that the program listens on.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The port's number.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: u16,

    /// Its protocol. Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What programs expect of the image that they run in.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Include {
    /// Certificate authorities, from Debian's ca-certificates.
    CACertificates,
    /// The time zone database, from Debian's tzdata.
    TimeZones,
    /// The user and the group nonroot, 65532, with the home /home/nonroot.
    NonRootUser,
    /// /tmp, with mode 1777.
    Tmp,
}

/// Transport protocols of ports.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}
