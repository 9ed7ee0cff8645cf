//! `spec.image.base`: what the final image starts from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an image starts from: scratch, an image, or packages of a distribution. Default: scratch.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.scratch), has(self.image), has(self.packages) || has(self.runtime)].filter(given, given).size() <= 1").message("give one of scratch, image, and packages or runtime"), validation = Rule::new("!(has(self.packages) && has(self.packages.suite) && has(self.runtime) && has(self.runtime.suite))").message("give the suite in one place: packages.suite or runtime.suite"), validation = Rule::new("!has(self.packages) || has(self.runtime) || has(self.packages.install)").message("packages: give install, or a runtime beside it"))]
pub struct Base {
    /// Nothing: the image holds only what is copied into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<ScratchBase>,

    /// Another image. Its layers are used as they are: within a registry they are mounted, not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageBase>,

    /// A base put together from packages of a distribution, without shell and package manager. Beside `runtime`: where that one's
    /// packages come from, and which are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<PackagesBase>,

    /// A ready base for one kind of program, put together from packages. Example: {java: 17}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeBase>,
}

/// An empty base.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScratchBase {}

/// An image as base.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageBase {
    /// The image by tag or digest; a tag is looked at again at every interval.
    /// Example: gcr.io/distroless/java17-debian11.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,
}

/// Packages of a distribution, with all that they depend on, as a base. No script of a package is ever run.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackagesBase {
    /// The distribution. Default: Debian.
    #[serde(default)]
    pub distribution: Distribution,

    /// Its suite, by code name. Default: that of the runtime, else trixie. Example: bookworm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 40), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub suite: Option<String>,

    /// Which suites are read beside `suite`: `<suite>-updates` of the mirror, `<suite>-security` of the security mirror.
    /// Default: [Updates, Security].
    #[serde(default = "default_pockets")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub pockets: Vec<Pocket>,

    /// Its components. Default: [main].
    #[serde(default = "default_components")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 40), regex(pattern = "^[a-z][a-z0-9-]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub components: Vec<String>,

    /// The packages, each by name or as name=version; what they depend on comes with them. Example: [redis-server].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 2, max = 256), regex(pattern = r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub install: Vec<String>,

    /// Packages that are left out although others depend on them. Example: [libcups2].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 128), regex(pattern = "^[a-z0-9][a-z0-9+.-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<String>,

    /// Patterns of files that are left out beyond what every base leaves out. Example: ["/usr/lib/x86_64-linux-gnu/gconv/**"].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 512), regex(pattern = "^/")))]
    pub drop: Vec<String>,

    /// Patterns of files that are kept although a rule or `drop` leaves them out. Example: ["/usr/share/locale/de/**"].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 512), regex(pattern = "^/")))]
    pub keep: Vec<String>,

    /// What becomes of packages whose maintainer scripts are not known to this version. Refuse: there is no base. Ignore: the base
    /// is made as if those scripts did nothing. Default: Refuse.
    #[serde(default)]
    pub scripts: ScriptPolicy,

    /// A day or a time whose state of the archive is taken, for ever: nothing newer comes, security updates neither.
    /// Default: the archive as it is. Example: "2026-11-01" or 20261101T120000Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}T[0-9]{6}Z)$"))]
    pub snapshot: Option<String>,

    /// Where the packages come from; with `snapshot` the directory that has the times. Default: http://deb.debian.org/debian, with
    /// `snapshot` https://snapshot.debian.org/archive/debian. Example: https://mirror.example.com/debian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^https?://"))]
    pub mirror: Option<String>,

    /// Where security updates come from. Default: the mirror with -security appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^https?://"))]
    pub security_mirror: Option<String>,

    /// OpenPGP public keys, armored, one of which must have signed the archive. Default: Debian's own keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 131_072))]
    pub keyring: Option<String>,
}

impl Default for PackagesBase {
    fn default() -> Self {
        Self {
            distribution: Distribution::default(),
            suite: None,
            pockets: default_pockets(),
            components: default_components(),
            install: Vec::new(),
            exclude: Vec::new(),
            drop: Vec::new(),
            keep: Vec::new(),
            scripts: ScriptPolicy::default(),
            snapshot: None,
            mirror: None,
            security_mirror: None,
            keyring: None,
        }
    }
}

/// Distributions whose packages can be a base.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Distribution {
    /// Debian, and archives that are made like its own.
    #[default]
    Debian,
}

/// Suites beside a suite.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pocket {
    /// `<suite>-updates`: what cannot wait for the next point release.
    Updates,
    /// `<suite>-security`: security updates.
    Security,
}

/// What to do about a maintainer script that nobody has looked at.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ScriptPolicy {
    /// There is no base.
    #[default]
    Refuse,
    /// The base is made as if the script did nothing.
    Ignore,
}

/// A ready base: exactly one of the kinds.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.static), has(self.base), has(self.cc), has(self.java), has(self.python), has(self.node)].filter(given, given).size() == 1").message("give exactly one of static, base, cc, java, python and node"))]
pub struct RuntimeBase {
    /// For programs that bring all they need: CA certificates, time zones, users. No libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#static: Option<ScratchBase>,

    /// For programs in C: `static` with libc and OpenSSL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ScratchBase>,

    /// For programs in C++ and Rust: `base` with the libraries of GCC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cc: Option<ScratchBase>,

    /// Java without a desktop, by major version; a jar is given as `args`. Example: 17.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub java: Option<u8>,

    /// Python with its standard library, by minor version; a script is given as `args`. Example: "3.13".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    pub python: Option<String>,

    /// Node.js, by major version; a script is given as `args`. Example: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub node: Option<u8>,

    /// The suite whose packages are taken. Default: the newest that has the runtime. Example: bookworm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 40), regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub suite: Option<String>,
}

fn default_pockets() -> Vec<Pocket> {
    vec![Pocket::Updates, Pocket::Security]
}

fn default_components() -> Vec<String> {
    vec!["main".to_owned()]
}
