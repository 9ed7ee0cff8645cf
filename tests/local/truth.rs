//! Dockerfiles held against BuildKit: each case of tests/dockerfile/truth is built, and the image's files and config are
//! those of the listing beside it, which BuildKit made (`tests/dockerfile/buildkit` says how). Where we differ, for a reason that
//! docs/dockerfile.md gives, a listing `NAME.ours.txt` says what we make.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::chown},
    path::{Component, Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use minimalimage::domain::value::Digest;
use serde_json::{Value, json};

use crate::support::{Layer, Machine, first_layer, only_manifest, users};

/// A command that talks to a BuildKit daemon; set, the test writes the listings anew.
const BUILDKIT: &str = "MINIMALIMAGE_BUILDKIT";
/// What a listing says of a build that must fail.
const REFUSED: &str = "refused\n";
/// Builds at the same time.
const WORKERS: usize = 4;
/// Contents up to this size are shown as they are.
const SHOWN: usize = 600;

/// One path of an image.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    attributes: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Directory,
    Link(PathBuf),
    /// The bytes, and the path that first had them: equal for hard links.
    File(Vec<u8>, PathBuf),
    Fifo,
}

/// An image's files, its layers applied one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    fn apply(&mut self, layer: impl std::io::Read) {
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = self.place(&entry.path().unwrap());
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name == ".wh..wh..opq" {
                let above = path.parent().unwrap().to_owned();
                self.0.retain(|path, _| *path == above || !path.starts_with(&above));
                continue;
            }
            if let Some(gone) = name.strip_prefix(".wh.") {
                let gone = path.with_file_name(gone);
                self.0.retain(|path, _| !path.starts_with(&gone));
                continue;
            }
            self.insert(path, &mut entry);
        }
    }

    fn insert(&mut self, path: PathBuf, entry: &mut tar::Entry<'_, impl std::io::Read>) {
        let mut attributes = BTreeMap::new();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten().flatten() {
            if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let mode = header.mode().unwrap() & 0o7777;
        let target = entry.link_name().unwrap().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Link(target),
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::Link => {
                let first = self.0[&self.place(&target)].clone();
                self.0.insert(path, first);
                return;
            }
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                Kind::File(bytes, path.clone())
            }
        };
        let merges = kind == Kind::Directory && self.0.get(&path).is_some_and(|node| node.kind == Kind::Directory);
        if !merges {
            self.0.retain(|other, _| !other.starts_with(&path));
        }
        self.0.insert(path, Node { kind, mode, owner, attributes });
    }

    /// Where a path of a layer is, links above it followed as container runtimes do.
    fn place(&self, path: &Path) -> PathBuf {
        let mut place = PathBuf::from("/");
        let mut pending: VecDeque<_> = names(path);
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                place.pop();
                continue;
            }
            let next = place.join(&name);
            match self.0.get(&next).map(|node| &node.kind) {
                Some(Kind::Link(target)) if !pending.is_empty() => {
                    if target.is_absolute() {
                        place = "/".into();
                    }
                    names(target).into_iter().rev().for_each(|name| pending.push_front(name));
                }
                _ => place = next,
            }
        }
        place
    }

    /// A line for each path that `base` has not just so.
    fn listing(&self, base: &Self) -> String {
        let mut text = String::new();
        for (path, node) in &self.0 {
            if base.0.get(path) == Some(node) || path == Path::new("/") {
                continue;
            }
            write!(text, "{} ", path.display()).unwrap();
            let access = format!("{:04o} {}:{}", node.mode, node.owner.0, node.owner.1);
            match &node.kind {
                Kind::Directory => write!(text, "directory {access}").unwrap(),
                Kind::Fifo => write!(text, "fifo {access}").unwrap(),
                Kind::Link(target) => {
                    write!(text, "link {}:{} {}", node.owner.0, node.owner.1, target.display()).unwrap();
                }
                Kind::File(_, first) if first != path && self.0.contains_key(first) => {
                    write!(text, "is {}", first.display()).unwrap();
                }
                Kind::File(bytes, _) => write!(text, "file {access} {}", shown(bytes)).unwrap(),
            }
            for (name, value) in &node.attributes {
                write!(text, " {name}={}", value.escape_ascii()).unwrap();
            }
            text.push('\n');
        }
        for path in base.0.keys().filter(|path| !self.0.contains_key(*path)) {
            writeln!(text, "{} gone", path.display()).unwrap();
        }
        text
    }
}

