//! `agent`: fetches what a stage needs, hands it to the wrapper, and turns what comes back into an artifact.

mod archives;
mod backend;
pub(super) mod base;
mod inputs;
mod outputs;
mod remote;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use archives::Archives;
pub use backend::{Backend, LayerStream, LayerUpload, UploadError};
pub(super) use inputs::{Inputs, ignore_of};
use outputs::Outputs;
pub use remote::Remote;
use tokio::net::UnixListener;

use crate::{
    cmd::wrapper::{FINISHED, Origin, serve_outputs},
    domain::{
        caches::MOST_BYTES,
        intake::Allowance,
        recipe::{Key, Step},
        snapshot::SnapshotTask,
        task::{AgentFailure, AgentMessage, FailureReason, StageTask},
        value::Digest,
        wire::{Frame, Setup, WrapperFailure},
    },
    shell::{
        collect::{Room, Scope},
        signals::Termination,
        socket::{Channel, SocketError},
    },
};

/// How long it may take to tie together what was sent, when the stage is over: the kubelet kills after ten seconds.
const LAST_REQUESTS: Duration = Duration::from_secs(8);
/// Of all archives of a stage's caches: each of a few may be as large as one can be.
const CACHE_BYTES: u64 = 4 * MOST_BYTES;
const NO_CACHE: SocketError = SocketError::Unexpected("a cache that the stage does not have");

/// Where the agent works.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Where it listens, in the directory that both containers share.
    pub socket: PathBuf,
    /// Scratch space that the build container does not see.
    pub work_dir: PathBuf,
    /// Where the kubelet reads the last words of a container.
    pub termination_log: PathBuf,
    /// Compression threads, at least one; the layers' bytes do not depend on it.
    pub threads: usize,
}

/// Does one stage, writes the termination message, and gives the exit code.
pub async fn run(task: StageTask, settings: AgentSettings, backend: impl Backend) -> u8 {
    let mut message = AgentMessage::default();
    let allowance = Allowance { bytes: task.limits.artifact_bytes, entries: task.limits.artifact_entries };
    let mut snapshots = Archives::new(&backend, "snapshot", allowance, settings.threads);
    let result = match Termination::new() {
        Ok(mut termination) => tokio::select! {
            result = stage(&task, &settings, &mut snapshots, &mut message) => result,
            () = termination.requested() => Err(AgentFailure::new(
                FailureReason::BuildInterrupted,
                "the build was stopped from outside (deadline, eviction or deletion)",
            )),
        },
        Err(error) => Err(internal("failed to listen for signals", &error)),
    };
    // Of a stage that failed or took too long too: the next try begins behind them.
    message.snapshots = tokio::time::timeout(LAST_REQUESTS, snapshots.commit()).await.unwrap_or_default();
    message.failure = result.err();
    let written = fs::write(&settings.termination_log, message.text());
    u8::from(message.failure.is_some() || written.is_err())
}

async fn stage<B: Backend>(
    task: &StageTask,
    settings: &AgentSettings,
    snapshots: &mut Archives<'_, B>,
    message: &mut AgentMessage,
) -> Result<(), AgentFailure> {
    let backend = snapshots.backend();
    let start = Instant::now();
    let needs_wrapper = task.recipe.image.is_some();
    // Listening comes first: the wrapper starts at about the same time.
    let listener = if needs_wrapper { Some(listen(&settings.socket)?) } else { None };
    let source = settings.work_dir.join("source");
    if let Some(origin) = &task.source {
        fs::create_dir_all(&source)
            .map_err(|error| internal(&format!("failed to make {}", source.display()), &error))?;
        let fetched = backend.fetch_source(origin, &source).await;
        if task.recipe.remote.is_some() {
            // The time of another repository's commit is not the source's.
            fetched.map_err(|failure| task.places.at_any_source(failure))?;
        } else {
            message.source_time = fetched?;
        }
    }
    let room = Room { directory: settings.work_dir.clone(), limits: task.limits.clone() };
    let inputs = Inputs::prepare(&task.recipe, &task.places, &source, room.clone()).await?;
    message.source = inputs.digest();
    message.prefixes = inputs.prefixes(&task.snapshots.cuts);
    message.timings.fetch = milliseconds(start.elapsed());
    if !task.no_cache
        && let Some(artifact) = backend.lookup(task.recipe.exact_key(message.source)).await?
    {
        message.artifact = Some(artifact);
        message.cached = true;
        return dismiss(listener, settings).await;
    }
    if let Some(composition) = &task.recipe.packages {
        return base::make((task, backend, composition), settings, message).await;
    }
    let Some(listener) = listener else {
        return without_wrapper((task, backend), settings, (source, room), message).await;
    };
    let start = backend.start(&message.prefixes).await?;
    let channel = accept(listener).await?;
    // Whatever ends this function ends the threads that block on the connection.
    let _hangup = channel.hangup();
    snapshots.chain(start);
    let allowance = Allowance { bytes: CACHE_BYTES, entries: task.limits.artifact_entries };
    let mut caches = Archives::new(backend, "cache", allowance, settings.threads);
    let plan = SnapshotTask { start, ..task.snapshots.clone() };
    let (channel, steps) = run_steps((task, backend, plan), (snapshots, &mut caches), inputs, channel).await?;
    message.caches = caches.commit().await;
    message.timings.steps = milliseconds(steps);
    finish(task, settings, backend, channel, message).await
}

