//! The command line: types only.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds small, safe container images on Kubernetes from plain Jobs.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image on this machine, without a cluster: the same digest as in one.
    Build(Box<BuildArgs>),
    /// List the images that were built on this machine.
    Images(ImagesArgs),
    /// What builds on this machine keep: how much it is, and less of it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Run the operator: watch MinimalImages and build them.
    Operator(Box<OperatorArgs>),
    /// Inside a build Pod: fetch, pack and upload (used by the operator).
    #[command(subcommand, hide = true)]
    Agent(AgentCommand),
    /// Inside a build container: run the steps (used by the operator).
    #[command(hide = true)]
    Wrapper,
    /// Inside a build container: run one command without a network (used by the wrapper).
    #[command(hide = true)]
    Offline {
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Around a stage on this machine (used by build).
    #[command(hide = true)]
    Sandbox {
        /// Which of the processes.
        #[command(subcommand)]
        process: Option<SandboxProcess>,
    },
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Say what is wrong or doubtful in Dockerfiles.
    Lint(LintArgs),
    /// Put this binary into an image from scratch and push it: the operator's own image.
    Package(PackageArgs),
}

/// The agent's subcommands.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Run one stage's fetching and packing.
    Run,
    /// Copy this binary and the generated account files into the volume shared with the build container.
    Install,
}

/// The processes around a stage.
#[derive(Debug, Subcommand)]
pub enum SandboxProcess {
    /// The first one in the sandbox's own world.
    Init,
}

/// What is built on this machine, and where it goes.
#[derive(Debug, Args)]
pub struct BuildArgs {
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
    /// Value of an ARG of the Dockerfile. Can be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value, conflicts_with = "file")]
    pub build_arg: Vec<(String, String)>,
    /// The Dockerfile's image is called so. Can be repeated, with the same repository. Default: localhost/DIRECTORY:latest.
    #[arg(short, long, value_name = "REPOSITORY[:TAG]", conflicts_with = "file")]
    pub tag: Vec<String>,
    /// A secret for `RUN --mount=type=secret`. Can be repeated.
    #[arg(long, value_name = "id=ID,(src=FILE|env=NAME)")]
    pub secret: Vec<SecretArgument>,
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
    /// Ask the registries what tags point to although that was asked a moment ago.
    #[arg(long)]
    pub pull: bool,
    /// OCI runtime by name or path. Default: the first found of runc, crun and youki.
    #[arg(long, env = "MINIMALIMAGE_RUNTIME")]
    pub runtime: Option<PathBuf>,
    /// Where builder layers, artifacts and images are kept. Default: minimalimage in XDG_DATA_HOME or ~/.local/share.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
    /// YAML file: registry host → plainHttp, caCertificates (PEM), mirrors; as for the operator.
    #[arg(long, env = "MINIMALIMAGE_REGISTRIES_FILE")]
    pub registries_file: Option<PathBuf>,
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

/// Which images are listed, and in which order.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Only the N built last.
    #[arg(long, value_name = "N", conflicts_with = "oldest")]
    pub newest: Option<usize>,
    /// Only the N built first.
    #[arg(long, value_name = "N")]
    pub oldest: Option<usize>,
    /// What they are sorted by.
    #[arg(long, value_enum, default_value_t = Sort::Created)]
    pub sort: Sort,
    /// As for build.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
}

/// Orders of a list of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The largest first.
    Size,
    /// The newest first.
    Created,
    /// By repository and tag.
    Name,
}

