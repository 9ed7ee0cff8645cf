//! Root file systems: bases put together from this machine's own libraries, artifacts on top, and runc to start them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{
    case::{Base, Case, Content},
    programs::{Programs, run},
};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The base images.
pub struct Bases {
    directory: tempfile::TempDir,
}

impl Bases {
    pub fn new(programs: &Programs) -> Self {
        let bases = Self { directory: tempfile::tempdir().unwrap() };
        for base in Base::ALL {
            let root = bases.path(base);
            fs::create_dir(&root).unwrap();
            if !matches!(base, Base::Scratch | Base::Musl | Base::Bullseye | Base::Trixie) {
                glibc(&root);
            }
            match base {
                Base::Scratch | Base::Glibc => {}
                Base::Bullseye | Base::Trixie => {
                    run(&root, &format!("cp -a {}/. .", suite(base.name()).display()));
                    run(&root, "mkdir -p usr/lib; for d in lib lib64; do [ -e $d ] || ln -s usr/$d $d; done");
                }
                Base::Cc => needs(&programs.path("hello-cxx"), &root),
                Base::Shell => shell(&root),
                Base::Musl => {
                    fs::create_dir(root.join("lib")).unwrap();
                    fs::copy("/lib/ld-musl-x86_64.so.1", root.join("lib/ld-musl-x86_64.so.1")).unwrap();
                }
                Base::Java => {
                    fs::create_dir_all(root.join("usr/lib/jvm")).unwrap();
                    let home = root.join("usr/lib/jvm/java");
                    run(&root, &format!("jlink --add-modules java.base --strip-debug --output {}", home.display()));
                    symlink("../lib/jvm/java/bin/java", root.join("usr/bin/java")).unwrap();
                    needs(&home.join("lib/server/libjvm.so"), &root);
                    needs(&home.join("lib/libjli.so"), &root);
                }
                Base::Python => {
                    let program = root.join("usr/bin/python3.11");
                    fs::copy("/usr/bin/python3.11", &program).unwrap();
                    symlink("python3.11", root.join("usr/bin/python3")).unwrap();
                    run(&root, "cp -a /usr/lib/python3.11 usr/lib");
                    fs::copy("/usr/bin/env", root.join("usr/bin/env")).unwrap();
                    needs(&program, &root);
                }
            }
        }
        bases
    }

    fn path(&self, base: Base) -> PathBuf {
        self.directory.path().join(base.name())
    }

    pub fn archive(&self, base: Base) -> Vec<u8> {
        archive(&self.path(base))
    }
}

/// A Debian without anything but its C library, after the merge of / and /usr.
fn glibc(root: &Path) {
    for directory in [LIBRARIES, "usr/lib64", "usr/bin", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for name in ["lib", "lib64", "bin"] {
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    for name in ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"] {
        fs::copy(Path::new("/lib/x86_64-linux-gnu").join(name), root.join(LIBRARIES).join(name)).unwrap();
    }
    symlink("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root.join("usr/lib64/ld-linux-x86-64.so.2")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nshared:x:50:app\n").unwrap();
}

/// The C and C++ libraries of another suite of Debian, and a program of it: fetched once, by apt from where this machine's
/// own packages come from.
pub fn suite(name: &str) -> PathBuf {
    let cache = std::env::var_os("MINIMALIMAGE_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/minimalimage"), PathBuf::from);
    let root = cache.join("preflight").join(name);
    if root.exists() {
        return root;
    }
    fs::create_dir_all(cache.join("preflight")).unwrap();
    let work = tempfile::tempdir_in(&cache).unwrap();
    let script = "from=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
        mkdir -p lists/partial cache/archives/partial root
        echo \"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from SUITE main\" >sources
        set -- -qq -o Dir::Etc::sourcelist=\"$PWD/sources\" -o Dir::Etc::sourceparts=- -o Dir::State::lists=\"$PWD/lists\" \
          -o Dir::State::status=/dev/null -o Dir::Cache=\"$PWD/cache\" -o APT::Sandbox::User=root -o Debug::NoLocking=1
        apt-get \"$@\" update && apt-get \"$@\" download libc6 libgcc-s1 libstdc++6 coreutils
        for deb in *.deb; do dpkg-deb --extract \"$deb\" all; done
        cd all && for path in lib lib64 usr/lib/x86_64-linux-gnu usr/lib64 usr/bin/printf; do
          [ ! -e $path ] || cp -a --parents $path ../root; done
        rm -rf ../root/usr/lib/x86_64-linux-gnu/gconv
        test -e ../root/lib64 || test -e ../root/usr/lib64";
    run(work.path(), &script.replace("SUITE", name));
    // Another test may have been faster.
    if fs::rename(work.path().join("root"), &root).is_err() {
        assert!(root.exists());
    }
    root
}

