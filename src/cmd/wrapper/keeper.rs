//! Snapshots as the wrapper makes them: between two steps, while nothing runs.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    domain::{
        snapshot::{SnapshotTask, pays},
        wire::{Frame, WrapperFailure},
    },
    shell::{
        snapshot::{Changes, Scan},
        socket::{Channel, SocketError},
    },
};

/// Makes snapshots at a stage's cuts.
pub struct Keeper {
    root: PathBuf,
    cuts: Vec<usize>,
    always: bool,
    /// What the files were when the last snapshot was made, and when that was.
    before: Option<(Scan, Instant)>,
}

impl Keeper {
    /// Looks at the container's files as they are before its first step, if there is a cut ahead.
    pub fn new(root: &Path, task: &SnapshotTask) -> Self {
        let cuts: Vec<usize> = task.ahead().collect();
        let mut keeper = Self { root: root.to_owned(), cuts, always: task.always, before: None };
        if !keeper.cuts.is_empty() {
            keeper.before = told(Scan::of(root)).map(|scan| (scan, Instant::now()));
        }
        keeper
    }

    /// Makes a snapshot of what the steps before `step` changed, if there is a cut and it pays. Fails only with the connection.
    pub fn keep(&mut self, step: usize, channel: &mut Channel) -> Result<(), SocketError> {
        let Some((before, since)) = self.before.as_ref().filter(|_| self.cuts.contains(&step)) else { return Ok(()) };
        let took = since.elapsed();
        if !self.always && !pays(took, 0) {
            return Ok(());
        }
        let Some(now) = told(Scan::of(&self.root)) else { return Ok(()) };
        let Some(changes) = told(now.since(before, &self.root)) else { return Ok(()) };
        if !self.always && !pays(took, changes.bytes) {
            return Ok(());
        }
        channel.send(&Frame::Snapshot(u32::try_from(step).unwrap_or(u32::MAX)))?;
        if send(&changes, &self.root, channel)? {
            self.before = Some((now, Instant::now()));
        }
        Ok(())
    }
}

/// Gives whether all of it was sent.
fn send(changes: &Changes, root: &Path, channel: &mut Channel) -> Result<bool, SocketError> {
    let mut writer = channel.data_writer();
    match changes.write(root, &mut writer) {
        Ok(()) => writer.finish().map(|()| true),
        Err(error) => {
            let message = error.to_string();
            told::<()>(Err(error));
            channel.send(&Frame::Failed(WrapperFailure::Files { message })).map(|()| false)
        }
    }
}

/// The result, or nothing and a line on standard error: a build goes on without a snapshot.
fn told<T>(result: io::Result<T>) -> Option<T> {
    result.map_err(|error| eprintln!("minimalimage: no snapshot is made: {error}")).ok()
}
