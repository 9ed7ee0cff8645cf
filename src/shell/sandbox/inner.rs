//! What is done within the sandbox's namespaces, where we are root: layers are unpacked, root file systems mounted, and a
//! runtime is started.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io::{self, BufReader, Read},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Resource, Rlimit, setrlimit},
};

use super::{Flat, Request, Run, RuntimeKind, SandboxError, Unpack, namespaces::code};
use crate::{
    domain::{
        bundle::{Bind, Sandbox, volumes},
        passwd::{User, look_up},
        plan::{Account, RESTRICTED_USER},
    },
    shell::{
        apply::apply,
        archive::decompressed,
        rooted::{Last, resolve},
    },
};

/// A broken archive may ask for any amount of memory; ours need little.
const UNPACK_MEMORY: u64 = 4 << 30;
/// Account files are read up to here.
const ACCOUNTS: u64 = 1 << 20;
/// mount(2) takes one page of options.
const OPTIONS: usize = 4095;

pub(super) fn serve(request: Request) -> Result<u8, SandboxError> {
    match request {
        Request::Unpack(unpack) => unpack_all(&unpack).map(|()| 0),
        Request::Probe { directory } => probe(&directory).map(|()| 0),
        Request::Run(run) => {
            let result = start(&run);
            // Files of many owners: only here can all of them be removed.
            for name in ["merged", "upper", "work", "shared", "volumes", "bundle", "state"] {
                remove(&run.directory.join(name))?;
            }
            result
        }
        Request::Remove { paths } => paths.iter().try_for_each(|path| remove(path)).map(|()| 0),
    }
}

/// Unpacks those layers that are not there yet, each on top of those before it.
fn unpack_all(unpack: &Unpack) -> Result<(), SandboxError> {
    let limit = Rlimit { current: Some(UNPACK_MEMORY), maximum: Some(UNPACK_MEMORY) };
    setrlimit(Resource::As, limit).map_err(|error| SandboxError::Namespaces(error.into()))?;
    if let Some(flat) = &unpack.flat {
        return unpack_flat(unpack, flat);
    }
    let mut below: Vec<String> = Vec::new();
    for layer in &unpack.layers {
        let place = unpack.chains.join(&layer.chain);
        if !place.exists() {
            let scratch = unpack.scratch.join(&layer.chain);
            remove(&scratch)?;
            let root = Root { chains: &unpack.chains, below: &below, scratch: &scratch }.mounted(false)?;
            let applied = apply_blob(&root, &layer.blob);
            if !below.is_empty() {
                unmount(&root, UnmountFlags::DETACH).map_err(|error| SandboxError::file(&root, error.into()))?;
            }
            applied?;
            let upper = scratch.join("upper");
            fs::rename(&upper, &place).map_err(|source| SandboxError::file(&place, source))?;
            remove(&scratch)?;
        }
        below.push(layer.chain.clone());
    }
    Ok(())
}

/// All layers in one directory, each over those before it.
fn unpack_flat(unpack: &Unpack, flat: &Flat) -> Result<(), SandboxError> {
    let (place, scratch) = (unpack.chains.join(&flat.name), unpack.scratch.join(&flat.name));
    remove(&scratch)?;
    match &flat.below {
        Some(below) => copy(&unpack.chains.join(below), &scratch)?,
        None => fs::create_dir_all(&scratch).map_err(|source| SandboxError::file(&scratch, source))?,
    }
    for layer in &unpack.layers {
        apply_blob(&scratch, &layer.blob)?;
    }
    fs::rename(&scratch, &place).map_err(|source| SandboxError::file(&place, source))
}

fn apply_blob(root: &Path, blob: &Path) -> Result<(), SandboxError> {
    let read = File::open(blob)
        .and_then(|file| decompressed(BufReader::with_capacity(1 << 17, file)))
        .map_err(|source| SandboxError::file(blob, source))?;
    apply(root, read).map_err(|source| SandboxError::Layer { source })
}

