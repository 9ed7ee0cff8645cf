//! The command lines of `build`, `plan` and `convert`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

use crate::api::v1alpha1::Preflight;

/// What is built on this machine, and where it goes.
#[derive(Debug, Default, Args)]
pub struct BuildArgs {
    /// What is built.
    #[command(flatten)]
    pub input: InputArgs,
    /// Push to spec.destination, with its tags. The login comes from the Docker config file, as for docker push.
    #[arg(long)]
    pub push: bool,
    /// Write the image to oci:DIRECTORY, oci-archive:FILE or docker-archive:FILE (for docker load). Can be repeated.
    #[arg(short, long, value_name = "KIND:PATH")]
    pub output: Vec<Output>,
    /// Write digest, tags and sizes to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print the digest alone.
    #[arg(short, long)]
    pub quiet: bool,
    /// Run every stage although its artifact is known.
    #[arg(long)]
    pub no_cache: bool,
    /// What happens when the image could not start, in place of the file's spec.preflight. Default: enforce.
    #[arg(long, value_name = "enforce|strict|warn|off", value_parser = preflight)]
    pub preflight: Option<Preflight>,
    /// OCI runtime by name or path. Default: the first found of runc, crun and youki.
    #[arg(long, env = "MINIMALIMAGE_RUNTIME")]
    pub runtime: Option<PathBuf>,
    /// What root file systems of stages are made of.
    #[arg(long, env = "MINIMALIMAGE_ROOTFS", value_enum, default_value_t = RootFileSystem::Auto)]
    pub rootfs: RootFileSystem,
}

/// What root file systems of stages are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum RootFileSystem {
    /// An overlay, where one can be mounted; else a copy.
    #[default]
    Auto,
    /// An overlay over the builder image's unpacked layers.
    Overlay,
    /// A copy of the builder image for each stage.
    Copy,
}

/// What is built, and with which machine.
#[derive(Debug, Clone, Default, Args)]
pub struct InputArgs {
    /// Directory that is the source, in place of the file's spec.source and its directory. Its `.git` is left out.
    pub context: Option<PathBuf>,
    /// The MinimalImage to build, as it would be applied to a cluster. Default: minimalimage.yaml in CONTEXT, else in the
    /// current directory.
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Build this Dockerfile with CONTEXT, without a MinimalImage. Default, where there is no MinimalImage: Dockerfile in
    /// CONTEXT.
    #[arg(long, conflicts_with = "file")]
    pub dockerfile: Option<PathBuf>,
    /// The stage of the Dockerfile that becomes the image. Default: the last.
    #[arg(long, conflicts_with = "file")]
    pub target: Option<String>,
    /// Let the Dockerfile's last stage run commands: the image is then that stage's own image and all that they leave behind.
    #[arg(long, conflicts_with = "file")]
    pub allow_large_base: bool,
    /// Value of an ARG of the Dockerfile. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value, conflicts_with = "file")]
    pub build_arg: Vec<(String, String)>,
    /// The Dockerfile's image is called so. Can be repeated, with the same repository. Default: localhost/DIRECTORY:latest.
    #[arg(short, long, value_name = "REPOSITORY[:TAG]", conflicts_with = "file")]
    pub tag: Vec<String>,
    /// A secret for `RUN --mount=type=secret`. Can be repeated.
    #[arg(long, value_name = "id=ID,(src=FILE|env=NAME)")]
    pub secret: Vec<SecretArgument>,
    /// PEM file with the certificates of spec.image.certificates, which are in the cluster. Can be repeated, in the spec's order.
    #[arg(long, value_name = "FILE")]
    pub certificates: Vec<PathBuf>,
    /// Ask the registries what tags point to although that was asked a moment ago.
    #[arg(long)]
    pub pull: bool,
    /// Where builder layers, artifacts and images are kept. Default: minimalimage in XDG_DATA_HOME or ~/.local/share.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
    /// YAML file: registry host → plainHttp, caCertificates (PEM), mirrors; as for the operator.
    #[arg(long, env = "MINIMALIMAGE_REGISTRIES_FILE")]
    pub registries_file: Option<PathBuf>,
}

