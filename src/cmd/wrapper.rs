//! `wrapper`: the first process of a build container. Does what the agent says and holds no secret but the container's own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};

mod caches;
mod keeper;
mod work;

use keeper::Keeper;
use work::{Work, refused};

use crate::{
    domain::{
        dockerfile::ignore::Ignore,
        environment::{CA_BUNDLES, environment},
        passwd::{FALLBACK_HOME, home},
        recipe::{Output, Step},
        tail::LastBytes,
        wire::{Frame, STEP_LINE, Setup, WrapperFailure},
    },
    shell::{
        collect::{self, CollectError, Room, Scope, collect},
        net::carried_roots,
        signals::Termination,
        snapshot::{Changes, Times},
        socket::{Channel, SocketError},
        steps::{Interrupt, Steps, TERMINATED},
    },
};

/// Beside the socket: the agent has ended without needing a build container.
pub const FINISHED: &str = "finished";
/// How long the agent may take to listen; it starts before us.
const CONNECT_LIMIT: Duration = Duration::from_mins(1);

/// Where the wrapper works.
#[derive(Debug, Clone)]
pub struct WrapperSettings {
    /// The agent's socket, in the directory that both containers share.
    pub socket: PathBuf,
    /// `/`, except in tests and on a laptop.
    pub root: PathBuf,
    /// Where the kubelet reads the last words of a container.
    pub termination_log: PathBuf,
}

/// Runs a stage and gives the exit code for the container: that of the failing step, 1 for other failures.
pub async fn run(settings: WrapperSettings) -> u8 {
    let result = supervised(&settings).await;
    let code = result.unwrap_or_else(|error| {
        last_words(&settings, &format!("{error:#}"));
        1
    });
    u8::try_from(code).unwrap_or(1)
}

/// Runs the session on a thread of its own, so that signals reach the steps meanwhile.
async fn supervised(settings: &WrapperSettings) -> anyhow::Result<i32> {
    let mut termination = Termination::new().context("failed to listen for signals")?;
    let interrupt = Arc::new(Interrupt::default());
    let mut work = {
        let (settings, interrupt) = (settings.clone(), Arc::clone(&interrupt));
        tokio::task::spawn_blocking(move || session(&settings, &interrupt))
    };
    loop {
        tokio::select! {
            result = &mut work => return result.context("the wrapper's thread ended early")?,
            () = termination.requested() => if !interrupt.terminate() {
                // Nothing of the user runs: there is nothing to wait for.
                return Ok(TERMINATED);
            },
        }
    }
}

fn session(settings: &WrapperSettings, interrupt: &Arc<Interrupt>) -> anyhow::Result<i32> {
    let finished = settings.socket.with_file_name(FINISHED);
    let channel = Channel::connect(&settings.socket, CONNECT_LIMIT, || finished.exists());
    let Some(mut channel) = channel.context("unable to reach the agent")? else { return Ok(0) };
    let setup = match channel.receive() {
        Ok(Frame::End) => return Ok(0),
        Ok(Frame::Setup(setup)) => setup,
        // The agent ended between our connecting and its looking.
        Err(SocketError::Gone(_)) if finished.exists() => return Ok(0),
        Err(error) => bail!(error),
        Ok(_) => bail!(SocketError::Unexpected("before the setup")),
    };
    let changes = match steps(settings, &setup, &mut channel, interrupt)? {
        Ended::Failed(code) => return Ok(code),
        Ended::Well(changes) => changes,
    };
    channel.send(&Frame::Done)?;
    let from =
        Origin { root: &settings.root, scope: Scope::Container, ignore: &Ignore::default(), room: None, changes };
    if let Some(failure) = serve_outputs(&mut channel, &from, &setup.outputs)? {
        last_words(settings, &describe(&failure));
        return Ok(1);
    }
    Ok(0)
}

/// How the steps ended.
enum Ended {
    /// The exit code of the one that failed, of which the agent knows.
    Failed(i32),
    /// All were done; what they changed, where that was asked for.
    Well(Option<Changes>),
}

