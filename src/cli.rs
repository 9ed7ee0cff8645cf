//! The command line: types only.

mod build;
mod store;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

pub use build::{
    BuildArgs, ClusterArgs, ConvertArgs, InputArgs, Output, PlanArgs, RootFileSystem, SecretArgument, SecretFrom,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use store::{ImagesArgs, ImagesCommand, ListArgs, OrderArgs, PruneRule, Sort, StoreCommand};

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
    /// Say what a build would run and why, and run nothing.
    Plan(Box<PlanArgs>),
    /// Write a Dockerfile as a MinimalImage with stages.
    Convert(Box<ConvertArgs>),
    /// List the images that were built on this machine.
    Images(ImagesArgs),
    /// List the images of a cluster's MinimalImages.
    List(ListArgs),
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
    /// Inside a build container: run one command with less than the wrapper has (used by the wrapper).
    #[command(hide = true)]
    Confined {
        /// The user, the group and further groups that it runs as.
        #[arg(long, value_delimiter = ',')]
        user: Vec<u32>,
        /// Whether it can open no connection.
        #[arg(long)]
        offline: bool,
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
    /// Let namespaces use bases of packages that Pods of other namespaces have put together, so that each is made once in the cluster.
    /// Who can change Pods in one namespace can give the others a false base then.
    #[arg(long, env = "MINIMALIMAGE_SHARE_BASES")]
    pub share_bases: bool,
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