/// The stage `source` and those of ADD: the agent takes the outputs from what it fetched, through the same checks.
async fn without_wrapper<B: Backend>(
    (task, backend): (&StageTask, &B),
    settings: &AgentSettings,
    (source, room): (PathBuf, Room),
    message: &mut AgentMessage,
) -> Result<(), AgentFailure> {
    let pair = std::os::unix::net::UnixStream::pair();
    let (ours, theirs) = pair.map_err(|error| internal("failed to make a socket", &error))?;
    let (outputs, ignore) = (task.recipe.outputs.clone(), inputs::ignore_of(&task.recipe)?);
    let server = tokio::task::spawn_blocking(move || {
        let from = Origin { root: &source, scope: Scope::Source, ignore: &ignore, room: Some(&room), changes: None };
        serve_outputs(&mut Channel::new(theirs), &from, &outputs)
    });
    let channel = Channel::new(ours);
    let hangup = channel.hangup();
    let result = finish(task, settings, backend, channel, message).await;
    drop(hangup);
    // What it has to say came through the socket.
    let _ = server.await;
    result
}

async fn finish<B: Backend>(
    task: &StageTask,
    settings: &AgentSettings,
    backend: &B,
    channel: Channel,
    message: &mut AgentMessage,
) -> Result<(), AgentFailure> {
    let start = Instant::now();
    let outputs = Outputs {
        recipe: &task.recipe,
        places: &task.places,
        limits: &task.limits,
        threads: settings.threads,
        backend,
    };
    let (channel, artifact) = outputs.commit(channel).await?;
    message.artifact = Some(artifact);
    message.timings.pack = milliseconds(start.elapsed());
    // Everything is committed; a wrapper that is gone by now takes nothing away from that.
    let _ = blocking(channel, |channel| channel.send(&Frame::End)).await;
    Ok(())
}

/// Hands over the steps and what they copy; gives the time from the first step to the end of the last.
async fn run_steps<B: Backend>(
    (task, backend, plan): (&StageTask, &B, SnapshotTask),
    (snapshots, caches): (&mut Archives<'_, B>, &mut Archives<'_, B>),
    mut inputs: Inputs,
    channel: Channel,
) -> Result<(Channel, Duration), AgentFailure> {
    let setup = Frame::Setup(Box::new(Setup {
        steps: task.recipe.steps.clone(),
        outputs: task.recipe.outputs.clone(),
        secret_variables: task.recipe.env_from.clone(),
        ca_certificates: task.network.ca_certificates.clone().filter(|_| task.inject_ca),
        snapshots: plan,
    }));
    let (mut channel, sent) = blocking(channel, move |channel| channel.send(&setup)).await?;
    sent.map_err(interrupted)?;
    let start = Instant::now();
    loop {
        let (next, frame) = blocking(channel, Channel::receive).await?;
        channel = next;
        match frame.map_err(interrupted)? {
            Frame::Want(step) => {
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                // What ran before it has been told of, or never will be.
                snapshots.pass(step);
                channel = match task.recipe.steps.get(step) {
                    Some(Step::CopySource { .. }) => inputs.send_source(step, channel).await?,
                    Some(Step::CopyArtifact { input, .. }) => {
                        let layer = task.inputs.get(*input).ok_or_else(|| no_input(*input))?;
                        inputs::send_artifact(backend, layer, task.limits.artifact_bytes, channel).await?
                    }
                    _ => return Err(interrupted(SocketError::Unexpected("a copy that is no step"))),
                };
            }
            Frame::Snapshot(step) => {
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                if !task.snapshots.cuts.contains(&step) {
                    return Err(interrupted(SocketError::Unexpected("a snapshot that nobody asked for")));
                }
                channel = snapshots.take(step, channel).await?;
            }
            Frame::WantCache(index) => {
                let key = cache_key(task, index).ok_or_else(|| interrupted(NO_CACHE))?;
                let layer = if task.no_cache { None } else { backend.cache(key).await };
                channel = inputs::send_cache(backend, layer.as_ref(), channel).await?;
            }
            Frame::Cache(index) => {
                cache_key(task, index).ok_or_else(|| interrupted(NO_CACHE))?;
                channel = caches.take(usize::try_from(index).unwrap_or(usize::MAX), channel).await?;
            }
            Frame::Done => return Ok((channel, start.elapsed())),
            Frame::Failed(failure) => {
                let failure = named(failure, task);
                return Err(failure);
            }
            _ => return Err(interrupted(SocketError::Unexpected("within the steps"))),
        }
    }
}

