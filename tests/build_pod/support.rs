//! A Pod on one machine: a directory per container, a repository in memory, and the wrapper as a process of its own.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test, as in the tests themselves")]

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use futures::StreamExt;
use minimalimage::{
    cmd::{
        agent::{self, AgentSettings, Backend, LayerStream, LayerUpload, UploadError},
        wrapper::{self, WrapperSettings},
    },
    domain::{
        artifact::{Artifact, Layer, config_of, parse},
        debian::base::Composition,
        recipe::{CopyItem, Destination, FORMAT, Key, Output, Owner, Parents, Recipe, RunMount, Step},
        snapshot::{Prefix, SnapshotTask},
        task::{AgentFailure, AgentMessage, FailureReason, Limits, Network, Origin, Places, SourceTask, StageTask},
        value::{Digest, Platform},
        wire::Frame,
    },
    shell::{debian, socket::Channel},
};

/// Tell a copy of this test program that it is the wrapper, or an agent whose source never comes, and where.
const WRAPPER: &str = "TEST_WRAPPER_POD";
const AGENT: &str = "TEST_AGENT_POD";

/// When the source's revision was made.
pub const SOURCE_TIME: i64 = 1_700_000_000;

/// A repository in memory, and a source.
#[derive(Clone, Default)]
pub struct Memory {
    pub blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
    pub keys: Arc<Mutex<Vec<Key>>>,
    pub known: Option<Digest>,
    pub source: Vec<(&'static str, &'static str)>,
    /// Whether fetching says `fetching` and then takes for ever.
    pub hangs: bool,
    /// The first step to run.
    pub start: usize,
    /// How many uploads break after their first bytes.
    pub faults: Arc<AtomicU32>,
    /// What the stage's cache held at the end of the last build.
    pub cached: Option<Layer>,
}

pub struct MemoryUpload {
    memory: Memory,
    bytes: Vec<u8>,
}

impl LayerUpload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let broken = self.memory.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if broken.is_ok() {
            let failure = AgentFailure::new(FailureReason::RegistryUnavailable, "the session is gone");
            return Err(UploadError::Lost(failure));
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self, digest: Digest, size: u64) -> Result<(), UploadError> {
        assert_eq!((Digest::of(&self.bytes), self.bytes.len() as u64), (digest, size));
        self.memory.blobs.lock().unwrap().insert(digest, self.bytes.into());
        Ok(())
    }
}

impl Backend for Memory {
    type Upload = MemoryUpload;

    async fn fetch_source(&self, _: &SourceTask, into: &Path) -> Result<Option<i64>, AgentFailure> {
        if self.hangs {
            println!("fetching");
            std::future::pending::<()>().await;
        }
        for (name, content) in &self.source {
            let path = into.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Ok(Some(SOURCE_TIME))
    }

    async fn compose(&self, _: &Composition, _: &[String], _: &Path) -> Result<debian::Base, AgentFailure> {
        Err(AgentFailure::new(FailureReason::ArchiveUnavailable, "there is no archive in memory"))
    }

    async fn lookup(&self, key: Key) -> Result<Option<Digest>, AgentFailure> {
        self.keys.lock().unwrap().push(key);
        Ok(self.known)
    }

    async fn start(&self, _: &[Prefix]) -> Result<usize, AgentFailure> {
        Ok(self.start)
    }

    async fn cache(&self, _: Key) -> Option<Layer> {
        self.cached.clone()
    }

    async fn open_layer(&self, layer: &Layer) -> Result<LayerStream, AgentFailure> {
        let bytes = self.blobs.lock().unwrap()[&layer.digest].clone();
        let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(futures::stream::iter(pieces).boxed())
    }

    async fn begin_upload(&self) -> Result<MemoryUpload, UploadError> {
        Ok(MemoryUpload { memory: self.clone(), bytes: Vec::new() })
    }

    async fn push_blob(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        self.blobs.lock().unwrap().insert(Digest::of(&bytes), bytes);
        Ok(())
    }

    async fn push_manifest(&self, bytes: Bytes) -> Result<(), AgentFailure> {
        self.push_blob(bytes).await
    }
}

impl Memory {
    pub fn artifact(&self, digest: Digest) -> Artifact {
        let blobs = self.blobs.lock().unwrap();
        let manifest = &blobs[&digest];
        parse(manifest, &blobs[&config_of(manifest).unwrap().0]).unwrap()
    }

    /// Path, mode, owner and content of everything in a layer, as a foreign reader sees it.
    pub fn files(&self, layer: &Layer) -> Vec<(String, u32, u64, String)> {
        let blob = self.blobs.lock().unwrap()[&layer.digest].clone();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&blob[..]));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            (path, header.mode().unwrap(), header.uid().unwrap(), content)
        });
        entries.collect()
    }
}

/// The directories of one Pod.
pub struct Pod {
    pub directory: tempfile::TempDir,
}

