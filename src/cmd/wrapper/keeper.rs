//! What steps change in their container, for snapshots between two of them and for an output of all changes. Looked at while
//! nothing runs.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    domain::{
        recipe::Output,
        snapshot::pays,
        value::human_size,
        wire::{Frame, Setup, WrapperFailure},
    },
    shell::{
        snapshot::{Changes, Scan, Times},
        socket::{Channel, SocketError},
    },
};

/// Makes snapshots at a stage's cuts.
pub struct Keeper {
    root: PathBuf,
    cuts: Vec<usize>,
    always: bool,
    /// What the files were when the last snapshot was made, else before the first step, and when that was.
    before: Option<(Scan, Instant)>,
}

impl Keeper {
    /// Looks at the container's files as they are before its first step, if there is a cut ahead or an output of all changes.
    pub fn new(root: &Path, setup: &Setup) -> Self {
        let cuts: Vec<usize> = setup.snapshots.ahead().collect();
        let needed = !cuts.is_empty() || setup.outputs.iter().any(|output| output.changes);
        let mut keeper = Self { root: root.to_owned(), cuts, always: setup.snapshots.always, before: None };
        if needed {
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
        let start = Instant::now();
        let Some(now) = told(Scan::of(&self.root)) else { return Ok(()) };
        let Some(changes) = told(now.since(before, &self.root)) else { return Ok(()) };
        if !self.always && !pays(took, changes.bytes) {
            return Ok(());
        }
        channel.send(&Frame::Snapshot(u32::try_from(step).unwrap_or(u32::MAX)))?;
        if send(&changes, &self.root, channel)? {
            let (bytes, time) = (human_size(changes.bytes), start.elapsed().as_secs_f32());
            eprintln!("minimalimage: what the steps so far have changed, {bytes}, is kept as a snapshot ({time:.1} s)");
            self.before = Some((now, Instant::now()));
        }
        Ok(())
    }

    /// What all steps have changed, for outputs that ask for it.
    ///
    /// # Errors
    /// When there is something that no layer can hold.
    pub fn changes(self, outputs: &[Output]) -> io::Result<Option<Changes>> {
        if !outputs.iter().any(|output| output.changes) {
            return Ok(None);
        }
        let (before, _) =
            self.before.ok_or_else(|| io::Error::other("the container's files could not be looked at"))?;
        Scan::of(&self.root)?.since(&before, &self.root).map(Some)
    }
}

/// Gives whether all of it was sent.
fn send(changes: &Changes, root: &Path, channel: &mut Channel) -> Result<bool, SocketError> {
    let mut writer = channel.data_writer();
    match changes.write(root, Times::Kept, &mut writer) {
        Ok(()) => writer.finish().map(|()| true),
        Err(error) => {
            let message = error.to_string();
            told::<()>(Err(error));
            channel.send(&Frame::Failed(WrapperFailure::Files { message, step: None })).map(|()| false)
        }
    }
}

/// The result, or nothing and a line on standard error: a build goes on without a snapshot.
fn told<T>(result: io::Result<T>) -> Option<T> {
    result.map_err(|error| eprintln!("minimalimage: no snapshot is made: {error}")).ok()
}