/// What a plan is made of.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What would be built. With --namespace, --context or --kubeconfig CONTEXT is the name of a resource in a cluster.
    #[command(flatten)]
    pub input: InputArgs,
    /// Where a resource in a cluster is.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exit with 2 when a stage would run or the image would be another one, with 0 when nothing would change.
    #[arg(long)]
    pub exit_code: bool,
}

/// Which Dockerfile is written as a MinimalImage, and what it does not say itself.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The Dockerfile.
    #[arg(default_value = "Dockerfile")]
    pub dockerfile: PathBuf,
    /// The directory that it copies from. Default: its own.
    #[arg(long, value_name = "DIRECTORY")]
    pub context: Option<PathBuf>,
    /// The stage that becomes the image. Default: the last.
    #[arg(long)]
    pub target: Option<String>,
    /// Value of an ARG. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub build_arg: Vec<(String, String)>,
    /// Where the image goes, with a tag if it is not latest.
    #[arg(long, value_name = "REPOSITORY[:TAG]")]
    pub repository: Option<String>,
    /// The resource's name. Default: the context's.
    #[arg(long)]
    pub name: Option<String>,
    /// The Git repository that the context is in. Default: the remote `origin` of the context's checkout.
    #[arg(long, value_name = "URL")]
    pub source_url: Option<String>,
    /// The context's directory within the Git repository. Default: its place in the checkout, else the repository's root.
    #[arg(long, value_name = "DIRECTORY")]
    pub source_directory: Option<String>,
    /// As for build.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
    /// As for build.
    #[arg(long, env = "MINIMALIMAGE_REGISTRIES_FILE")]
    pub registries_file: Option<PathBuf>,
}

/// Which cluster, as for kubectl.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// The namespace. Default: the kubeconfig's.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig. Default: the current one.
    #[arg(long = "context", id = "kube-context", value_name = "NAME")]
    pub kube_context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// Whether any of it was given: a resource in a cluster is meant then, not a file.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.namespace.is_some() || self.kube_context.is_some() || self.kubeconfig.is_some()
    }
}

/// A secret of a build and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretArgument {
    /// Its name.
    pub id: String,
    /// Where its value is.
    pub from: SecretFrom,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file.
    File(PathBuf),
    /// In a variable of the caller.
    Variable(String),
}

impl FromStr for SecretArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut id, mut from) = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("id", name)) => id = Some(name.to_owned()),
                Some(("src" | "source", path)) => from = Some(SecretFrom::File(path.into())),
                Some(("env", name)) => from = Some(SecretFrom::Variable(name.to_owned())),
                _ => return Err(format!("`{part}` is unknown, expected id=ID and src=FILE or env=NAME")),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or("it has no id=ID")?;
        // As docker build has it, a variable of the same name.
        let from = from.unwrap_or_else(|| SecretFrom::Variable(id.clone()));
        Ok(Self { id, from })
    }
}

fn preflight(text: &str) -> Result<Preflight, String> {
    match text.to_ascii_lowercase().as_str() {
        "enforce" => Ok(Preflight::Enforce),
        "strict" => Ok(Preflight::Strict),
        "warn" => Ok(Preflight::Warn),
        "off" => Ok(Preflight::Off),
        _ => Err("expected enforce, strict, warn or off".to_owned()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// A form in which an image is written to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An OCI image layout.
    Oci(PathBuf),
    /// An OCI image layout in one tar file.
    OciArchive(PathBuf),
    /// What `docker save` writes.
    DockerArchive(PathBuf),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = text.split_once(':').filter(|(_, path)| !path.is_empty());
        match kind.map(|(kind, path)| (kind, PathBuf::from(path))) {
            Some(("oci", path)) => Ok(Self::Oci(path)),
            Some(("oci-archive", path)) => Ok(Self::OciArchive(path)),
            Some(("docker-archive", path)) => Ok(Self::DockerArchive(path)),
            _ => Err("expected oci:DIRECTORY, oci-archive:FILE or docker-archive:FILE".into()),
        }
    }
}
