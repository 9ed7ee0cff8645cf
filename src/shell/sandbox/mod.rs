//! Sandboxes for stages on this machine: root file systems from unpacked layers, an OCI runtime, and processes of our own
//! around it that leave nothing behind. Knows no plan and no registry.
//!
//! - here: what a build asks for, and the start of it.
//! - `namespaces`: the processes in between.
//! - `inner`: what is done within, as root of a user namespace where the user is not root.

mod inner;
mod namespaces;
mod users;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
};

pub use namespaces::{enter, init};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::apply::ApplyError;
use crate::domain::{bundle::Bind, plan::Account};

/// The runtimes that are looked for, the best known first.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// What is to be done where we are root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Unpack layers.
    Unpack(Unpack),
    /// Run a stage's wrapper.
    Run(Box<Run>),
    /// Mount an overlay in a directory that is made for it, and take it away again.
    Probe {
        /// The directory, in the file system of the store.
        directory: PathBuf,
    },
    /// Remove directories whose files belong to many users.
    Remove {
        /// Which.
        paths: Vec<PathBuf>,
    },
}

/// Layers of one image, lowest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpack {
    /// Where unpacked layers are.
    pub chains: PathBuf,
    /// Room for what is not finished, in the same file system.
    pub scratch: PathBuf,
    /// The layers.
    pub layers: Vec<PackedLayer>,
    /// One directory for all of them, where overlays cannot be mounted; none keeps them apart.
    pub flat: Option<Flat>,
}

/// A directory that has all layers of an image in one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flat {
    /// Its name.
    pub name: String,
    /// The one that has the layers below these; they go onto a copy of it.
    pub below: Option<String>,
}

/// A layer and where it goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedLayer {
    /// The archive, compressed or not.
    pub blob: PathBuf,
    /// The name of the directory for it, which stands for this layer on top of those before it.
    pub chain: String,
}

/// One run of one stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// What the runtime calls it.
    pub name: String,
    /// Where unpacked layers are.
    pub chains: PathBuf,
    /// The builder image's layers, lowest first.
    pub layers: Vec<String>,
    /// Whether the root file system is a copy of the only layer, because overlays cannot be mounted.
    pub flat: bool,
    /// What is the run's own; root file system, bundle and volumes are made in it.
    pub directory: PathBuf,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// How it is called.
    pub kind: RuntimeKind,
    /// Whom the Pod would run as.
    pub account: Account,
    /// The user of the image's config.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Mounted beside the volumes.
    pub binds: Vec<Bind>,
    /// Directories that stay, mounted for everybody to write to; made when missing.
    pub caches: Vec<Bind>,
}

/// The command lines that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeKind {
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// One with no flags beyond those that all have.
    Other,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No runtime is installed.
    #[error("unable to find {0}: install it (Debian: apt-get install runc) or name another with --runtime")]
    NoRuntime(String),
    /// The kernel refuses.
    #[error(
        "failed to make a sandbox's namespaces: the kernel may forbid user namespaces to ordinary users \
         (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns); as root it works without"
    )]
    Namespaces(#[source] io::Error),
    /// The processes lost each other.
    #[error("failed to talk to a sandbox's processes")]
    Line(#[source] io::Error),
    /// Not something that we ask for.
    #[error("unable to read a sandbox's request")]
    Request,
    /// A program does not start.
    #[error("failed to start {}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The users of a user namespace cannot be set up.
    #[error("failed to give the sandbox its users: {0}")]
    Users(String),
    /// The disk says no.
    #[error("failed to use {}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root file system cannot be mounted.
    #[error(
        "failed to mount an overlay below {}: use another place with --store (not on overlayfs or a network), or for \
         ordinary users Linux 5.11 or newer",
        path.display()
    )]
    Overlay {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer is refused.
    #[error("unable to unpack the builder image")]
    Layer {
        /// Why.
        #[source]
        source: ApplyError,
    },
    /// Too many layers for one mount.
    #[error("unable to mount {count} layers at once: use a builder image with fewer")]
    Layers {
        /// How many there are.
        count: usize,
    },
    /// The image's config names a user that the image does not have.
    #[error("unable to run the stage: {0}")]
    User(String),
    /// What was asked for failed; the process said why.
    #[error("{0}")]
    Failed(String),
}

impl SandboxError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}