fn names(path: &Path) -> VecDeque<std::ffi::OsString> {
    let real = |component: &Component<'_>| matches!(component, Component::Normal(_) | Component::ParentDir);
    path.components().filter(real).map(|component| component.as_os_str().to_owned()).collect()
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN => format!("{text:?}"),
        _ => format!("{} bytes {}", bytes.len(), Digest::of(bytes)),
    }
}

/// Files and config of the image in an OCI layout, without what `base` has.
fn listing(layout: &Path, base: &Tree) -> String {
    let manifest = only_manifest(layout);
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        fs::read(layout.join("blobs/sha256").join(digest)).unwrap()
    };
    let mut tree = Tree::default();
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        tree.apply(flate2::read::MultiGzDecoder::new(&blob(layer)[..]));
    }
    let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    // An image that is not built on `base` says nothing of it.
    let on_base = tree.0.contains_key(Path::new("/bin/busybox"));
    let nothing = Tree::default();
    let files = tree.listing(if on_base { base } else { &nothing });
    let mut config = json!({"author": config["author"], "config": config["config"]});
    // Means something on Windows alone (OCI image-spec, config.md), and BuildKit sets it by chance.
    config["config"].as_object_mut().unwrap().remove("ArgsEscaped");
    config.sort_all_objects();
    format!("{files}\n{}\n", serde_json::to_string_pretty(&config).unwrap())
}

/// What the cases are built on: a shell, and files of every kind.
fn base_layers() -> [Vec<u8>; 2] {
    let mut layer = Layer::default();
    for name in
        "chgrp chmod chown cut date dd du mkfifo mv printf pwd readlink rmdir seq sha256sum tail tar touch truncate \
                 true umask wget"
            .split_ascii_whitespace()
    {
        layer.symlink(&format!("bin/{name}"), "busybox");
    }
    layer.file("etc/group", b"root:x:0:\nstaff:x:50:builder\nvideo:x:44:other,builder\nbuilder:x:1000:\n", 0o644, 0);
    layer.directory("usr/data", 0o755);
    layer.directory("usr/data/private", 0o700);
    layer.file("usr/data/private/old", b"old\n", 0o600, 0);
    layer.file("usr/data/text", b"text\n", 0o640, 1000);
    layer.file("usr/data/setuid", b"setuid\n", 0o4755, 1000);
    layer.symlink("usr/data/file-link", "text");
    layer.symlink("usr/link", "data");
    // VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    layer.attribute("security.capability", &capability);
    layer.file("usr/data/capable", b"capable\n", 0o755, 0);
    layer.attribute("user.note", b"written");
    layer.file("usr/data/attributes", b"attributes\n", 0o644, 0);
    [first_layer(0), layer.finish()]
}

/// A case on its way: where its context and the image are.
struct Case<'a> {
    machine: &'a Machine,
    base: &'a Tree,
    name: &'a str,
}

