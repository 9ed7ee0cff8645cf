//! What all parts of one build share: its plan, the store, the registries, the progress.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{login, progress::Progress};
use crate::{
    cli::BuildArgs,
    cmd::operator::registries,
    domain::{
        credentials::Keychain,
        plan::Outline,
        task::{Network, Origin, SourceTask},
        value::{Reference, Repository},
    },
    shell::{
        net::Http,
        registry::{Client, Registry},
        store::{RunDirectory, Store},
    },
};

/// One build and its surroundings.
pub struct World {
    /// What was asked for.
    pub args: BuildArgs,
    /// What the file says by itself.
    pub outline: Outline,
    /// The values of build secrets, by the variable that a stage has them in.
    secrets: BTreeMap<String, String>,
    /// Certificates that the image trusts beside those of its base, a PEM text.
    pub certificates: Option<String>,
    /// Every image of the plan, once they are known: their registries' logins are read.
    pub images: OnceLock<Vec<Reference>>,
    /// The directory that is the source, in place of the plan's.
    pub context: Option<PathBuf>,
    /// Where all is kept.
    pub store: Store,
    /// What is said meanwhile.
    pub progress: Progress,
    /// When the build began.
    pub now: Timestamp,
    /// Cancelled when the build is to end early.
    pub stop: CancellationToken,
    /// The source, when it was fetched: by the first stage that needs it.
    pub fetched: OnceCell<PathBuf>,
    /// Made when first needed: reading the machine's CA certificates takes longer than a build that is cached.
    http: OnceCell<Http>,
    /// Whether overlays can be mounted, once that was tried.
    pub overlays: OnceCell<bool>,
    client: OnceCell<Client>,
    kept: Mutex<Vec<RunDirectory>>,
}

impl World {
    /// The surroundings of a build.
    #[must_use]
    pub fn new(
        args: BuildArgs,
        (outline, secrets, certificates): (Outline, BTreeMap<String, String>, Option<String>),
        context: Option<PathBuf>,
        store: Store,
    ) -> Self {
        let progress = Progress::new(args.quiet);
        Self {
            args,
            outline,
            secrets,
            certificates,
            images: OnceLock::new(),
            context,
            store,
            progress,
            now: Timestamp::now(),
            stop: CancellationToken::new(),
            fetched: OnceCell::new(),
            http: OnceCell::new(),
            overlays: OnceCell::new(),
            client: OnceCell::new(),
            kept: Mutex::default(),
        }
    }

    /// The value of a variable whose value is not in the spec.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        self.secrets.get(name).cloned().or_else(|| std::env::var(name).ok())
    }

    /// What the agent is to fetch: the directory that was given, or the source at `revision`.
    #[must_use]
    pub fn source_task(&self, revision: Option<&str>) -> Option<SourceTask> {
        let source = self.outline.source.as_ref()?;
        let origin = match &self.context {
            // The agent asks for the files, and gets the directory.
            Some(_) => Origin::Inline { files: BTreeMap::new() },
            None => source.origin(revision.unwrap_or_default(), None)?,
        };
        Some(SourceTask { origin, directory: source.directory.clone() })
    }

    /// Keeps a directory until the build ends.
    pub fn keep(&self, directory: RunDirectory) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
    }

    /// How servers are reached: everywhere, since nobody but this user says where to.
    pub fn network(&self) -> anyhow::Result<Network> {
        Ok(Network {
            registries: registries(self.args.input.registries_file.as_deref())?,
            allowed_ranges: vec!["0.0.0.0/0".into(), "::/0".into()],
            ..Network::default()
        })
    }

    /// Connections to servers.
    pub async fn http(&self) -> anyhow::Result<Http> {
        self.http.get_or_try_init(|| self.connect()).await.cloned()
    }

    /// The registries, with this user's logins.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client.get_or_try_init(|| self.log_in()).await.cloned()
    }

    async fn connect(&self) -> anyhow::Result<Http> {
        let network = self.network()?;
        blocking(move || Http::new(&network)).await
    }

    async fn log_in(&self) -> anyhow::Result<Client> {
        let http = self.http().await?;
        Ok(Registry::over(http).with(self.keychain().await?))
    }

    async fn keychain(&self) -> anyhow::Result<Keychain> {
        let images = self.images.get().into_iter().flatten().map(Reference::repository);
        let repositories: Vec<&Repository> = images.chain([&self.outline.repository]).collect();
        login::keychain(&repositories).await.context("failed to read the registry logins")
    }
}

/// Runs work that waits for disks or locks beside everything else.
pub async fn blocking<T: Send + 'static, E: Into<anyhow::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread ended early")?.map_err(Into::into)
}
