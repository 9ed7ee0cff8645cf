//! The agent's real surroundings: the source's server, and the cache repository with the mounted login.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;

use super::{
    backend::{Backend, LayerStream, LayerUpload, UploadError},
    base::compose,
};
use crate::{
    domain::{
        artifact::Layer,
        credentials::Keychain,
        debian::base::Composition,
        media_type,
        recipe::Key,
        snapshot::{Prefix, SnapshotTask, source_before},
        task::{
            AGENT_WORK_DIR, AgentFailure, FailureReason, REGISTRY_SECRET_DIR, SOURCE_CONFIG_MAP_DIR, SOURCE_SECRET_DIR,
            SourceTask, StageTask,
        },
        value::{Digest, Repository},
    },
    shell::{
        cache::Cache,
        chain, debian,
        net::Http,
        registry::{Client, Registry, RegistryError, RetryPolicy, Upload},
        source::{FetchEnvironment, fetch},
    },
};

/// A source that takes longer would not end within a stage's usual timeout either.
const FETCH_TIME: Duration = Duration::from_mins(30);

/// What the task says about the world, ready for use.
pub struct Remote {
    task: StageTask,
    http: Http,
    client: Client,
    cache: Cache,
}

/// One layer on its way into the cache repository.
pub struct RemoteUpload(Upload);

impl Remote {
    /// The world by `task`, with the credentials that are mounted.
    ///
    /// # Errors
    /// When the network settings or the mounted login cannot be used.
    pub fn new(task: &StageTask) -> Result<Self, AgentFailure> {
        let internal = |text: String| AgentFailure::new(FailureReason::Internal, text);
        let http = Http::new(&task.network).map_err(|error| internal(chain(&error)))?;
        let registry = Registry::over(http.clone()).tuned(RetryPolicy::default(), AGENT_WORK_DIR.into());
        let client = registry.with(keychain(Path::new(REGISTRY_SECRET_DIR))?);
        let cache = Cache::new(client.clone(), task.cache.clone(), task.public_key.clone());
        Ok(Self { task: task.clone(), http, client, cache })
    }

    fn repository(&self) -> &Repository {
        &self.task.cache
    }
}

impl Backend for Remote {
    type Upload = RemoteUpload;

    async fn fetch_source(&self, source: &SourceTask, into: &Path) -> Result<Option<i64>, AgentFailure> {
        let work_dir = Path::new(AGENT_WORK_DIR).join("download");
        fs::create_dir_all(&work_dir).map_err(|error| {
            AgentFailure::new(FailureReason::Internal, format!("failed to make a directory: {error}"))
        })?;
        let environment = FetchEnvironment {
            http: &self.http,
            secret_dir: Path::new(SOURCE_SECRET_DIR),
            config_map_dir: Path::new(SOURCE_CONFIG_MAP_DIR),
            work_dir: &work_dir,
            limits: &self.task.limits,
            time: FETCH_TIME,
        };
        let fetched = fetch(source, &environment, into).await;
        let fetched = fetched.map_err(|error| AgentFailure::new(error.reason(), chain(&error)))?;
        fetched.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(fetched.time)
    }

    async fn compose(
        &self,
        composition: &Composition,
        urls: &[String],
        work: &Path,
    ) -> Result<debian::Base, AgentFailure> {
        compose(&self.http, (composition, urls), work, &self.task.limits).await
    }

    async fn lookup(&self, key: Key) -> Result<Option<Digest>, AgentFailure> {
        self.cache.find(&key).await.map_err(|error| failure(&error))
    }

    async fn start(&self, prefixes: &[Prefix]) -> Result<usize, AgentFailure> {
        let SnapshotTask { start, source, .. } = &self.task.snapshots;
        let found = source_before(prefixes, *start);
        if found == *source {
            return Ok(*start);
        }
        let message = "the files that its snapshot was made from have changed";
        Err(AgentFailure::new(FailureReason::SnapshotOutdated, message))
    }

    async fn cache(&self, key: Key) -> Option<Layer> {
        match self.cache.lookup(&key).await {
            Ok(artifact) => artifact?.layers.into_iter().next(),
            Err(error) => {
                tracing::warn!(error = chain(&error), "a cache cannot be read");
                None
            }
        }
    }

    async fn open_layer(&self, layer: &Layer) -> Result<LayerStream, AgentFailure> {
        let blob = self.client.blob(self.repository(), layer.digest, layer.compressed_size).await;
        let blob = blob.map_err(|error| failure(&error))?;
        Ok(Box::pin(blob.into_stream().map_err(|error| failure(&error))))
    }

    async fn begin_upload(&self) -> Result<RemoteUpload, UploadError> {
        self.client.upload(self.repository()).map(RemoteUpload).map_err(|error| upload_error(&error))
    }

    async fn push_blob(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        self.client.push_bytes(self.repository(), bytes).await.map(|_| ()).map_err(|error| failure(&error))
    }

    async fn push_manifest(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        let pinned = self.repository().pinned(Digest::of(&bytes));
        self.client
            .push_manifest(&pinned, media_type::MANIFEST, bytes)
            .await
            .map(|_| ())
            .map_err(|error| failure(&error))
    }
}

impl LayerUpload for RemoteUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        self.0.write(&bytes).await.map_err(|error| upload_error(&error))
    }

    async fn finish(self, digest: Digest, _size: u64) -> Result<(), UploadError> {
        self.0.finish(digest).await.map(|_| ()).map_err(|error| upload_error(&error))
    }
}

/// The logins of all Secrets that are mounted below `directory`; none when there is no such directory.
fn keychain(directory: &Path) -> Result<Keychain, AgentFailure> {
    let denied = |text: String| AgentFailure::new(FailureReason::RegistryAccessDenied, text);
    let mut names: Vec<_> = match fs::read_dir(directory) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(denied(format!("failed to read the registry login: {error}"))),
    };
    names.sort();
    let mut keychain = Keychain::default();
    for name in names {
        let config = fs::read(name.join("config.json"));
        let config = config.map_err(|error| denied(format!("failed to read the registry login: {error}")))?;
        let parsed = Keychain::parse(&config);
        keychain =
            keychain.merge(parsed.map_err(|error| denied(format!("the registry login cannot be used: {error}")))?);
    }
    Ok(keychain)
}

fn failure(error: &RegistryError) -> AgentFailure {
    let reason = match error {
        RegistryError::AccessDenied { .. } => FailureReason::RegistryAccessDenied,
        _ => FailureReason::RegistryUnavailable,
    };
    AgentFailure::new(reason, chain(error))
}

fn upload_error(error: &RegistryError) -> UploadError {
    match error {
        RegistryError::UploadLost { .. } => UploadError::Lost(failure(error)),
        error => UploadError::Final(failure(error)),
    }
}