impl Case<'_> {
    fn path(&self, what: &str) -> PathBuf {
        self.machine.path("truth").join(format!("{}-{what}", self.name))
    }

    /// The context on this machine, its `BUILDER` replaced.
    fn prepare(&self) {
        copy(&folder().join(self.name), &self.path("context"));
        let path = self.path("context").join("Dockerfile");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("BUILDER", &self.reference())).unwrap();
        fs::write(self.path("token"), "hidden\n").unwrap();
    }

    /// What this program makes of it; a refusal's reason goes with it.
    fn ours(&self) -> (String, String) {
        let arguments = [
            "build".to_owned(),
            "--quiet".to_owned(),
            // BuildKit does not ask whether an image can start.
            "--preflight=off".to_owned(),
            "--output".to_owned(),
            format!("oci:{}", self.path("ours").display()),
            "--secret".to_owned(),
            format!("id=token,src={}", self.path("token").display()),
            self.path("context").display().to_string(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = self.machine.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let made = if output.status.success() { self.listing("ours") } else { REFUSED.to_owned() };
        (made, said)
    }

    /// What BuildKit makes of it.
    fn theirs(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let layout = self.path("theirs");
        let mut build = Command::new(words.next().unwrap());
        build.args(words).args(["build", "--no-cache", "--frontend", "dockerfile.v0"]);
        for place in ["context", "dockerfile"] {
            build.arg("--local").arg(format!("{place}={}", self.path("context").display()));
        }
        build.arg("--secret").arg(format!("id=token,src={}", self.path("token").display()));
        build.arg("--output").arg(format!("type=oci,tar=false,dest={}", layout.display()));
        let output = build.output().unwrap();
        if !output.status.success() {
            eprintln!("{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
            return REFUSED.to_owned();
        }
        self.listing("theirs")
    }

    /// The same wherever the registry listens.
    fn listing(&self, what: &str) -> String {
        listing(&self.path(what), self.base).replace(&self.reference(), "BUILDER")
    }

    fn reference(&self) -> String {
        format!("{}/truth:1", self.machine.registry.host)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfile/truth")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn cases() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries
        .filter(|path| path.is_dir())
        .map(|path| String::from_utf8(path.file_name().unwrap().as_bytes().to_vec()).unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() >= 40, "{}", cases.len());
    cases
}

#[tokio::test]
async fn images_are_what_buildkit_makes() {
    let machine = Machine::new(users()[0]).await;
    let layers = base_layers();
    machine.push_image("truth", &layers, json!({"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"]})).await;
    let mut base = Tree::default();
    for layer in &layers {
        base.apply(&layer[..]);
    }
    fs::create_dir(machine.path("truth")).unwrap();
    chown(machine.path("truth"), Some(machine.user.uid), Some(machine.user.gid)).unwrap();
    let buildkit = std::env::var(BUILDKIT).ok();
    let queue = Mutex::new(VecDeque::from(cases()));
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(name) = queue.lock().unwrap().pop_front() else { break };
                    let case = Case { machine: &machine, base: &base, name: &name };
                    case.prepare();
                    let listed = folder().join(format!("{name}.txt"));
                    if let Some(command) = &buildkit {
                        fs::write(&listed, case.theirs(command)).unwrap();
                    }
                    let mut expected = fs::read_to_string(listed).unwrap();
                    let (ours, said) = case.ours();
                    let different = folder().join(format!("{name}.ours.txt"));
                    if different.exists() {
                        if buildkit.is_some() {
                            fs::write(&different, &ours).unwrap();
                        }
                        let known = fs::read_to_string(different).unwrap();
                        assert_ne!(known, expected, "{name}.ours.txt says the same as {name}.txt: delete it");
                        expected = known;
                    }
                    if ours != expected {
                        wrong.lock().unwrap().insert(name, format!("{}{said}", difference(&expected, &ours)));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let text: String = wrong.iter().map(|(name, text)| format!("== {name}\n{text}\n")).collect();
    assert!(wrong.is_empty(), "{text}\n{} differ: {:?}", wrong.len(), wrong.keys());
}

/// The lines that only one of the two has.
fn difference(expected: &str, ours: &str) -> String {
    let without = |text: &str, other: &str, sign: char| -> String {
        let only = text.lines().filter(|line| !other.lines().any(|other| other == *line));
        only.map(|line| format!("{sign} {line}\n")).collect()
    };
    without(expected, ours, '-') + &without(ours, expected, '+')
}