/// Goes through the steps.
fn steps(
    settings: &WrapperSettings,
    setup: &Setup,
    channel: &mut Channel,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<Ended> {
    // Steps may run as the same user: what our own environment holds, secrets of other steps, is not theirs to read.
    let sealed = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    sealed.context("failed to close this process to others")?;
    let home = make_home(&settings.root);
    let ca_file = setup.ca_certificates.as_deref().map(|pem| ca_file(settings, pem)).transpose()?;
    let ca_file = ca_file.as_ref().map(|path| path.as_os_str());
    let runner = Steps::start(environment(std::env::vars_os(), home.as_os_str(), ca_file), Arc::clone(interrupt))?;
    let mut work = Work::new(&settings.root, channel, runner);
    let mut failure = None;
    let mut keeper = Keeper::new(&settings.root, setup);
    for (index, step) in setup.steps.iter().enumerate().skip(setup.snapshots.start) {
        keeper.keep(index, work.channel())?;
        announce(setup, index, step);
        failure = work.step(index, step)?;
        if let Some(failure) = &mut failure {
            if let WrapperFailure::Files { step, .. } = failure {
                *step = Some(index);
            }
            break;
        }
    }
    let log = work.finish(failure.is_none())?;
    let changes = match failure {
        Some(failure) => Err(failure),
        None => keeper.changes(&setup.outputs).map_err(|error| refused(error.to_string())),
    };
    let failure = match changes {
        Ok(changes) => return Ok(Ended::Well(changes)),
        Err(failure) => failure,
    };
    let code = match &failure {
        WrapperFailure::Step { exit_code, .. } => {
            last_words(settings, &log_tail(&log, setup));
            *exit_code
        }
        failure => {
            last_words(settings, &describe(failure));
            1
        }
    };
    // The code counts even when the agent is gone.
    let _ = channel.send(&Frame::Failed(failure));
    Ok(Ended::Failed(code))
}

/// Says in the log which command is next, where there are several steps.
fn announce(setup: &Setup, index: usize, step: &Step) {
    if let (Some(command), 2..) = (step.command_line(), setup.steps.len()) {
        eprintln!("{STEP_LINE}{} of {}: {command}", index + 1, setup.steps.len());
    }
}

/// Where outputs are taken from.
pub struct Origin<'a> {
    /// Paths are below it.
    pub root: &'a Path,
    /// Whether it is a container or a source.
    pub scope: Scope,
    /// What of it is not seen.
    pub ignore: &'a Ignore,
    /// Where archives are unpacked.
    pub room: Option<&'a Room>,
    /// What was changed in it, for outputs of all changes.
    pub changes: Option<Changes>,
}

/// Sends outputs as often as the agent asks, until it says that all is done. Gives why nothing more can be sent.
pub fn serve_outputs(
    channel: &mut Channel,
    from: &Origin<'_>,
    outputs: &[Output],
) -> Result<Option<WrapperFailure>, SocketError> {
    loop {
        let index = match channel.receive()? {
            Frame::SendOutput(index) => index,
            Frame::End => return Ok(None),
            _ => return Err(SocketError::Unexpected("after the steps")),
        };
        let output = usize::try_from(index).ok().and_then(|index| outputs.get(index));
        let output = output.ok_or(SocketError::Unexpected("an output that does not exist"))?;
        let mut writer = channel.data_writer();
        let written = match from.changes.as_ref().filter(|_| output.changes) {
            Some(changes) => {
                changes.write(from.root, Times::Zero, &mut writer).map_err(|source| CollectError::Write { source })
            }
            None => collect(from.root, output, from.scope, from.ignore, from.room)
                .and_then(|tree| collect::write(&tree, &mut writer).map(drop)),
        };
        let result = written
            .and_then(|()| writer.finish().map_err(|error| CollectError::Write { source: io::Error::other(error) }));
        if let Err(error) = result {
            let failure = failure(error);
            channel.send(&Frame::Failed(failure.clone()))?;
            return Ok(Some(failure));
        }
    }
}

fn failure(error: CollectError) -> WrapperFailure {
    match error {
        CollectError::Missing { source_path, nearby } => WrapperFailure::Missing { path: source_path, nearby },
        other => WrapperFailure::Files { message: other.to_string().chars().take(1000).collect(), step: None },
    }
}

fn describe(failure: &WrapperFailure) -> String {
    match failure {
        WrapperFailure::Step { step, exit_code } => format!("step {step} ended with code {exit_code}"),
        WrapperFailure::Missing { path, nearby } => format!("{path} does not exist; near it: {}", nearby.join(", ")),
        WrapperFailure::Files { message, .. } => message.clone(),
    }
}

fn log_tail(log: &LastBytes, setup: &Setup) -> String {
    let secrets: Vec<String> = setup.secret_variables.iter().filter_map(|name| std::env::var(name).ok()).collect();
    log.tail(&secrets)
}

/// A directory that the steps may call their home: the container's, the user's, or one below `/tmp`.
fn make_home(root: &Path) -> PathBuf {
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let below = |home: &str| root.join(home.trim_start_matches('/'));
    let own = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute() && home != Path::new("/"));
    let users = home(&users, rustix::process::geteuid().as_raw()).map(below);
    let writable = |home: &PathBuf| {
        fs::create_dir_all(home).is_ok() && rustix::fs::access(home, rustix::fs::Access::WRITE_OK).is_ok()
    };
    own.into_iter().chain(users).find(writable).unwrap_or_else(|| {
        let fallback = below(FALLBACK_HOME);
        // Where not even /tmp can be written, the step itself says it best.
        let _ = fs::create_dir_all(&fallback);
        fallback
    })
}

/// A file with the image's own CA certificates, or the usual ones where it has none, and `pem`.
fn ca_file(settings: &WrapperSettings, pem: &str) -> anyhow::Result<PathBuf> {
    let own = CA_BUNDLES.iter().find_map(|bundle| fs::read_to_string(settings.root.join(bundle)).ok());
    let path = settings.socket.with_file_name("ca.pem");
    fs::write(&path, format!("{}\n{pem}", own.unwrap_or_else(carried_roots)))
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

fn last_words(settings: &WrapperSettings, text: &str) {
    // Best effort: the exit code says the essential.
    let _ = fs::write(&settings.termination_log, text);
}
