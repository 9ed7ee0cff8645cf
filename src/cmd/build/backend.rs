//! The agent's surroundings on this machine: the source in a directory or fetched once, artifacts in the store.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use super::world::{World, blocking};
use crate::{
    cmd::agent::{Backend, LayerStream, LayerUpload, UploadError, base::compose},
    domain::{
        artifact::Layer,
        debian::base::Composition,
        recipe::{Key, Recipe},
        snapshot::{Prefix, source_before},
        task::{AgentFailure, FailureReason, Limits, SourceTask},
        value::Digest,
    },
    shell::{
        chain, debian,
        source::{FetchEnvironment, fetch},
        store::{BlobWriter, StoreError},
    },
};

/// As in a Pod.
const FETCH_TIME: Duration = Duration::from_mins(30);
/// How much of a layer is read at once.
const PIECE: usize = 256 << 10;

/// One stage's view of the build.
#[derive(Clone)]
pub struct Local {
    /// The build.
    pub world: Arc<World>,
    /// The stage.
    pub stage: Stage,
}

/// What is to be known of a stage besides its task.
#[derive(Clone)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its recipe.
    pub recipe: Recipe,
    /// Where it can be cut; nowhere when nothing that is known counts.
    pub cuts: Vec<usize>,
    /// Told what its sandbox starts from when one is needed.
    pub start: watch::Sender<Option<Below>>,
}

/// What a sandbox starts from above the builder image.
#[derive(Debug, Clone, Default)]
pub struct Below {
    /// The layers of a snapshot; none is the builder image alone.
    pub layers: Vec<Layer>,
    /// When that snapshot was made, in seconds since 1970.
    pub made: Option<i64>,
}

/// A layer on its way into the store.
pub struct StoreUpload(BlobWriter);

impl Backend for Local {
    type Upload = StoreUpload;

    async fn fetch_source(&self, source: &SourceTask, into: &Path) -> Result<Option<i64>, AgentFailure> {
        if self.stage.recipe.remote.is_some() {
            let room = into.with_file_name("download");
            fs::create_dir(&room).map_err(|error| internal(&format!("failed to make {}", room.display()), &error))?;
            self.world.download(source, into, &room).await?;
            return Ok(None);
        }
        let from = self.world.source(source).await?;
        // The agent reads through the link; nothing is copied.
        let linked = fs::remove_dir(into).and_then(|()| symlink(&from, into));
        linked.map_err(|error| internal(&format!("failed to use {}", from.display()), &error))?;
        // When its commit was made only a resource's status tells.
        Ok(None)
    }

    async fn compose(
        &self,
        composition: &Composition,
        urls: &[String],
        work: &Path,
    ) -> Result<debian::Base, AgentFailure> {
        let http = self.world.http().await;
        let http = http.map_err(|error| AgentFailure::new(FailureReason::Internal, error.to_string()))?;
        self.world.progress.state(&self.stage.name, &format!("{} packages", urls.len()));
        compose(&http, (composition, urls), work, &Limits::default()).await
    }

    async fn lookup(&self, key: Key) -> Result<Option<Digest>, AgentFailure> {
        Ok(self.world.store.known(&key).map(|artifact| artifact.digest))
    }

    async fn start(&self, prefixes: &[Prefix]) -> Result<usize, AgentFailure> {
        let Stage { recipe, cuts, .. } = &self.stage;
        let (cut, below) = self.world.newest_snapshot(recipe, cuts, prefixes).unwrap_or_default();
        // Nobody listens when the sandbox has failed already, which is told elsewhere.
        let _ = self.stage.start.send(Some(below));
        Ok(cut)
    }

    async fn cache(&self, key: Key) -> Option<Layer> {
        self.world.store.saved_cache(&key)
    }

    async fn open_layer(&self, layer: &Layer) -> Result<LayerStream, AgentFailure> {
        let path = self.world.store.blob(layer.digest);
        let file = tokio::fs::File::open(&path).await;
        let file = file.map_err(|error| internal(&format!("failed to read {}", path.display()), &error))?;
        let pieces = ReaderStream::with_capacity(file, PIECE);
        Ok(pieces.map(|piece| piece.map_err(|error| internal("failed to read a layer", &error))).boxed())
    }

