//! The caches of a stage: brought when a process first wants one, out of the way between processes, sent back when all ended well.
//! Whatever goes wrong with one costs that one alone.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    domain::{
        caches::{Fate, Growth, MOST_BYTES},
        plan::WRITABLE,
        value::human_size,
        wire::{Frame, WrapperFailure},
    },
    shell::{
        apply::apply,
        snapshot::{CACHES, Changes, Scan, Times},
        socket::{Channel, SocketError},
    },
};

/// The caches that processes have had so far.
pub struct Caches {
    root: PathBuf,
    known: BTreeMap<usize, Known>,
    /// Those of the running process.
    mounted: Vec<Mounted>,
}

/// One that the running process sees.
struct Mounted {
    index: usize,
    full: PathBuf,
    /// Whether a volume is there.
    volume: bool,
}

/// One cache.
struct Known {
    /// Where it is seen, for people.
    path: PathBuf,
    /// Where it is now.
    place: PathBuf,
    /// What it was when it was brought.
    before: Scan,
    brought: u64,
}

impl Caches {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), known: BTreeMap::new(), mounted: Vec::new() }
    }

    /// Puts a cache into the empty directory `full`, or finds it in the volume there. Fails only with the connection.
    pub fn bring(
        &mut self,
        index: usize,
        (full, volume): (&Path, bool),
        channel: &mut Channel,
    ) -> Result<(), SocketError> {
        if self.mounted.iter().any(|mounted| mounted.index == index) {
            // The same one at two places: only mount(2) could do that.
            return Ok(());
        }
        if let Some(known) = self.known.get(&index) {
            if known.place != full {
                let moved = fs::rename(&known.place, full);
                if told(&known.path, moved).is_none() {
                    return Ok(());
                }
            }
        } else {
            let path = Path::new("/").join(full.strip_prefix(&self.root).unwrap_or(full));
            fetch(index, (full, &path), channel)?;
            let Some(before) = told(&path, Scan::of(full)) else { return Ok(()) };
            let Some(all) = told(&path, before.since(&Scan::default(), full)) else { return Ok(()) };
            if all.bytes > 0 {
                eprintln!("minimalimage: the cache {} comes with {}", path.display(), human_size(all.bytes));
            }
            self.known.insert(index, Known { path, place: full.to_owned(), before, brought: all.bytes });
        }
        self.mounted.push(Mounted { index, full: full.to_owned(), volume });
        Ok(())
    }

    /// Takes the process' caches out of the way, those that lie in others first. A volume's stays where it is.
    pub fn leave(&mut self) {
        for Mounted { index, full, .. } in self.mounted.drain(..).rev().filter(|mounted| !mounted.volume) {
            let Some(known) = self.known.get_mut(&index) else { continue };
            match told(&known.path, put_aside(&self.root, &full, index)) {
                Some(place) => known.place = place,
                None => drop(self.known.remove(&index)),
            }
        }
    }

    /// Sends what is worth it, and leaves nothing in the way of what is copied out of the container. Fails only with the
    /// connection.
    pub fn finish(self, channel: &mut Channel) -> Result<(), SocketError> {
        for (index, known) in &self.known {
            if let Some(changes) = told(&known.path, known.changes()).flatten() {
                send(*index, known, &changes, channel)?;
            }
        }
        for stash in stashes(&self.root) {
            // Most are not there.
            let _ = fs::remove_dir_all(stash);
        }
        Ok(())
    }
}

impl Known {
    /// All that is in it, if that is to be sent.
    fn changes(&self) -> io::Result<Option<Changes>> {
        let now = Scan::of(&self.place)?;
        let all = now.since(&Scan::default(), &self.place)?;
        let fresh = now.since(&self.before, &self.place)?.bytes;
        match (Growth { brought: self.brought, bytes: all.bytes, fresh }).fate() {
            Fate::Sent => Ok(Some(all)),
            Fate::Unchanged => Ok(None),
            Fate::TooLarge => {
                let (bytes, most) = (human_size(all.bytes), human_size(MOST_BYTES));
                Err(io::Error::other(format!("it has {bytes}, and {most} is the most")))
            }
        }
    }
}

/// Fills the empty directory `full`, which people know as `path`, with what the last build left.
fn fetch(index: usize, (full, path): (&Path, &Path), channel: &mut Channel) -> Result<(), SocketError> {
    channel.send(&Frame::WantCache(u32::try_from(index).unwrap_or(u32::MAX)))?;
    let mut reader = channel.data_reader();
    let applied = apply(full, &mut reader);
    let _ = io::copy(&mut reader, &mut io::sink());
    let whole = match reader.stop() {
        Some(Ok(Frame::DataEnd)) => Ok(()),
        Some(Ok(Frame::Failed(WrapperFailure::Files { message, .. }))) => Err(io::Error::other(message)),
        Some(Err(error)) => return Err(error),
        _ => return Err(SocketError::Unexpected("within a cache")),
    };
    if told(path, whole.and(applied.map_err(io::Error::other))).is_none() {
        // Half of a cache may be worse than none.
        told(path, clear(full));
    }
    Ok(())
}

fn send(index: usize, known: &Known, changes: &Changes, channel: &mut Channel) -> Result<(), SocketError> {
    channel.send(&Frame::Cache(u32::try_from(index).unwrap_or(u32::MAX)))?;
    let mut writer = channel.data_writer();
    match told(&known.path, changes.write(&known.place, Times::Kept, &mut writer)) {
        Some(()) => writer.finish(),
        None => {
            let message = "the cache cannot be read".to_owned();
            channel.send(&Frame::Failed(WrapperFailure::Files { message, step: None }))
        }
    }
}

/// Where caches may lie between processes: on whichever file system they are, a move costs nothing.
fn stashes(root: &Path) -> impl Iterator<Item = PathBuf> {
    let writable = WRITABLE.iter().map(|path| root.join(path.trim_start_matches('/')));
    std::iter::once(root.to_owned()).chain(writable).map(|directory| directory.join(CACHES))
}

fn put_aside(root: &Path, full: &Path, index: usize) -> io::Result<PathBuf> {
    let mut failure = io::ErrorKind::NotFound.into();
    for stash in stashes(root) {
        let place = stash.join(index.to_string());
        match fs::create_dir_all(&stash).and_then(|()| fs::rename(full, &place)) {
            Ok(()) => return Ok(place),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// The result, or nothing and a line on standard error: a build goes on without a cache.
fn told<T>(path: &Path, result: io::Result<T>) -> Option<T> {
    result.map_err(|error| eprintln!("minimalimage: the cache {} is not kept: {error}", path.display())).ok()
}