/// Finds a runtime by name or path; none named is the first that is installed.
///
/// # Errors
/// When there is none.
pub fn find_runtime(named: Option<&Path>) -> Result<(PathBuf, RuntimeKind), SandboxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path =
        |name: &Path| std::env::split_paths(&path).map(|directory| directory.join(name)).find(|p| p.is_file());
    let found = match named {
        Some(named) if named.components().count() > 1 => Some(named.to_owned()).filter(|path| path.is_file()),
        Some(named) => in_path(named),
        None => RUNTIMES.iter().find_map(|name| in_path(Path::new(name))),
    };
    let wanted = || named.map_or_else(|| RUNTIMES.join(", "), |named| named.display().to_string());
    let found = found.ok_or_else(|| SandboxError::NoRuntime(wanted()))?;
    let kind = match found.file_name().and_then(|name| name.to_str()) {
        Some("runc") => RuntimeKind::Runc,
        Some("crun") => RuntimeKind::Crun,
        _ => RuntimeKind::Other,
    };
    Ok((found, kind))
}

/// A request that is being served. Dropped, everything of it ends.
pub struct Session {
    child: Child,
    line: UnixStream,
    /// What it writes.
    pub stdout: Option<ChildStdout>,
    /// What it writes of errors.
    pub stderr: Option<ChildStderr>,
    /// Whether there are users beside root in it.
    pub many_users: bool,
}

impl Session {
    /// Starts to serve `request`.
    ///
    /// # Errors
    /// When the machine does not allow what is needed.
    pub async fn start(request: &Request) -> Result<Self, SandboxError> {
        let (ours, theirs) = UnixStream::pair().map_err(SandboxError::Line)?;
        let theirs = theirs.into_std().map_err(SandboxError::Line)?;
        theirs.set_nonblocking(false).map_err(SandboxError::Line)?;
        let program = Path::new("/proc/self/exe");
        let mut child = Command::new(program)
            .arg("sandbox")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the build, which then ends this in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SandboxError::Start { program: program.into(), source })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut session = Self { child, line: ours, stdout, stderr, many_users: true };
        let bytes = serde_json::to_vec(request).map_err(|_| SandboxError::Request)?;
        let length = u32::try_from(bytes.len()).map_err(|_| SandboxError::Request)?;
        session.line.write_all(&length.to_be_bytes()).await.map_err(SandboxError::Line)?;
        session.line.write_all(&bytes).await.map_err(SandboxError::Line)?;
        if !rustix::process::geteuid().is_root() {
            match session.line.read_u8().await {
                Ok(_) => session.give_users().await?,
                // It has said why on its standard error.
                Err(_) => return Err(session.failed().await),
            }
        }
        Ok(session)
    }

    async fn give_users(&mut self) -> Result<(), SandboxError> {
        let id = self.child.id().ok_or(SandboxError::Request)?;
        self.many_users = users::map(id).await?;
        self.line.write_u8(0).await.map_err(SandboxError::Line)
    }

    /// Waits for the end; gives the exit code.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn wait(&mut self) -> Result<u8, SandboxError> {
        self.child.wait().await.map(namespaces::code).map_err(SandboxError::Line)
    }

    /// Waits for the end of something that says nothing unless it fails.
    ///
    /// # Errors
    /// When it failed, with what it said.
    pub async fn finish(mut self) -> Result<(), SandboxError> {
        let mut said = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            // What is no text says nothing.
            let _ = stderr.read_to_string(&mut said).await;
        }
        match self.wait().await? {
            0 => Ok(()),
            code => Err(SandboxError::Failed(last_line(&said, code))),
        }
    }

    /// Ends all of it. What was started is gone when [`Session::wait`] gives the code.
    pub async fn end(&mut self) {
        // At the end of its line it ends the sandbox, waits for that, and ends itself.
        let _ = self.line.shutdown().await;
    }

    async fn failed(self) -> SandboxError {
        self.finish().await.err().unwrap_or(SandboxError::Request)
    }
}

/// What a process of ours said last, without its name.
fn last_line(said: &str, code: u8) -> String {
    let line = said.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.map(|line| line.strip_prefix("minimalimage: ").unwrap_or(line).to_owned());
    line.unwrap_or_else(|| format!("a sandbox's process ended with code {code}"))
}
