//! What the steps copy: files of the source, whose digest is part of the stage's key, and artifact layers of other stages.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use tokio::runtime::Handle;

use super::{Backend, LayerStream, blocking, combined, internal, interrupted};
use crate::{
    domain::{
        artifact::Layer,
        caches::MOST_BYTES,
        dockerfile::{Problem, ignore::Ignore},
        recipe::{Output, Parents, Recipe, Step},
        snapshot::Prefix,
        task::{AgentFailure, FailureReason, Places},
        tree::FileTree,
        value::{Digest, DigestHasher},
        wire::{Frame, WrapperFailure},
    },
    shell::{
        collect::{self, CollectError, Room, Scope, Stored, collect},
        socket::Channel,
    },
};

/// The source's files by the step that copies them.
pub struct Inputs {
    trees: BTreeMap<usize, (FileTree<Stored>, Digest)>,
    digest: Option<Digest>,
}

impl Inputs {
    /// Looks at everything that the recipe takes from the source at `root` and computes its content digest; archives of ADD are
    /// unpacked into `room` until they are sent.
    pub async fn prepare(recipe: &Recipe, places: &Places, root: &Path, room: Room) -> Result<Self, AgentFailure> {
        if !recipe.uses_source() {
            return Ok(Self { trees: BTreeMap::new(), digest: None });
        }
        let (recipe, places, root) = (recipe.clone(), places.clone(), root.to_owned());
        let prepared = tokio::task::spawn_blocking(move || prepare(&recipe, &places, &root, &room)).await;
        prepared.map_err(|error| internal("a thread of the agent ended early", &error))?
    }

    /// Digest of exactly the files that the steps see: paths, executable bits, contents and link targets, and of what is in
    /// archives modes and owners.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Digests of what the steps before each of `cuts` take from the source, where they take anything.
    pub fn prefixes(&self, cuts: &[usize]) -> Vec<Prefix> {
        let taken = |cut: usize| -> Vec<Digest> { self.trees.range(..cut).map(|(_, (_, digest))| *digest).collect() };
        let prefix = |cut: &usize| (*cut, taken(*cut));
        let taking = cuts.iter().map(prefix).filter(|(_, taken)| !taken.is_empty());
        taking.map(|(step, taken)| Prefix { step, source: combined(&taken) }).collect()
    }

    /// Sends the archive of a step that copies from the source.
    pub async fn send_source(&mut self, step: usize, channel: Channel) -> Result<Channel, AgentFailure> {
        let tree = self.trees.remove(&step);
        let (tree, digest) =
            tree.ok_or_else(|| AgentFailure::new(FailureReason::ArtifactInvalid, "a step was asked for twice"))?;
        let (channel, sent) = blocking(channel, move |channel| {
            let mut writer = channel.data_writer();
            let written = collect::write(&tree, &mut writer);
            // Sending fails with the connection; reading our own copy of the source should not fail at all.
            let sent = written.map_err(source_failure)?;
            if sent != digest {
                let text = "the source was changed while it was built: build again";
                return Err(AgentFailure::new(FailureReason::SourceInvalid, text));
            }
            writer.finish().map_err(interrupted)
        })
        .await?;
        sent.map(|()| channel)
    }
}

fn prepare(recipe: &Recipe, places: &Places, root: &Path, room: &Room) -> Result<Inputs, AgentFailure> {
    let ignore = ignore_of(recipe)?;
    let mut trees = BTreeMap::new();
    let mut digests = Vec::new();
    for (index, step) in recipe.steps.iter().enumerate() {
        if let Step::CopySource { items, .. } = step {
            let placed = |error| places.at_step(Some(index), source_failure(error));
            let output = Output::copies(items.clone(), Parents::None);
            let tree = collect(root, &output, Scope::Source, &ignore, Some(room)).map_err(placed)?;
            let digest = collect::write(&tree, io::sink()).map_err(source_failure)?;
            digests.push(digest);
            trees.insert(index, (tree, digest));
        }
    }
    if recipe.image.is_none() {
        for output in &recipe.outputs {
            let placed = |error| output_failure(error, places);
            let tree = collect(root, output, Scope::Source, &ignore, Some(room)).map_err(placed)?;
            digests.push(collect::write(&tree, io::sink()).map_err(source_failure)?);
        }
    }
    Ok(Inputs { trees, digest: Some(combined(&digests)) })
}

/// What the recipe hides of the source.
pub fn ignore_of(recipe: &Recipe) -> Result<Ignore, AgentFailure> {
    Ignore::parse(&recipe.ignore.join("\n")).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(Problem::sentence).collect();
        AgentFailure::new(FailureReason::SourceInvalid, format!("the ignore file: {}", problems.join("; ")))
    })
}

