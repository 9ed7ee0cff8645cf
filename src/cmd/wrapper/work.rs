//! The steps of a stage, one after the other, in this container.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context as _, bail};

use super::caches::Caches;
use crate::{
    domain::{
        files_layer,
        passwd::{User, look_up},
        recipe::{Names, Parents, RunMount, Step, TextFile},
        tail::LastBytes,
        value::ImagePath,
        wire::{Frame, WrapperFailure},
    },
    shell::{
        rooted::{self, Last, resolve},
        socket::{Channel, SocketError},
        steps::{Process, Steps},
        transient::Transient,
        unpack::{Manner, unpack, unpack_for_a_while},
    },
};

/// What a step says that cannot be done.
type Done = Result<(), WrapperFailure>;

/// A failure that is about files, of no step yet.
pub fn refused(message: impl Into<String>) -> WrapperFailure {
    WrapperFailure::Files { message: message.into(), step: None }
}

/// Steps under way.
pub struct Work<'a> {
    root: &'a Path,
    channel: &'a mut Channel,
    runner: Steps,
    transient: Transient,
    caches: Caches,
}

impl<'a> Work<'a> {
    /// Nothing done yet, in the container whose files are below `root`.
    pub fn new(root: &'a Path, channel: &'a mut Channel, runner: Steps) -> Self {
        Self { root, channel, runner, transient: Transient::default(), caches: Caches::new(root) }
    }

    /// The connection to the agent, between steps.
    pub fn channel(&mut self) -> &mut Channel {
        self.channel
    }

    /// Does one step; gives why it failed.
    pub fn step(&mut self, index: usize, step: &Step) -> anyhow::Result<Option<WrapperFailure>> {
        let done = match step {
            Step::CopySource { owner, transient, names, .. } | Step::CopyArtifact { owner, transient, names, .. } => {
                self.copy(index, owner.as_deref(), *transient, names.as_ref())?
            }
            Step::Run { mounts, .. } => self.run_with(mounts, index, step)?,
            Step::MakeDirectory { path, user } => self.make_directory(path, user.as_deref()).map_err(refused),
            Step::WriteFiles { files, owner } => self.write_files(files, owner.as_deref()).map_err(refused),
        };
        Ok(done.err())
    }

    /// Ends what the steps left running, and sends back what is in caches when all ended well. Gives the end of the log.
    pub fn finish(self, well: bool) -> anyhow::Result<LastBytes> {
        let log = self.runner.finish().context("failed to end what the steps left running")?;
        if well {
            self.caches.finish(self.channel)?;
        }
        Ok(log)
    }

    fn copy(
        &mut self,
        step: usize,
        owner: Option<&str>,
        for_a_while: bool,
        names: Option<&Names>,
    ) -> anyhow::Result<Done> {
        let user = match self.user(owner) {
            Ok(user) => user,
            Err(message) => return Ok(Err(refused(message))),
        };
        self.channel.send(&Frame::Want(u32::try_from(step)?))?;
        let mut reader = self.channel.data_reader();
        let result = if for_a_while {
            unpack_for_a_while(self.root, &mut reader).map(|written| self.transient.brought(written))
        } else {
            unpack(self.root, &mut reader, Manner { owner: user.map(|user| user.owner()), names })
        };
        // What is left is read, or the agent would wait for us to take it; nothing is left of a stream that broke.
        let _ = io::copy(&mut reader, &mut io::sink());
        match reader.stop() {
            Some(Ok(Frame::DataEnd)) => Ok(result.map_err(|error| refused(error.to_string()))),
            Some(Err(error)) => bail!(error),
            _ => bail!(SocketError::Unexpected("within an archive")),
        }
    }

    /// Runs a process with what it has for itself alone.
    fn run_with(&mut self, mounts: &[RunMount], index: usize, step: &Step) -> anyhow::Result<Done> {
        let variables = match self.enter(mounts)? {
            Ok(variables) => variables,
            Err(message) => return Ok(Err(refused(message))),
        };
        let done = self.run(index, step, variables)?;
        Ok(done.and_then(|()| self.leave().map_err(refused)))
    }

    /// Makes what a process has for itself alone; gives the variables of that, or what cannot be made.
    fn enter(&mut self, mounts: &[RunMount]) -> anyhow::Result<Result<BTreeMap<String, String>, String>> {
        let mut variables = BTreeMap::new();
        for mount in mounts {
            match self.transient.enter(self.root, mount, |name| std::env::var(name).ok()) {
                Ok(variable) => variables.extend(variable),
                Err(message) => return Ok(Err(message)),
            }
            if let RunMount::Cache { path, index, volume, .. } = mount {
                match resolve(self.root, path.relative().as_ref(), Last::Follow) {
                    Ok(full) => self.caches.bring(*index, (&full, *volume), self.channel)?,
                    Err(error) => return Ok(Err(format!("failed to find {path}: {error}"))),
                }
            }
        }
        Ok(Ok(variables))
    }

    /// Takes it away again.
    fn leave(&mut self) -> Result<(), String> {
        self.caches.leave();
        self.transient.leave().map_err(|error| format!("failed to take a step's mounts away: {error}"))
    }

    fn run(&mut self, index: usize, step: &Step, variables: BTreeMap<String, String>) -> anyhow::Result<Done> {
        let Step::Run { command, env, working_dir, user, offline, .. } = step else { return Ok(Ok(())) };
        let directory = self.root.join(working_dir.relative());
        let user = match self.user(user.as_deref()) {
            Ok(user) => user,
            Err(message) => return Ok(Err(refused(message))),
        };
        let env = env.clone().into_iter().chain(variables).collect();
        let process = Process { command, env: &env, directory: &directory, user: user.as_ref(), offline: *offline };
        let exit_code = self.runner.run(process).context("failed to run a step")?;
        Ok(if exit_code == 0 { Ok(()) } else { Err(WrapperFailure::Step { step: index, exit_code }) })
    }

    /// The user of the container that a step names.
    fn user(&self, user: Option<&str>) -> Result<Option<User>, String> {
        let Some(user) = user else { return Ok(None) };
        let read = |name: &str| fs::read_to_string(self.root.join(name)).unwrap_or_default();
        look_up(user, &read("etc/passwd"), &read("etc/group")).map(Some)
    }

    fn make_directory(&self, path: &ImagePath, user: Option<&str>) -> Result<(), String> {
        let owner = self.user(user)?.map(|user| user.owner());
        rooted::make_directory(self.root, path.relative().as_ref(), owner)
            .map_err(|error| format!("failed to make {path}: {error}"))
    }

    fn write_files(&self, files: &[TextFile], owner: Option<&str>) -> Result<(), String> {
        let owner = self.user(owner)?.map(|user| user.owner());
        let archive = files_layer::archive(files, Parents::None).map_err(|error| error.to_string())?;
        unpack(self.root, &archive[..], Manner { owner, names: None }).map_err(|error| error.to_string())
    }
}
