//! A machine to build on: a registry with a builder image, users, a store, and the program as people call it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test that uses it"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use minimalimage::{
    domain::{credentials::Keychain, media_type, task::Network, value::Digest},
    shell::registry::{Client, Registry},
};
use serde_json::{Value, json};

use crate::distribution::Distribution;

/// The ordinary user that tests/setup makes; it has subordinate IDs.
const USER: &str = "minimalimage-test";
/// Nothing here takes that long.
const LIMIT: Duration = Duration::from_mins(1);

/// Somebody who builds.
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Everybody that tests can be: root and an ordinary user when root runs the tests, else whoever runs them.
pub fn users() -> Vec<User> {
    let own = User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    if own.uid != 0 {
        return vec![own];
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.split(':').next() == Some(USER));
    let entry = entry.expect("this test needs the user that tests/setup makes");
    let number = |index| entry.split(':').nth(index).unwrap().parse().unwrap();
    vec![own, User { uid: number(2), gid: number(3) }]
}

/// Somebody without subordinate IDs, when root runs the tests.
pub fn stranger() -> Option<User> {
    rustix::process::geteuid().is_root().then_some(User { uid: 65534, gid: 65534 })
}

/// A registry, a store of one user, and a directory to work in.
pub struct Machine {
    pub registry: Distribution,
    pub directory: tempfile::TempDir,
    pub user: User,
}