fn source_failure(error: CollectError) -> AgentFailure {
    match error {
        CollectError::Missing { source_path, nearby } => {
            let text = format!("the source has no {source_path}; near it there is: {}", nearby.join(", "));
            AgentFailure::new(FailureReason::SourceInvalid, text)
        }
        // The only sink that can fail is the connection.
        CollectError::Write { .. } => {
            interrupted(crate::shell::socket::SocketError::Gone(io::ErrorKind::BrokenPipe.into()))
        }
        other => AgentFailure::new(FailureReason::SourceInvalid, other.to_string()),
    }
}

fn output_failure(error: CollectError, places: &Places) -> AgentFailure {
    let source = error.source_path().unwrap_or_default().to_owned();
    places.at_source(&source, source_failure(error))
}

/// Sends an artifact layer, decompressed, and holds it against its diff ID.
pub async fn send_artifact<B: Backend>(
    backend: &B,
    layer: &Layer,
    limit: u64,
    channel: Channel,
) -> Result<Channel, AgentFailure> {
    let stream = backend.open_layer(layer).await?;
    let (channel, sent) = send_layer(stream, layer, limit, channel).await?;
    sent.map(|()| channel)
}

/// Sends what a cache holds; nothing where there is none. One that cannot be read to its end breaks off, and the stage goes on.
pub async fn send_cache<B: Backend>(
    backend: &B,
    layer: Option<&Layer>,
    channel: Channel,
) -> Result<Channel, AgentFailure> {
    let opened = match layer {
        None => None,
        Some(layer) => backend.open_layer(layer).await.map(|stream| (stream, layer)).map_err(ignored).ok(),
    };
    let Some((stream, layer)) = opened else {
        let (channel, sent) = blocking(channel, |channel| channel.send(&Frame::DataEnd)).await?;
        return sent.map(|()| channel).map_err(interrupted);
    };
    // Headers and padding beside the files' own bytes.
    let limit = MOST_BYTES.saturating_mul(2);
    let (channel, sent) = send_layer(stream, layer, limit, channel).await?;
    let Err(failure) = sent else { return Ok(channel) };
    let message = failure.message.clone();
    ignored(failure);
    let broken = Frame::Failed(WrapperFailure::Files { message, step: None });
    let (channel, sent) = blocking(channel, move |channel| channel.send(&broken)).await?;
    sent.map(|()| channel).map_err(interrupted)
}

fn ignored(failure: AgentFailure) {
    tracing::warn!(message = failure.message, "a cache cannot be read");
}

async fn send_layer(
    stream: LayerStream,
    layer: &Layer,
    limit: u64,
    channel: Channel,
) -> Result<(Channel, Result<(), AgentFailure>), AgentFailure> {
    let (diff_id, handle) = (layer.diff_id, Handle::current());
    blocking(channel, move |channel| {
        let mut bytes = StreamBytes { handle, stream, current: Bytes::new(), failure: None };
        let mut layer = Hashing { inner: MultiGzDecoder::new(&mut bytes).take(limit), hasher: DigestHasher::default() };
        let mut writer = channel.data_writer();
        let copied = copy(&mut layer, &mut writer);
        let seen = layer.hasher.finish();
        match copied {
            Ok(()) if seen == diff_id => writer.finish().map_err(interrupted),
            Ok(()) => Err(broken(diff_id)),
            Err(Copy::Read) => Err(bytes.failure.unwrap_or_else(|| broken(diff_id))),
            Err(Copy::Write(error)) => Err(interrupted(crate::shell::socket::SocketError::Gone(error))),
        }
    })
    .await
}

fn broken(diff_id: Digest) -> AgentFailure {
    let text =
        format!("the cache repository holds an artifact layer that is not what it should be ({diff_id}); delete it");
    AgentFailure::new(FailureReason::RegistryUnavailable, text)
}

enum Copy {
    Read,
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<(), Copy> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default()).map_err(Copy::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Copy::Read),
        }
    }
}

struct Hashing<R> {
    inner: R,
    hasher: DigestHasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// A stream as a `Read` for a thread that may block.
struct StreamBytes {
    handle: Handle,
    stream: LayerStream,
    current: Bytes,
    failure: Option<AgentFailure>,
}

impl Read for StreamBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the layer cannot be read"));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        let (filled, _) = buffer.split_at_mut(count);
        self.current.copy_to_slice(filled);
        Ok(count)
    }
}