fn shell(root: &Path) {
    fs::copy("/bin/busybox", root.join("usr/bin/busybox")).unwrap();
    for name in ["sh", "env", "cat", "echo"] {
        symlink("/bin/busybox", root.join("usr/bin").join(name)).unwrap();
    }
}

/// Copies the libraries that `program` has on this machine.
fn needs(program: &Path, root: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Some((name, rest)) = line.trim().split_once(" => /") else { continue };
        let from = Path::new("/").join(rest.split(' ').next().unwrap());
        let to = root.join(LIBRARIES).join(name);
        if !from.starts_with(root) && !to.exists() {
            fs::copy(from, to).unwrap();
        }
    }
}

fn archive(directory: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all("", directory).unwrap();
    archive.into_inner().unwrap()
}

/// What came of running a case.
#[derive(Debug)]
#[expect(dead_code, reason = "the words are for whoever looks at a failure")]
pub struct Ran {
    pub started: bool,
    words: String,
}

/// A case's files, on top of its base and apart from it.
pub struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    pub fn new(case: &Case, bases: &Bases, programs: &Programs) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: its files belong to several users");
        let root = Self { directory: tempfile::tempdir().unwrap() };
        // Nobody writes into the files of the base, so the links suffice.
        run(root.directory.path(), &format!("cp -al {} root && mkdir artifact", bases.path(case.base).display()));
        for (path, file) in &case.files {
            let place = root.artifact().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            match &file.content {
                Content::Program(name) => drop(fs::copy(programs.path(name), &place).unwrap()),
                Content::Text(text) => fs::write(&place, text).unwrap(),
                Content::Link(target) => symlink(target, &place).unwrap(),
                Content::Directory => fs::create_dir_all(&place).unwrap(),
            }
            lchown(&place, Some(file.owner.0), Some(file.owner.1)).unwrap();
            if !matches!(file.content, Content::Link(_)) {
                fs::set_permissions(&place, PermissionsExt::from_mode(file.mode)).unwrap();
            }
        }
        run(root.directory.path(), "cp -a artifact/. root/");
        if case.ldconfig {
            run(
                root.directory.path(),
                "ldconfig -X -r root && mkdir -p artifact/etc && cp root/etc/ld.so.cache artifact/etc",
            );
        }
        root
    }

    fn artifact(&self) -> PathBuf {
        self.directory.path().join("artifact")
    }

    pub fn artifact_archive(&self) -> Vec<u8> {
        archive(&self.artifact())
    }

    /// Starts the image as container runtimes do: every program of a case that starts says so.
    pub fn run(&self, case: &Case, is_capable: bool) -> Ran {
        let start = case.start();
        let mut environment: BTreeMap<_, _> = start.config.env.into_iter().collect();
        environment
            .entry("PATH".to_owned())
            .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        let environment: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments: Vec<String> = start.entrypoint.into_iter().chain(start.cmd).collect();
        let user = match case.user {
            "" => json!({"uid": 0, "gid": 0}),
            "1000" => json!({"uid": 1000, "gid": 1000, "additionalGids": [50]}),
            user => json!({"uid": user.parse::<u32>().unwrap(), "gid": 0}),
        };
        let rights: &[&str] = if is_capable { &["CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID"] } else { &[] };
        let rights = json!({"bounding": rights, "effective": rights, "permitted": rights});
        let working_dir = if case.working_dir.is_empty() { "/" } else { case.working_dir };
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": user, "args": arguments, "env": environment, "cwd": working_dir, "capabilities": rights, "noNewPrivileges": true},
            "root": {"path": "root"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]},
        });
        fs::write(self.directory.path().join("config.json"), config.to_string()).unwrap();
        let name = self.directory.path().file_name().unwrap().to_string_lossy().replace('.', "preflight-");
        let state = self.directory.path().join("state");
        let output = Command::new("runc")
            .arg("--root")
            .arg(state)
            .args(["run", &name])
            .current_dir(self.directory.path())
            .output();
        let output = output.expect("this test needs runc, which tests/setup installs");
        let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ran { started: output.status.success() && words.contains("started"), words: words.chars().take(500).collect() }
    }
}