    async fn begin_upload(&self) -> Result<StoreUpload, UploadError> {
        self.world.store.writer().map(StoreUpload).map_err(|error| UploadError::Final(stored(&error)))
    }

    async fn push_blob(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        self.world.store.write(&bytes).map(|_| ()).map_err(|error| stored(&error))
    }

    async fn push_manifest(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        self.push_blob(bytes).await
    }
}

impl World {
    /// The last of `cuts` of which there is a snapshot that is not too old, and that.
    pub fn newest_snapshot(&self, recipe: &Recipe, cuts: &[usize], prefixes: &[Prefix]) -> Option<(usize, Below)> {
        let oldest = self.outline.snapshots.max_age.as_secs();
        let fresh = |made: i64| u64::try_from(self.now.as_second() - made).is_ok_and(|age| age < oldest);
        cuts.iter().rev().find_map(|cut| {
            let source = source_before(prefixes, *cut);
            let (artifact, made) = self.store.snapshot(&recipe.snapshot_key(*cut, source))?;
            fresh(made).then_some((*cut, Below { layers: artifact.layers, made: Some(made) }))
        })
    }

    /// The directory that is the source, or that it was fetched into.
    pub async fn source(&self, source: &SourceTask) -> Result<PathBuf, AgentFailure> {
        match &self.context {
            Some(context) => Ok(context.clone()),
            None => self.fetched.get_or_try_init(|| self.fetch_source(source)).await.cloned(),
        }
    }

    async fn fetch_source(&self, source: &SourceTask) -> Result<PathBuf, AgentFailure> {
        let failed = |error: &dyn std::fmt::Display| AgentFailure::new(FailureReason::Internal, error.to_string());
        let work = self.store.run_directory().map_err(|error| stored(&error))?;
        let [into, download] = ["source", "download"].map(|name| work.path().join(name));
        for path in [&into, &download] {
            fs::create_dir(path).map_err(|error| failed(&error))?;
        }
        self.download(source, &into, &download).await?;
        self.keep(work);
        Ok(into)
    }

    /// Fetches into the empty directory `into`, with `room` for what is downloaded.
    async fn download(&self, source: &SourceTask, into: &Path, room: &Path) -> Result<(), AgentFailure> {
        let http = self.http().await;
        let http = http.map_err(|error| AgentFailure::new(FailureReason::Internal, error.to_string()))?;
        let limits = Limits::default();
        let environment = FetchEnvironment {
            http: &http,
            // There are no Secrets here: what wants a login is checked out by its user and given as CONTEXT.
            secret_dir: room,
            config_map_dir: room,
            work_dir: room,
            limits: &limits,
            time: FETCH_TIME,
        };
        let fetched = fetch(source, &environment, into).await;
        let fetched = fetched.map_err(|error| AgentFailure::new(error.reason(), chain(&error)))?;
        fetched.warnings.iter().for_each(|warning| self.progress.warn(warning));
        Ok(())
    }
}

impl LayerUpload for StoreUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        // A page cache takes it; a thread of its own would cost more.
        self.0.write(&bytes).map_err(|error| UploadError::Final(stored(&error)))
    }

    async fn finish(self, digest: Digest, _size: u64) -> Result<(), UploadError> {
        let found = blocking(move || self.0.finish()).await;
        let found = found.map_err(|error| UploadError::Final(internal("failed to store a layer", &*error)))?;
        debug_assert_eq!(found, digest);
        Ok(())
    }
}

fn stored(error: &StoreError) -> AgentFailure {
    AgentFailure::new(FailureReason::Internal, chain(error))
}

fn internal(what: &str, error: &(dyn std::error::Error + 'static)) -> AgentFailure {
    AgentFailure::new(FailureReason::Internal, format!("{what}: {}", chain(error)))
}
