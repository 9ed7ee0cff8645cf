//! Directories of runs. Each holds a lock as long as its build lives: one that nobody holds was left by a build that was
//! killed, and the next build removes it.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{Store, StoreError, open_lock};

/// Beside the directory, because the directory's own content comes and goes.
const LOCK: &str = ".lock";

/// A directory for one run, gone when this is dropped.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, which no other run on this machine has.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| format!("minimalimage-{}", name.display())).unwrap_or_default()
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What belongs to other users stays for the next build, which finds it without a holder.
        if fs::remove_dir_all(&self.path).is_ok() {
            let _ = fs::remove_file(lock_of(&self.path));
        }
    }
}

impl Store {
    /// A new directory for a run.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn run_directory(&self) -> Result<RunDirectory, StoreError> {
        let runs = self.root.join("runs");
        loop {
            let directory = tempfile::Builder::new().prefix("").rand_bytes(8).tempdir_in(&runs);
            let directory = directory.map_err(|source| StoreError::file(&runs, source))?;
            let lock = lock_of(directory.path());
            let file = open_lock(&lock)?;
            match file.try_lock() {
                // Before it was locked another build may have taken it for abandoned, and removed it.
                Ok(()) if lock.exists() => return Ok(RunDirectory { path: directory.keep(), _lock: file }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(StoreError::file(&lock, source)),
            }
        }
    }

    /// Directories of runs whose build is gone. Those that hold nothing of other users are removed at once.
    #[must_use]
    pub fn abandoned(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("runs")).into_iter().flatten().flatten();
        let locks = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock"));
        let mut left = Vec::new();
        for lock in locks {
            let directory = lock.with_extension("");
            // Held until it is gone: a build that has just made it must not lock it in between.
            let Some(_held) = File::open(&lock).ok().filter(|file| file.try_lock().is_ok()) else { continue };
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => left.push(directory),
                _ => drop(fs::remove_file(&lock)),
            }
        }
        left
    }
}

fn lock_of(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(LOCK);
    name.into()
}
