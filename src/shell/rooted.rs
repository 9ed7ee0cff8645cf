//! Paths below a root directory, with symbolic links resolved as if that directory were `/`.
//!
//! Not safe against somebody who changes the tree meanwhile: roots are used when nobody else runs in them.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use crate::domain::recipe::Owner;

/// What happens to a link at the very end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed too.
    Follow,
    /// The link itself is meant.
    Keep,
}

/// Linux' own bound on links in one path (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// Where `path` really is. Parts that do not exist are taken as they are; neither `..` nor a link leads out of `root`.
pub fn resolve(root: &Path, path: &Path, last: Last) -> io::Result<PathBuf> {
    let mut done: Vec<OsString> = Vec::new();
    let mut pending: VecDeque<OsString> = parts(path).into();
    let mut links = 0;
    while let Some(part) = pending.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let candidate = root.join(done.iter().collect::<PathBuf>()).join(&part);
        if pending.is_empty() && last == Last::Keep {
            return Ok(candidate);
        }
        match std::fs::read_link(&candidate) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other(format!("too many links in {}", path.display())));
                }
                if target.is_absolute() {
                    done.clear();
                }
                parts(&target).into_iter().rev().for_each(|part| pending.push_front(part));
            }
            // Not a link, or nothing there.
            Err(_) => done.push(part),
        }
    }
    Ok(root.join(done.iter().collect::<PathBuf>()))
}

/// Makes the directory `path` and those above it with mode 0755 for `owner`; what exists stays as it is.
pub fn make_directory(root: &Path, path: &Path, owner: Option<Owner>) -> io::Result<()> {
    make_missing(root, &resolve(root, path, Last::Follow)?, owner).map(drop)
}

/// The same for a path that is resolved already; gives the directories that it made, the outermost first.
pub fn make_missing(root: &Path, full: &Path, owner: Option<Owner>) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let below = full.strip_prefix(root).map_err(io::Error::other)?;
    let above: Vec<&Path> = below.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    for directory in above.into_iter().rev().map(|path| root.join(path)) {
        match std::fs::create_dir(&directory) {
            Ok(()) => {
                // Whatever the umask is.
                std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                if let Some(Owner { uid, gid }) = owner {
                    std::os::unix::fs::lchown(&directory, Some(uid), Some(gid))?;
                }
                made.push(directory);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_are_made_within_the_root_and_existing_ones_kept() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("srv")).unwrap();
        std::fs::set_permissions(root.join("srv"), PermissionsExt::from_mode(0o711)).unwrap();
        symlink("/srv", root.join("link")).unwrap();
        make_directory(root, Path::new("/link/a/b"), None).unwrap();
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("srv"), mode("srv/a"), mode("srv/a/b")), (0o711, 0o755, 0o755));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(make_directory(root, Path::new("file"), None).is_err());
    }

    #[test]
    fn links_never_leave_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("../../../../etc", root.join("usr/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("lib", root.join("twice")).unwrap();
        for (path, last, expected) in [
            ("lib/x", Last::Follow, "usr/lib/x"),
            ("/twice/x", Last::Keep, "usr/lib/x"),
            ("absolute/passwd", Last::Follow, "etc/passwd"),
            ("usr/up/passwd", Last::Follow, "etc/passwd"),
            ("../../x", Last::Follow, "x"),
            ("lib", Last::Keep, "lib"),
            ("lib", Last::Follow, "usr/lib"),
            ("a/b/c", Last::Follow, "a/b/c"),
        ] {
            assert_eq!(resolve(root, Path::new(path), last).unwrap(), root.join(expected), "{path}");
        }
        assert!(resolve(root, Path::new("loop/x"), Last::Follow).is_err());
    }
}