impl Machine {
    pub async fn new(user: User) -> Self {
        let registry = Distribution::start(false);
        let directory = tempfile::tempdir().unwrap();
        let machine = Self { registry, directory, user };
        // Where the program was built may be closed to others.
        fs::set_permissions(machine.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_minimalimage"), machine.path("minimalimage")).unwrap();
        for name in ["work", "home"] {
            fs::create_dir(machine.path(name)).unwrap();
            chown(machine.path(name), Some(user.uid), Some(user.gid)).unwrap();
        }
        machine.push_builder("builder").await;
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("home/.local/share/minimalimage")
    }

    /// Writes a file into the source directory `work`.
    pub fn file(&self, name: &str, text: &str) {
        let path = self.path("work").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }

    /// Writes the resource; `{registry}` in it is replaced.
    pub fn resource(&self, spec: &str) {
        let header = "apiVersion: minimalimage.dev/v1alpha1\nkind: MinimalImage\nmetadata: {name: app}\nspec:\n";
        let spec = spec.replace("{registry}", &self.registry.host);
        self.file("minimalimage.yaml", &format!("{header}{spec}"));
    }

    /// One stage that runs `script`, whose `/workspace/out` is the image's `/out`.
    pub fn stage(&self, script: &str) {
        self.stage_with(script, "");
    }

    /// The same with more fields of the stage or, after a line without indentation, of the spec.
    pub fn stage_with(&self, script: &str, more: &str) {
        let script = script.trim().replace('\n', "\n      ");
        self.resource(&format!(
            "  stages:\n  - name: build\n    image: {{registry}}/builder:1\n    run: |\n      {script}\n{more}\
             \n  image:\n    copy: [{{from: build, source: /workspace/out, destination: /out}}]\
             \n  destination: {{repository: {{registry}}/app}}\n",
        ));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("minimalimage"));
        command.args(arguments).current_dir(self.path("work")).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path("home"));
        command.uid(self.user.uid).gid(self.user.gid);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Builds the directory `work`; gives the result.
    pub fn build(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["build", "--json", "."], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a build that must fail says.
    pub fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["build", "."], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The lines that the build's only stage wrote into its output.
    pub fn lines(&self, script: &str, more: &str) -> Vec<String> {
        self.stage_with(&format!("{{ {script}\n}} >out 2>&1"), more);
        let layout = self.path("work/layout");
        let _ = fs::remove_dir_all(&layout);
        self.build(&["--output", "oci:layout"]);
        let manifest = only_manifest(&layout);
        let digest = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let blob = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&blob[..]));
        let mut text = String::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap() == Path::new("out") {
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            }
        }
        text.lines().map(str::to_owned).collect()
    }

    pub fn client() -> Client {
        let ranges = vec!["127.0.0.0/8".to_owned()];
        Registry::new(&Network { allowed_ranges: ranges, ..Network::default() }).unwrap().with(Keychain::default())
    }

    /// Pushes an image of `layers` as `builder:1`.
    pub async fn push_image(&self, name: &str, layers: &[Vec<u8>], config: Value) {
        let (client, repository) = (Self::client(), self.registry.repository(name));
        let mut descriptors = Vec::new();
        for layer in layers {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(layer).unwrap();
            let blob = gzip.finish().unwrap();
            descriptors.push(json!({"mediaType": media_type::LAYER, "digest": Digest::of(&blob), "size": blob.len()}));
            client.push_bytes(&repository, Bytes::from(blob)).await.unwrap();
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({
            "os": "linux", "architecture": architecture(), "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Bytes::from(config.to_string());
        client.push_bytes(&repository, config.clone()).await.unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": {"mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": descriptors,
        });
        let reference = repository.tagged("1").unwrap();
        client.push_manifest(&reference, media_type::MANIFEST, Bytes::from(manifest.to_string())).await.unwrap();
    }

    /// A shell and what this program needs to run, and on top of it a layer that takes things away.
    pub async fn push_builder(&self, user: &str) {
        let config = json!({"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "User": user});
        self.push_image("builder", &[first_layer(1234), second_layer()], config).await;
    }

    /// A builder in which all files are root's.
    pub async fn push_plain_builder(&self) {
        self.push_image("builder", &[first_layer(0)], json!({"Env": ["PATH=/bin"]})).await;
    }
}

/// Every entry of the image's layers in `layout`, lowest layer first, and what it holds as text.
pub fn layer_texts(layout: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for layer in only_manifest(layout)["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            files.push((entry.path().unwrap().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    files
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// A shell and what this program needs to run; `/etc/owned` is `owner`'s.
pub fn first_layer(owner: u64) -> Vec<u8> {
    let mut layer = Layer::default();
    let busybox = fs::read("/bin/busybox").expect("this test needs busybox-static, which tests/setup installs");
    for directory in ["bin", "etc", "tmp", "gone", "emptied", "usr", "usr/lib"] {
        layer.directory(directory, if directory == "tmp" { 0o1777 } else { 0o755 });
    }
    layer.file("bin/busybox", &busybox, 0o755, 0);
    for name in
        "sh cat cp echo env find grep head id kill ln ls mkdir mount ps rm sed setsid sleep sort stat tr wc".split(' ')
    {
        layer.symlink(&format!("bin/{name}"), "busybox");
    }
    layer.symlink("lib", "usr/lib");
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nbuilder:x:1000:1000::/tmp:/bin/sh\n", 0o644, 0);
    layer.file("etc/group", b"root:x:0:\nbuilder:x:1000:\n", 0o644, 0);
    layer.file("gone/file", b"1", 0o644, 0);
    layer.file("emptied/old", b"1", 0o644, 0);
    layer.file("etc/owned", b"1", 0o640, owner);
    layer.hard_link("etc/second-name", "etc/owned");
    for (path, bytes) in libraries() {
        layer.file(path.trim_start_matches('/'), &bytes, 0o755, 0);
    }
    layer.finish()
}

/// What the layer below has is deleted by name and as a whole; a path goes through the link that is below.
fn second_layer() -> Vec<u8> {
    let mut layer = Layer::default();
    layer.file(".wh.gone", b"", 0o644, 0);
    layer.directory("emptied", 0o755);
    layer.file("emptied/new", b"1", 0o644, 0);
    layer.file("emptied/.wh..wh..opq", b"", 0o644, 0);
    layer.file("lib/through-a-link", b"1", 0o644, 0);
    layer.finish()
}

/// The loader and libraries of this program as tests build it; the one that people get is static and needs none.
fn libraries() -> Vec<(String, Vec<u8>)> {
    let listed = Command::new("ldd").arg(env!("CARGO_BIN_EXE_minimalimage")).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let paths: BTreeSet<&str> = text.split_ascii_whitespace().filter(|word| word.starts_with('/')).collect();
    paths.into_iter().map(|path| (path.to_owned(), fs::read(path).unwrap())).collect()
}

/// An archive in the making.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub fn entry(&mut self, path: &str, kind: tar::EntryType, link: &str, bytes: &[u8], (mode, uid): (u32, u64)) {
        let mut header = tar::Header::new_ustar();
        // Written as it is: paths that a library would refuse are what some tests are about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
    }

    pub fn file(&mut self, path: &str, bytes: &[u8], mode: u32, uid: u64) {
        self.entry(path, tar::EntryType::Regular, "", bytes, (mode, uid));
    }

    pub fn directory(&mut self, path: &str, mode: u32) {
        self.entry(&format!("{path}/"), tar::EntryType::Directory, "", b"", (mode, 0));
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, tar::EntryType::Symlink, target, b"", (0o777, 0));
    }

    /// Gives the next entry an extended attribute (pax(5), as SCHILY.xattr).
    pub fn attribute(&mut self, name: &str, value: &[u8]) {
        let field = [format!(" SCHILY.xattr.{name}=").as_bytes(), value, b"\n"].concat();
        // The length counts its own digits: two, as long as the whole is under 100 bytes.
        let record = [(field.len() + 2).to_string().as_bytes(), &field].concat();
        self.entry("pax", tar::EntryType::XHeader, "", &record, (0o644, 0));
    }

    pub fn hard_link(&mut self, path: &str, target: &str) {
        self.entry(path, tar::EntryType::Link, target, b"", (0o644, 0));
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn only_manifest(layout: &Path) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(digest)).unwrap()).unwrap()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::yield_now();
    }
}

/// Whether any process of this machine has `mark` in its command line.
pub fn runs(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(mark))
}

/// A build whose only step says `started` and then goes on for ever, with `mark` in its command line.
pub fn endless(machine: &Machine, mark: &str) -> Child {
    machine.stage(&format!("setsid sh -c ': {mark}; sleep 100000' &\nsh -c ': {mark}; sleep 100000'"));
    let child = machine.command(&["build", "."]).spawn().unwrap();
    eventually("the stage starts", || runs(&format!(": {mark}; sleep")));
    child
}