impl Pod {
    pub fn new() -> Self {
        let pod = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["shared", "work", "root"] {
            fs::create_dir(pod.path(name)).unwrap();
        }
        pod
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn agent_settings(&self) -> AgentSettings {
        agent_settings(self.directory.path())
    }

    /// Starts the wrapper as a process of its own, with the environment that a kubelet might give it.
    pub fn wrapper(&self) -> Child {
        let envs = [("HOSTNAME", "pod-x"), ("KUBERNETES_PORT", "1"), ("TOKEN", "s3cret-token"), ("HOME", "/")];
        self.process("wrapper_process", WRAPPER).envs(envs).spawn().unwrap()
    }

    /// Starts an agent as a process of its own, whose source never comes.
    pub fn hanging_agent(&self) -> Child {
        self.process("agent_process", AGENT).spawn().unwrap()
    }

    fn process(&self, test: &str, variable: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env_clear();
        command.env(variable, self.directory.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn agent(&self, task: &StageTask, backend: &Memory) -> (u8, AgentMessage) {
        let code = agent::run(task.clone(), self.agent_settings(), backend.clone()).await;
        let text = fs::read_to_string(self.path("agent.log")).unwrap();
        assert!(text.len() < 1024);
        (code, serde_json::from_str(&text).unwrap())
    }

    /// Both containers to their ends.
    pub async fn run(&self, task: &StageTask, backend: &Memory) -> Outcome {
        let wrapper = self.wrapper();
        let (agent_code, message) = self.agent(task, backend).await;
        let output = tokio::task::spawn_blocking(|| wrapper.wait_with_output().unwrap()).await.unwrap();
        Outcome {
            agent_code,
            message,
            wrapper_code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            log: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
            last_words: fs::read_to_string(self.path("wrapper.log")).unwrap_or_default(),
        }
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub agent_code: u8,
    pub message: AgentMessage,
    pub wrapper_code: i32,
    pub log: String,
    pub last_words: String,
}

/// What the copy of this program does that [`Pod::wrapper`] starts; returns at once in every other one.
pub fn be_the_wrapper() {
    let Some(pod) = std::env::var_os(WRAPPER).map(PathBuf::from) else { return };
    let settings = WrapperSettings {
        socket: pod.join("shared/agent.sock"),
        root: pod.join("root"),
        termination_log: pod.join("wrapper.log"),
    };
    exit_with(wrapper::run(settings));
}

/// The same for [`Pod::hanging_agent`].
pub fn be_a_hanging_agent() {
    let Some(pod) = std::env::var_os(AGENT).map(PathBuf::from) else { return };
    let settings = agent_settings(&pod);
    exit_with(agent::run(task(vec![], vec![]), settings, Memory { hangs: true, ..Memory::default() }));
}

fn exit_with(code: impl Future<Output = u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::process::exit(runtime.block_on(code).into());
}

fn agent_settings(pod: &Path) -> AgentSettings {
    AgentSettings {
        socket: pod.join("shared/agent.sock"),
        work_dir: pod.join("work"),
        termination_log: pod.join("agent.log"),
        threads: 2,
    }
}

pub fn item(source: &str, destination: &str) -> CopyItem {
    let path = destination.parse().unwrap();
    let destination = Destination { path, directory: destination.ends_with('/') };
    CopyItem {
        source: source.into(),
        destination,
        mode: None,
        owner: Some(Owner::default()),
        exclude: Vec::new(),
        parents: None,
        docker: None,
    }
}

pub fn shell(line: &str) -> Step {
    Step::Run {
        command: ["/bin/sh", "-e", "-c", line].map(str::to_owned).into(),
        env: BTreeMap::from([("LITERAL".into(), "from the recipe".into())]),
        working_dir: "/workspace".parse().unwrap(),
        user: None,
        mounts: Vec::new(),
        offline: false,
    }
}

/// Runs `line` with something that is there for it alone.
pub fn mounting(mount: RunMount, line: &str) -> Step {
    let mut step = shell(line);
    if let Step::Run { mounts, .. } = &mut step {
        mounts.push(mount);
    }
    step
}

pub fn output(source: &str, destination: &str) -> Output {
    Output::copies(vec![item(source, destination)], Parents::All)
}

pub fn task(steps: Vec<Step>, outputs: Vec<Output>) -> StageTask {
    let recipe = Recipe {
        packages: None,
        remote: None,
        format: FORMAT,
        platform: Platform::linux("amd64"),
        image: Some(Digest::of(b"builder")),
        user: Some(65532),
        env_from: vec!["TOKEN".into()],
        mounts: Vec::new(),
        ignore: Vec::new(),
        inputs: vec![],
        steps,
        outputs,
    };
    StageTask {
        package_urls: Vec::new(),
        recipe,
        source: Some(SourceTask { origin: Origin::Inline { files: BTreeMap::new() }, directory: String::new() }),
        inputs: vec![],
        cache: "registry.example.com/cache".parse().unwrap(),
        public_key: String::new(),
        no_cache: false,
        network: Network::default(),
        limits: Limits::default(),
        places: Places::default(),
        inject_ca: false,
        snapshots: SnapshotTask::default(),
        caches: Vec::new(),
    }
}

/// Plays a wrapper whose steps are done and that answers the request for the first output in its own way.
pub async fn against(task: &StageTask, answer: impl FnOnce(&mut Channel) + Send + 'static) -> FailureReason {
    let pod = Pod::new();
    let socket = pod.agent_settings().socket;
    let wrapper = tokio::task::spawn_blocking(move || {
        let mut channel = Channel::connect(&socket, std::time::Duration::from_secs(10), || false).unwrap().unwrap();
        channel.receive().unwrap();
        channel.send(&Frame::Done).unwrap();
        assert_eq!(channel.receive().unwrap(), Frame::SendOutput(0));
        answer(&mut channel);
    });
    let (code, message) = pod.agent(task, &Memory::default()).await;
    wrapper.await.unwrap();
    assert_eq!((code, message.artifact), (1, None));
    message.failure.unwrap().reason
}