/// Whether an overlay can be mounted: of two directories, as with an image of two layers.
fn probe(directory: &Path) -> Result<(), SandboxError> {
    let chains = directory.join("chains");
    let below = ["one", "two"].map(str::to_owned);
    for name in &below {
        let path = chains.join(name);
        fs::create_dir_all(&path).map_err(|source| SandboxError::file(&path, source))?;
    }
    let scratch = directory.join("scratch");
    let mounted = Root { chains: &chains, below: &below, scratch: &scratch }.mounted(false).map(drop);
    remove(&scratch)?;
    mounted
}

/// A root file system: layers that are there, and a directory for what comes on top.
struct Root<'a> {
    chains: &'a Path,
    /// Lowest first.
    below: &'a [String],
    scratch: &'a Path,
}

impl Root<'_> {
    /// Makes and mounts it; without layers it is a directory.
    fn mounted(&self, volatile: bool) -> Result<PathBuf, SandboxError> {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| self.scratch.join(name));
        for path in [&upper, &work, &merged] {
            fs::create_dir_all(path).map_err(|source| SandboxError::file(path, source))?;
        }
        let Some(top) = self.below.last() else { return Ok(upper) };
        // The upper directory is the root that the sandbox sees.
        let above = self.chains.join(top);
        let attributes = fs::metadata(&above).map_err(|source| SandboxError::file(&above, source))?;
        chown(&upper, Some(attributes.uid()), Some(attributes.gid()))
            .and_then(|()| fs::set_permissions(&upper, attributes.permissions()))
            .map_err(|source| SandboxError::file(&upper, source))?;
        // Relative names, because there is little room for options.
        std::env::set_current_dir(self.chains).map_err(|source| SandboxError::file(self.chains, source))?;
        let lower = self.below.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":");
        let [upper, work] = [&upper, &work].map(|path| self.relative(path));
        let mut options = format!("lowerdir={lower},upperdir={},workdir={}", upper?.display(), work?.display());
        if in_user_namespace() {
            options.push_str(",userxattr");
        }
        if volatile {
            options.push_str(",volatile");
        }
        if options.len() > OPTIONS {
            return Err(SandboxError::Layers { count: self.below.len() });
        }
        let options = CString::new(options).map_err(|_| SandboxError::Request)?;
        let mounted = mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str());
        mounted.map_err(|error| SandboxError::Overlay { path: self.scratch.to_owned(), source: error.into() })?;
        Ok(merged)
    }

    /// `path` as seen from the chains, which are in the same store: names of our own, without a comma or colon.
    fn relative(&self, path: &Path) -> Result<PathBuf, SandboxError> {
        let store = self.chains.parent().unwrap_or(self.chains);
        path.strip_prefix(store).map(|below| Path::new("..").join(below)).map_err(|_| SandboxError::Request)
    }
}

/// The root file system as a copy of the image's files.
fn copied(run: &Run) -> Result<PathBuf, SandboxError> {
    let upper = run.directory.join("upper");
    let Some(from) = run.layers.first() else {
        return fs::create_dir_all(&upper).map(|()| upper.clone()).map_err(|source| SandboxError::file(&upper, source));
    };
    copy(&run.chains.join(from), &upper).map(|()| upper)
}

/// With owners, links and attributes: what cp(1) does everywhere, sharing blocks where it can.
fn copy(from: &Path, to: &Path) -> Result<(), SandboxError> {
    let program = Path::new("cp");
    let copy = Command::new(program).arg("-a").args([from, to]).stdin(Stdio::null()).status();
    let copy = copy.map_err(|source| SandboxError::Start { program: program.into(), source })?;
    if copy.success() { Ok(()) } else { Err(SandboxError::Failed("failed to copy the builder image".into())) }
}

