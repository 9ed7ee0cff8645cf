//! What a process of a stage sees only while it runs: files brought for it, empty directories, secrets. All of it is taken
//! away again, so that nothing of it can be copied out of the stage.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::Path,
};

use super::{
    rooted::{Last, resolve},
    undo::Undo,
};
use crate::domain::recipe::{Owner, RunMount, SecretFile};

/// What is there for the next process, or the running one.
#[derive(Debug, Default)]
pub struct Transient(Undo);

impl Transient {
    /// Takes over what was unpacked for the next process.
    pub fn brought(&mut self, written: Undo) {
        self.0.append(written);
    }

    /// Makes one mount of a process below `root`; gives the variable that it sets. `variable` reads the container's own. Of a
    /// cache it makes the directory.
    ///
    /// # Errors
    /// When something cannot be made; says what.
    pub fn enter(
        &mut self,
        root: &Path,
        mount: &RunMount,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(String, String)>, String> {
        match mount {
            RunMount::Cache { volume: true, .. } => Ok(None),
            RunMount::Directory { path, mode, owner } => self
                .directory(root, path.relative().as_ref(), (*mode, *owner))
                .map_err(|error| format!("failed to make {path}: {error}"))
                .map(|()| None),
            RunMount::Cache { path, mode, owner, .. } => self
                .directory(root, path.relative().as_ref(), (Some(*mode), *owner))
                .map_err(|error| format!("failed to make {path}: {error}"))
                .map(|()| None),
            RunMount::Script { path, content } => self
                .file(root, path.relative().as_ref(), content.as_bytes(), (0o755, Owner::default()))
                .map_err(|error| format!("failed to write {path}: {error}"))
                .map(|()| None),
            RunMount::Secret { variable: name, file, env } => {
                let value = variable(name).ok_or_else(|| format!("the container has no variable {name}"))?;
                if let Some(file) = file {
                    let SecretFile { path, mode, owner } = file;
                    self.file(root, path.relative().as_ref(), value.as_bytes(), (*mode, *owner))
                        .map_err(|error| format!("failed to write {}: {error}", file.path))?;
                }
                Ok(env.clone().map(|env| (env, value)))
            }
        }
    }

    /// Takes everything away again and puts back what had to make room.
    ///
    /// # Errors
    /// When something cannot be removed or put back: it could be copied out of the stage, or be missing there.
    pub fn leave(&mut self) -> io::Result<()> {
        self.0.undo()
    }

    fn directory(&mut self, root: &Path, path: &Path, (mode, owner): (Option<u32>, Owner)) -> io::Result<()> {
        let full = resolve(root, path, Last::Follow)?;
        let there = fs::metadata(&full).ok().filter(fs::Metadata::is_dir);
        if !self.0.cover(root, &full)? {
            return Ok(());
        }
        // As a mounted tmpfs takes over mode and owner of what it covers.
        let (mode, owner) = match (mode, there) {
            (None, Some(there)) => (there.mode() & 0o7777, Owner { uid: there.uid(), gid: there.gid() }),
            (mode, _) => (mode.unwrap_or(0o755), owner),
        };
        if rustix::process::geteuid().is_root() {
            chown(&full, Some(owner.uid), Some(owner.gid))?;
        }
        fs::set_permissions(&full, fs::Permissions::from_mode(mode))
    }

    fn file(&mut self, root: &Path, path: &Path, value: &[u8], (mode, owner): (u32, Owner)) -> io::Result<()> {
        let full = resolve(root, path, Last::Follow)?;
        if let Some(above) = full.parent() {
            self.0.make_missing(root, above)?;
        }
        if fs::symlink_metadata(&full).is_ok_and(|there| !there.is_dir()) {
            self.0.set_aside(root, &full)?;
        }
        // create_new: nothing of the image's own is overwritten.
        let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full)?;
        self.0.made(full.clone());
        opened.write_all(value)?;
        if rustix::process::geteuid().is_root() {
            chown(&full, Some(owner.uid), Some(owner.gid))?;
        }
        fs::set_permissions(&full, fs::Permissions::from_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        domain::{
            files_layer::archive,
            recipe::{Parents, TextFile},
        },
        shell::unpack::unpack_for_a_while,
    };

    fn own() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// All paths below a directory, with the text of files.
    fn all(root: &Path) -> BTreeMap<String, String> {
        fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                if path.is_dir() {
                    found.insert(name, "/".into());
                    walk(root, &path, found);
                } else {
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(root, root, &mut found);
        found
    }

    #[test]
    fn everything_is_as_it_was_when_the_process_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(root.join("src/there"), "old").unwrap();
        fs::create_dir_all(root.join("cache/full")).unwrap();
        let before = all(root);

        let file =
            |path: &str| TextFile { path: path.parse().unwrap(), content: "new".into(), mode: 0o644, owner: own() };
        let files = archive(&[file("/src/there"), file("/src/a/b"), file("/deep/er/f")], Parents::None).unwrap();
        let mut transient = Transient::default();
        transient.brought(unpack_for_a_while(root, &files[..]).unwrap());
        let mounts = [
            RunMount::Directory { path: "/cache".parse().unwrap(), mode: Some(0o755), owner: own() },
            RunMount::Script { path: "/tmp/script".parse().unwrap(), content: "#!/bin/sh".into() },
            RunMount::Directory { path: "/tmp/x".parse().unwrap(), mode: None, owner: own() },
            RunMount::Secret {
                variable: "S".into(),
                file: Some(SecretFile { path: "/run/secrets/s".parse().unwrap(), mode: 0o400, owner: own() }),
                env: Some("TOKEN".into()),
            },
        ];
        let variables: BTreeMap<_, _> = mounts
            .iter()
            .filter_map(|mount| transient.enter(root, mount, |name| Some(format!("value of {name}"))).unwrap())
            .collect();
        assert_eq!(variables["TOKEN"], "value of S");
        let during = all(root);
        for (path, text) in
            [("src/there", "new"), ("src/a/b", "new"), ("deep/er/f", "new"), ("run/secrets/s", "value of S")]
        {
            assert_eq!(during[path], text, "{path}");
        }
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("tmp/x"), mode("run/secrets/s")), (0o755, 0o400));
        // What the process leaves in its mounts goes too.
        for path in ["cache/left", "tmp/x/left"] {
            fs::create_dir_all(root.join(path).join("behind")).unwrap();
        }
        transient.leave().unwrap();
        assert_eq!(all(root), before);
    }

    #[test]
    fn several_things_make_room_at_once_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (path, text) in [("a/one", "1"), ("b/two", "2"), ("f", "3"), ("g", "4")] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        let before = all(root);
        let mut transient = Transient::default();
        let mut bind = |paths: &[&str]| {
            let file = |path: &&str| TextFile {
                path: path.parse().unwrap(),
                content: "new".into(),
                mode: 0o644,
                owner: own(),
            };
            let files: Vec<_> = paths.iter().map(file).collect();
            let files = archive(&files, Parents::None).unwrap();
            transient.brought(unpack_for_a_while(root, &files[..]).unwrap());
        };
        bind(&["/f"]);
        bind(&["/g"]);
        bind(&["/f"]);
        for path in ["/a", "/b", "/a"] {
            let mount = RunMount::Directory { path: path.parse().unwrap(), mode: Some(0o755), owner: own() };
            transient.enter(root, &mount, |_| None).unwrap();
        }
        assert_eq!(all(root)["g"], "new");
        transient.leave().unwrap();
        assert_eq!(all(root), before);
    }

    #[test]
    fn what_the_process_made_elsewhere_stays() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let file = TextFile { path: "/src/in".parse().unwrap(), content: String::new(), mode: 0o644, owner: own() };
        let mut transient = Transient::default();
        let files = archive(&[file], Parents::None).unwrap();
        transient.brought(unpack_for_a_while(root, &files[..]).unwrap());
        fs::write(root.join("src/out"), "made").unwrap();
        transient.leave().unwrap();
        assert_eq!(all(root), [("src".to_owned(), "/".to_owned()), ("src/out".to_owned(), "made".to_owned())].into());
    }

    #[test]
    fn a_secret_takes_the_place_of_a_file_for_a_while_and_of_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("s"), "image").unwrap();
        let file = Some(SecretFile { path: "/s".parse().unwrap(), mode: 0o400, owner: own() });
        let mount = RunMount::Secret { variable: "S".into(), file, env: None };
        let seen = || fs::read_to_string(directory.path().join("s")).unwrap();
        let mut transient = Transient::default();
        transient.enter(directory.path(), &mount, |_| Some("secret".into())).unwrap();
        assert_eq!(seen(), "secret");
        transient.leave().unwrap();
        assert_eq!(seen(), "image");
        fs::remove_file(directory.path().join("s")).unwrap();
        fs::create_dir(directory.path().join("s")).unwrap();
        assert!(transient.enter(directory.path(), &mount, |_| Some("secret".into())).is_err());
    }
}
