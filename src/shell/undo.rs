//! What was done to a container's files for one process alone, noted so that it can be undone in reverse.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use super::rooted::make_missing;

/// Where what has to make room is kept meanwhile: on the same file system, so that it can be moved.
pub const ASIDE: &str = ".minimalimage-aside";

/// One thing that was done.
#[derive(Debug)]
enum Change {
    /// A file, link or directory was made; a directory into which somebody else has put something stays.
    Made(PathBuf),
    /// A directory was made that goes with all that it holds.
    Whole(PathBuf),
    /// What was at the first path had to make room and is at the second.
    Aside(PathBuf, PathBuf),
    /// A directory was there, with these names in it; what else it holds goes.
    Kept(PathBuf, BTreeSet<OsString>),
}

/// All that was done, in its order.
#[derive(Debug, Default)]
pub struct Undo(Vec<Change>);

impl Undo {
    /// Notes something that was made.
    pub fn made(&mut self, path: PathBuf) {
        self.0.push(Change::Made(path));
    }

    /// What `later` did was done behind it.
    pub fn append(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Makes the directory `full`, which is below `root`, and those above it.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn make_missing(&mut self, root: &Path, full: &Path) -> io::Result<()> {
        make_missing(root, full, None)?.into_iter().for_each(|path| self.made(path));
        Ok(())
    }

    /// Moves what is at `place`, below `root`, out of the way.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&mut self, root: &Path, place: &Path) -> io::Result<()> {
        let aside = root.join(ASIDE);
        fs::create_dir_all(&aside)?;
        // What others have moved there meanwhile stays.
        let free = |kept: &PathBuf| fs::symlink_metadata(kept).is_err();
        let kept = (0..=u32::MAX).map(|number| aside.join(number.to_string())).find(free);
        let kept = kept.ok_or(io::ErrorKind::AlreadyExists)?;
        move_all(place, &kept)?;
        self.0.push(Change::Aside(place.to_owned(), kept));
        Ok(())
    }

    /// Makes an empty directory at `full`, which is below `root`; what is there makes room, or stays seen where it cannot be
    /// moved: mount points, and what belongs to others. Gives whether the directory is new.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cover(&mut self, root: &Path, full: &Path) -> io::Result<bool> {
        if full.is_dir() {
            let moved = if full == root { Err(io::ErrorKind::ResourceBusy.into()) } else { self.set_aside(root, full) };
            match moved {
                Ok(()) => {}
                Err(error) if stays(&error) => {
                    let names = fs::read_dir(full)?.map(|entry| entry.map(|entry| entry.file_name()));
                    self.0.push(Change::Kept(full.to_owned(), names.collect::<io::Result<_>>()?));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        for path in make_missing(root, full, None)? {
            self.0.push(if path == full { Change::Whole(path) } else { Change::Made(path) });
        }
        Ok(true)
    }

    /// Undoes all of it, the last first.
    ///
    /// # Errors
    /// When something cannot be removed or put back: it could be copied out of the stage, or be missing there.
    pub fn undo(&mut self) -> io::Result<()> {
        for change in self.0.drain(..).rev() {
            match change {
                Change::Made(path) => match fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => drop(fs::remove_dir(&path)),
                    Ok(_) => fs::remove_file(&path)?,
                    Err(_) => {}
                },
                Change::Whole(path) => remove(&path)?,
                Change::Aside(place, kept) => {
                    move_all(&kept, &place)?;
                    // Empty once the last one is back.
                    let _ = kept.parent().map(fs::remove_dir);
                }
                Change::Kept(directory, names) => {
                    for entry in fs::read_dir(&directory)? {
                        let entry = entry?;
                        if !names.contains(&entry.file_name()) {
                            remove(&entry.path())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a directory that cannot be moved gives: a mount point, another's directory, a file system that is read-only.
fn stays(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), ResourceBusy | PermissionDenied | ReadOnlyFilesystem)
}

/// rename(2), which overlayfs refuses for directories of lower layers: those are made anew and their content is moved.
fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        result => return result,
    }
    let metadata = fs::symlink_metadata(from)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        move_all(&from.join(&name), &to.join(&name))?;
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())?;
    fs::remove_dir(from)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}