fn start(run: &Run) -> Result<u8, SandboxError> {
    let root = if run.flat {
        copied(run)?
    } else {
        Root { chains: &run.chains, below: &run.layers, scratch: &run.directory }.mounted(true)?
    };
    let many_users = has_many_users();
    let user = match (run.account == Account::Restricted, many_users) {
        (_, false) => User::default(),
        // As the Pod: group 0, and the volumes' group beside it.
        (true, true) => User { uid: RESTRICTED_USER, groups: vec![RESTRICTED_USER], ..User::default() },
        (false, true) => look_up(&run.user, &accounts(&root, "etc/passwd"), &accounts(&root, "etc/group"))
            .map_err(SandboxError::User)?,
    };
    let sandbox = Sandbox {
        root,
        user,
        restricted: run.account == Account::Restricted,
        env: run.env.clone(),
        binds: volume_binds(run, many_users)?.into_iter().chain(run.binds.iter().cloned()).collect(),
        rootless: in_user_namespace(),
        many_users,
    };
    let bundle = run.directory.join("bundle");
    let config = bundle.join("config.json");
    fs::create_dir_all(&bundle)
        .and_then(|()| fs::write(&config, sandbox.config().to_string()))
        .map_err(|source| SandboxError::file(&config, source))?;
    let state = run.directory.join("state");
    let mut command = Command::new(&run.runtime);
    match run.kind {
        RuntimeKind::Runc => command.arg("--rootless=true"),
        RuntimeKind::Crun => command.arg("--cgroup-manager=disabled"),
        RuntimeKind::Other => &mut command,
    };
    command.arg("--root").arg(&state).arg("run").arg("--bundle").arg(&bundle).arg(&run.name);
    command.current_dir("/").stdin(Stdio::null()).env_remove("XDG_RUNTIME_DIR").env_remove("NOTIFY_SOCKET");
    let status = command.status();
    status.map(code).map_err(|source| SandboxError::Start { program: run.runtime.clone(), source })
}

/// The Pod's scratch volumes: everybody may write to them, and under Restricted they belong to its group.
fn volume_binds(run: &Run, many_users: bool) -> Result<Vec<Bind>, SandboxError> {
    let own = volumes(run.account).into_iter();
    let own = own.map(|(name, place)| (run.directory.join("volumes").join(name), place.to_owned()));
    let caches = run.caches.iter().map(|cache| (cache.source.clone(), cache.destination.clone()));
    let made = own.chain(caches).map(|(source, destination)| {
        let grouped = run.account == Account::Restricted && many_users;
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&source)
            .and_then(|()| if grouped { chown(&source, None, Some(RESTRICTED_USER)) } else { Ok(()) })
            .and_then(|()| {
                let mode = if grouped { 0o2777 } else { 0o777 };
                fs::set_permissions(&source, PermissionsExt::from_mode(mode))
            })
            .map_err(|error| SandboxError::file(&source, error))?;
        Ok(Bind { source, destination, read_only: false })
    });
    made.collect()
}

/// A file of the image's own; nothing when it has none.
fn accounts(root: &Path, path: &str) -> String {
    let mut text = String::new();
    let file = resolve(root, Path::new(path), Last::Follow).and_then(File::open);
    // What is no text has no users.
    let _ = file.and_then(|file| file.take(ACCOUNTS).read_to_string(&mut text));
    text
}

/// Whether our user IDs are a part of the machine's: user_namespaces(7), the map of the first namespace is all of them.
fn in_user_namespace() -> bool {
    user_map().is_some_and(|map| map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

fn has_many_users() -> bool {
    user_map().is_none_or(|map| {
        map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()).sum::<u64>() > 1
    })
}

fn user_map() -> Option<String> {
    fs::read_to_string("/proc/self/uid_map").ok()
}

/// Removes a directory with all that is in it, what is mounted there included.
fn remove(path: &Path) -> Result<(), SandboxError> {
    let _ = unmount(path, UnmountFlags::DETACH);
    let _ = unmount(path.join("merged"), UnmountFlags::DETACH);
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(|source| SandboxError::file(path, source))
        }
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SandboxError::file(path, error)),
    }
}