/// The store's subcommands.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show how much is there.
    Du {
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
    /// Remove all that the next build can fetch or make again: builder layers, artifacts, caches. Images stay.
    Prune {
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
}

/// Settings of the operator; each flag can be given as an environment variable too.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Image of the agent container, which is the operator's own image.
    #[arg(long, env = "MINIMALIMAGE_AGENT_IMAGE")]
    pub agent_image: String,
    /// Namespace of the operator: its Lease and signing key are here.
    #[arg(long, env = "MINIMALIMAGE_NAMESPACE", default_value = "minimalimage-system")]
    pub namespace: String,
    /// Watch this namespace alone. Default: all.
    #[arg(long, env = "MINIMALIMAGE_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Watch only MinimalImages whose labels this selector matches, for example `team=a` or `!experimental`: several
    /// operators can share a cluster so, each with a namespace of its own. Default: all.
    #[arg(long, env = "MINIMALIMAGE_SELECTOR")]
    pub selector: Option<String>,
    /// YAML file: registry host → plainHttp, caCertificates (PEM), mirrors.
    #[arg(long, env = "MINIMALIMAGE_REGISTRIES_FILE")]
    pub registries_file: Option<PathBuf>,
    /// PEM file of CA certificates that are trusted beside the usual ones, by operator and agents; at most 32 KiB.
    #[arg(long, env = "MINIMALIMAGE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Address range (CIDR) that sources and registries may be in although it is loopback or link-local.
    #[arg(long, env = "MINIMALIMAGE_ALLOW_ADDRESS_RANGES", value_delimiter = ',')]
    pub allow_address_range: Vec<String>,
    /// Address range (CIDR) that sources and registries must not be in, for example the API server's.
    #[arg(long, env = "MINIMALIMAGE_DENY_ADDRESS_RANGES", value_delimiter = ',')]
    pub deny_address_range: Vec<String>,
    /// How many builds run at once in the cluster; others are queued.
    #[arg(long, env = "MINIMALIMAGE_MAX_BUILDS", default_value_t = 20)]
    pub max_builds: usize,
    /// How many builds run at once in one namespace; others are queued.
    #[arg(long, env = "MINIMALIMAGE_MAX_BUILDS_PER_NAMESPACE", default_value_t = 5)]
    pub max_builds_per_namespace: usize,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "MINIMALIMAGE_ADDRESS", default_value = "0.0.0.0:8080")]
    pub address: SocketAddr,
    /// Work only while holding a Lease, so that several replicas can run.
    #[arg(long, env = "MINIMALIMAGE_LEADER_ELECT")]
    pub leader_elect: bool,
    /// Leave the user of build Pods to the platform, as OpenShift wants it.
    #[arg(long, env = "MINIMALIMAGE_PLATFORM_USER")]
    pub platform_user: bool,
    /// Start the agent's binary by an init container: a second slower, for kubelets that start containers in any order.
    #[arg(long, env = "MINIMALIMAGE_INIT_CONTAINER")]
    pub init_container: bool,
    /// Bytes that each scratch volume of a build Pod may take.
    #[arg(long, env = "MINIMALIMAGE_SCRATCH_BYTES", default_value_t = 20 << 30)]
    pub scratch_bytes: u64,
    /// What is logged, for example `info` or `minimalimage=debug`.
    #[arg(long, env = "MINIMALIMAGE_LOG", default_value = "info")]
    pub log: String,
    /// How it is logged.
    #[arg(long, env = "MINIMALIMAGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Formats of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// What `lint` looks at.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Dockerfiles; `-` is standard input.
    #[arg(default_value = "Dockerfile")]
    pub files: Vec<PathBuf>,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = LintFormat::Text)]
    pub format: LintFormat,
    /// Fail for warnings too, not for syntax errors alone.
    #[arg(long)]
    pub strict: bool,
}

/// Formats of `lint`'s findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LintFormat {
    /// `FILE:LINE:COLUMN: rule: message`, a line each.
    Text,
    /// One JSON array.
    Json,
}

/// What `package` pushes where.
#[derive(Debug, Args)]
pub struct PackageArgs {
    /// The static binary that becomes `/minimalimage` in the image. Default: this one.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Repository and tag that it is pushed to. The login comes from the Docker config file, as for docker push.
    pub reference: String,
    /// As for the operator.
    #[arg(long)]
    pub registries_file: Option<PathBuf>,
}