fn cache_key(task: &StageTask, index: u32) -> Option<Key> {
    task.caches.get(usize::try_from(index).ok()?).copied()
}

fn listen(socket: &Path) -> Result<UnixListener, AgentFailure> {
    // Left over from an earlier run of the same container.
    let _ = fs::remove_file(socket);
    let _ = fs::remove_file(socket.with_file_name(FINISHED));
    let listener = UnixListener::bind(socket);
    let listener = listener.map_err(|error| internal(&format!("failed to listen at {}", socket.display()), &error))?;
    // The build container may run as another user.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(socket, mode).map_err(|error| internal("failed to open the socket to others", &error))?;
    Ok(listener)
}

/// The first connection is the wrapper's, which runs before any user code; no second one is ever taken.
async fn accept(listener: UnixListener) -> Result<Channel, AgentFailure> {
    let failed = |error: std::io::Error| internal("failed to accept the wrapper's connection", &error);
    let (stream, _) = listener.accept().await.map_err(failed)?;
    let stream = stream.into_std().map_err(failed)?;
    stream.set_nonblocking(false).map_err(failed)?;
    Ok(Channel::new(stream))
}

/// Tells the wrapper that there is nothing to do, now or when it comes; never waits for it.
async fn dismiss(listener: Option<UnixListener>, settings: &AgentSettings) -> Result<(), AgentFailure> {
    let Some(listener) = listener else { return Ok(()) };
    // create_new follows no link, should anybody have put one there.
    let _ = fs::File::create_new(settings.socket.with_file_name(FINISHED));
    // A wrapper that waits already is accepted at once; the time limit only lets the runtime look.
    if let Ok(Ok(channel)) = tokio::time::timeout(Duration::from_millis(5), accept(listener)).await {
        let _ = blocking(channel, |channel| channel.send(&Frame::End)).await;
    }
    Ok(())
}

/// Uses the channel on a thread that may block.
async fn blocking<C: Send + 'static, T: Send + 'static>(
    mut channel: C,
    work: impl FnOnce(&mut C) -> T + Send + 'static,
) -> Result<(C, T), AgentFailure> {
    let joined = tokio::task::spawn_blocking(move || {
        let result = work(&mut channel);
        (channel, result)
    });
    joined.await.map_err(|error| internal("a thread of the agent ended early", &error))
}

/// What a broken connection means for the stage.
fn interrupted(error: SocketError) -> AgentFailure {
    match error {
        SocketError::Gone(_) => AgentFailure::new(
            FailureReason::BuildInterrupted,
            "the build container ended before it was done; if it ran out of memory, raise the stage's memory limit",
        ),
        other => AgentFailure::new(FailureReason::ArtifactInvalid, other.to_string()),
    }
}

/// The same with the words of the step that failed: people know their command, not its number.
fn named(failure: WrapperFailure, task: &StageTask) -> AgentFailure {
    let (step, command) = match &failure {
        WrapperFailure::Step { step, .. } => (Some(*step), task.recipe.steps.get(*step).and_then(Step::command_line)),
        WrapperFailure::Files { step, .. } => (*step, None),
        WrapperFailure::Missing { .. } => (None, None),
    };
    let failure = stage_failure(failure);
    let failure = match command {
        Some(command) => AgentFailure { message: format!("`{command}`: {}", failure.message), ..failure },
        None => failure,
    };
    task.places.at_step(step, failure)
}

/// What the wrapper's failure means for the stage.
fn stage_failure(failure: WrapperFailure) -> AgentFailure {
    match failure {
        WrapperFailure::Step { step, exit_code } => {
            let text =
                format!("step {} of the stage ended with exit code {exit_code}; see its log", step.saturating_add(1));
            AgentFailure { exit_code: Some(exit_code), ..AgentFailure::new(FailureReason::StepFailed, text) }
        }
        WrapperFailure::Missing { path, nearby } => missing(&path, &nearby),
        WrapperFailure::Files { message, .. } => AgentFailure::new(FailureReason::ArtifactInvalid, message),
    }
}

fn missing(path: &str, nearby: &[String]) -> AgentFailure {
    let near = if nearby.is_empty() { "nothing".to_owned() } else { nearby.join(", ") };
    let text = format!("{path} does not exist after the steps; the nearest directory that does holds: {near}");
    AgentFailure::new(FailureReason::ArtifactPathMissing, text)
}

fn no_input(input: usize) -> AgentFailure {
    AgentFailure::new(FailureReason::Internal, format!("the task names no layer for input {input}"))
}

fn internal(what: &str, error: &dyn std::error::Error) -> AgentFailure {
    AgentFailure::new(FailureReason::Internal, format!("{what}: {error}"))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The content digest of several archives, in their order.
fn combined(digests: &[Digest]) -> Digest {
    let text: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
    Digest::of(text.as_bytes())
}
