//! One stage on this machine: the agent here, the wrapper in a sandbox, the artifact in the store.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::watch,
    task::JoinHandle,
};

use super::{
    backend::{self, Below, Local},
    images::Builder,
    world::{World, blocking},
};
use crate::{
    api::v1alpha1::{Cache, Stage},
    cmd::{
        agent::{self, AgentSettings},
        install::BINARY,
    },
    domain::{
        artifact::{Artifact, Layer, of_layers},
        bundle::{Bind, TERMINATION_LOG, environment},
        environment::HOST_NAME,
        job,
        passwd::{group, passwd},
        plan::{Account, Pins, RESTRICTED_USER, StagePlan, TIMEOUT_ADVICE},
        recipe::{Key, Recipe},
        settings::Settings,
        snapshot::{SnapshotTask, source_before},
        task::{AgentFailure, AgentMessage, FailureReason, SHARED_DIR, StageTask},
        value::{Digest, human_size},
        wire::STEP_LINE,
    },
    shell::{
        sandbox::{Request, Run, Session, find_runtime},
        store::RunDirectory,
    },
};

/// How long the agent may take to notice that its wrapper is gone.
const NOTICE: Duration = Duration::from_secs(5);
/// A line of output is cut here.
const LONGEST_LINE: usize = 16 << 10;
/// A container's last words; the kubelet takes as much.
const LAST_WORDS: usize = 4096;
const SOCKET: &str = "agent.sock";
const ALONE: &str = "stages run as root of their sandbox, not as in a cluster: this user has no subordinate IDs, see \
                     docs/build.md";
/// Those that the operator passes on too.
const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

/// A stage whose artifact is there.
pub struct Done {
    /// The stage's name.
    pub stage: String,
    /// Its artifact.
    pub artifact: Artifact,
    /// What was to be done.
    pub recipe: Recipe,
    /// Digest of what it saw of the source; none where that was not looked at.
    pub source: Option<Digest>,
    /// Whether it was there before.
    pub cached: bool,
    /// How long it took.
    pub time: Duration,
    /// What is left to be cleaned up.
    pub rest: Option<JoinHandle<()>>,
}

/// What is needed to run one stage.
pub struct StageJob {
    /// The build.
    pub world: Arc<World>,
    /// The stage.
    pub stage: StagePlan,
    /// Its recipe.
    pub recipe: Recipe,
    /// The layers that it copies from other stages.
    pub inputs: Vec<Layer>,
    /// What names were resolved to.
    pub pins: Pins,
    /// Where it can be cut.
    pub snapshots: SnapshotTask,
    /// What its caches in the store are found by.
    pub caches: Vec<Key>,
}

impl StageJob {
    /// Runs the stage, or finds its artifact.
    ///
    /// # Errors
    /// When it fails: the reason, and for a failing step its exit code and last lines.
    pub async fn run(self) -> anyhow::Result<Done> {
        let start = Instant::now();
        let quick = self.quick_key();
        let usable = quick.filter(|_| !self.world.args.no_cache);
        if let Some(artifact) = usable.and_then(|key| self.world.store.known(&key)) {
            return Ok(self.done(artifact, true, start, None));
        }
        let directory = Arc::new(
            blocking({
                let store = self.world.store.clone();
                move || store.run_directory()
            })
            .await?,
        );
        let (base, below) = watch::channel(None);
        let (message, rest) = self.attempt(&directory, base).await?;
        let below = below.borrow().clone().unwrap_or_default();
        self.told("snapshots", self.keep_snapshots(&message, below));
        if let Some(failure) = message.failure {
            if let Some(rest) = rest {
                let _ = rest.await;
            }
            return Err(self.failure(&failure, &directory));
        }
        let digest = message.artifact.ok_or_else(|| anyhow!("the agent made no artifact"))?;
        self.told("caches", self.keep_caches(&message));
        self.world.store.record(&self.recipe.exact_key(message.source), digest)?;
        if let Some(quick) = quick {
            self.world.store.record(&quick, digest)?;
        }
        let artifact = self.world.store.artifact(digest).context("the agent's artifact is not in the store")?;
        Ok(Done { source: message.source, ..self.done(artifact, message.cached, start, rest) })
    }

    /// That something is not kept is no reason for a build to fail.
    fn told(&self, what: &str, kept: anyhow::Result<()>) {
        if let Err(error) = kept {
            self.world.progress.warn(&format!("stage {}: its {what} are not kept: {error:#}", self.stage.name));
        }
    }

    /// Remembers the snapshots that the agent made on top of `below`, which are as old as that.
    fn keep_snapshots(&self, message: &AgentMessage, below: Below) -> anyhow::Result<()> {
        let made = below.made.into_iter().chain([self.world.now.as_second()]).min().unwrap_or_default();
        let mut layers = below.layers;
        let (Some(sent), store) = (&message.snapshots, &self.world.store) else { return Ok(()) };
        let artifact = store.artifact(sent.artifact).context("the agent's snapshot is not in the store")?;
        for (step, layer) in sent.numbers.iter().zip(artifact.layers) {
            layers.push(layer);
            let whole = self.put_artifact(&layers)?;
            let source = source_before(&message.prefixes, *step);
            store.put_snapshot(&self.recipe.snapshot_key(*step, source), whole, made)?;
        }
        Ok(())
    }

    /// Remembers the caches that the agent sent.
    fn keep_caches(&self, message: &AgentMessage) -> anyhow::Result<()> {
        let (Some(sent), store) = (&message.caches, &self.world.store) else { return Ok(()) };
        let artifact = store.artifact(sent.artifact).context("the agent's caches are not in the store")?;
        let mut bytes = 0;
        for (index, layer) in sent.numbers.iter().zip(artifact.layers) {
            if let Some(key) = self.caches.get(*index) {
                bytes += layer.size;
                store.save_cache(key, self.put_artifact(&[layer])?)?;
            }
        }
        self.world.progress.state(&self.stage.name, &format!("caches kept, {}", human_size(bytes)));
        Ok(())
    }

    /// Layers that the store has, as an artifact.
    fn put_artifact(&self, layers: &[Layer]) -> anyhow::Result<Digest> {
        let (config, manifest) = of_layers(layers);
        self.world.store.write(&config)?;
        Ok(self.world.store.write(&manifest)?)
    }

    /// The key without looking at files: where the source is a directory, that is only possible without it.
    fn quick_key(&self) -> Option<Key> {
        let known = !self.recipe.uses_source() || self.world.context.is_none();
        known.then(|| self.recipe.quick_key(self.world.outline.source_identity(&self.pins).as_deref()))
    }

    fn done(&self, artifact: Artifact, cached: bool, start: Instant, rest: Option<JoinHandle<()>>) -> Done {
        let size = artifact.layers.iter().map(|layer| layer.size).sum();
        let how = if cached { "cached".to_owned() } else { format!("done in {:.1} s", start.elapsed().as_secs_f32()) };
        self.world.progress.done(&self.stage.name, &format!("{how}, {}", human_size(size)));
        let (stage, recipe) = (self.stage.name.clone(), self.recipe.clone());
        Done { stage, artifact, recipe, source: None, cached, time: start.elapsed(), rest }
    }

    /// Agent and sandbox side by side; the sandbox only when the agent finds nothing.
    async fn attempt(
        &self,
        directory: &Arc<RunDirectory>,
        start: watch::Sender<Option<Below>>,
    ) -> anyhow::Result<(AgentMessage, Option<JoinHandle<()>>)> {
        let base = start.subscribe();
        let shared = directory.path().join("shared");
        fs::create_dir(&shared)?;
        // As the emptyDir of a Pod, whose containers may be different users.
        fs::set_permissions(&shared, PermissionsExt::from_mode(0o777))?;
        let open = File::open(&shared)?;
        let settings = AgentSettings {
            // A socket's path is short (unix(7)), the store's need not be.
            socket: format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()).into(),
            work_dir: directory.path().join("agent"),
            termination_log: directory.path().join("agent-message"),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let log = settings.termination_log.clone();
        let cuts = if self.world.args.no_cache { Vec::new() } else { self.snapshots.cuts.clone() };
        let (name, recipe) = (self.stage.name.clone(), self.recipe.clone());
        let stage = backend::Stage { name, recipe, cuts, start };
        let backend = Local { world: Arc::clone(&self.world), stage };
        let agent = agent::run(self.task()?, settings, backend);
        tokio::pin!(agent);
        if self.recipe.image.is_none() {
            agent.await;
            return Ok((message(&log)?, None));
        }
        let started = Arc::new(AtomicBool::new(false));
        let mut sandbox = tokio::spawn(self.sandbox(Arc::clone(directory), base, Arc::clone(&started))?);
        let timeout = tokio::time::sleep(self.stage.timeout);
        tokio::select! {
            _ = &mut agent => {
                let message = message(&log)?;
                if message.cached || !started.load(Ordering::SeqCst) {
                    sandbox.abort();
                    return Ok((message, None));
                }
                // What it does now nobody needs to wait for, but somebody has to see to.
                let rest = tokio::spawn(async move { let _ = sandbox.await; });
                Ok((message, Some(rest)))
            }
            ended = &mut sandbox => {
                let code = ended.context("a sandbox's task ended early")??;
                // It has a moment to say why; a container that never reached the agent says nothing.
                let _ = tokio::time::timeout(NOTICE, &mut agent).await;
                message(&log).map(|message| (message, None)).map_err(|_| {
                    anyhow!("stage {}: the sandbox ended with code {code} before its first step", self.stage.name)
                })
            }
            () = timeout => {
                let limit = self.stage.timeout.as_secs();
                sandbox.abort();
                Err(anyhow!("stage {} took longer than its timeout of {limit} s: {TIMEOUT_ADVICE}", self.stage.name))
            }
        }
    }

    fn task(&self) -> anyhow::Result<StageTask> {
        let outline = &self.world.outline;
        let source = self.world.source_task(self.pins.revision.as_deref());
        let settings = Settings { network: self.world.network()?, ..Settings::default() };
        let cache = (&outline.cache, self.world.args.no_cache);
        let task = job::task(&self.stage, self.recipe.clone(), source, self.inputs.clone(), cache, &settings);
        // What is made anew takes the place of what was there.
        let always = self.snapshots.always || self.world.args.no_cache;
        let snapshots = SnapshotTask { always, ..self.snapshots.clone() };
        Ok(StageTask { snapshots, caches: self.caches.clone(), ..task })
    }

    /// Waits until it is needed, then pulls, starts, passes on what is said, and waits for the end.
    fn sandbox(
        &self,
        directory: Arc<RunDirectory>,
        mut base: watch::Receiver<Option<Below>>,
        started: Arc<AtomicBool>,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<u8>> + use<>> {
        let (world, stage) = (Arc::clone(&self.world), self.stage.clone());
        let name = stage.name.clone();
        let reference = stage.image.clone().context("the stage has no builder image")?;
        Ok(async move {
            let found = base.wait_for(Option::is_some).await.map(|found| found.clone().unwrap_or_default());
            let below = found.context("the agent ended before its sandbox was needed")?;
            if !below.layers.is_empty() {
                world.progress.state(&name, "from a snapshot");
            }
            let builder = world.builder(&name, &reference, &below.layers).await?;
            let run = run(&world, &stage, &builder, &directory)?;
            world.progress.state(&name, "running");
            let mut session = Session::start(&Request::Run(Box::new(run))).await?;
            started.store(true, Ordering::SeqCst);
            if !session.many_users {
                world.progress.warn(ALONE);
            }
            let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
            let said = [
                tokio::spawn(pass_on(stdout, Arc::clone(&world), name.clone())),
                tokio::spawn(pass_on(stderr, Arc::clone(&world), name)),
            ];
            tokio::select! {
                _ = futures::future::join_all(said) => {}
                () = world.stop.cancelled() => session.end().await,
            }
            Ok(session.wait().await?)
        })
    }

    /// What went wrong, with the end of the log.
    fn failure(&self, failure: &AgentFailure, directory: &RunDirectory) -> anyhow::Error {
        let name = &self.stage.name;
        let code = failure.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
        let mut text = match failure.reason {
            FailureReason::StepFailed => {
                let step = failure.message.split_once("`: ").filter(|_| !self.stage.places.is_empty());
                let step = step.map(|(step, _)| format!(": {step}`")).unwrap_or_default();
                format!("stage {name} failed{code}{step}")
            }
            _ => format!("stage {name} failed{code}: {}", failure.message),
        };
        let words = fs::read(directory.path().join("last-words")).unwrap_or_default();
        let words = String::from_utf8_lossy(words.get(..words.len().min(LAST_WORDS)).unwrap_or_default()).into_owned();
        if failure.reason == FailureReason::StepFailed && !words.trim().is_empty() {
            text = format!("{text}; its last lines:\n{}", words.trim_end());
            if let Some(advice) = self.stage.account.denied(&words) {
                text = format!("{text}\n{advice}");
            }
        }
        anyhow!(text)
    }
}

fn message(log: &Path) -> anyhow::Result<AgentMessage> {
    let text = fs::read(log).context("the agent left no message")?;
    serde_json::from_slice(&text).context("the agent's message is broken")
}

/// What the sandbox is given, as a Pod's build container is.
fn run(world: &World, plan: &StagePlan, builder: &Builder, directory: &RunDirectory) -> anyhow::Result<Run> {
    let stage = plan.settings.clone().unwrap_or_default();
    let restricted = plan.account == Account::Restricted;
    let own = directory.path();
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut binds =
        vec![bind(own.join("shared"), SHARED_DIR, false), bind(program, &format!("{SHARED_DIR}/{BINARY}"), true)];
    let written = |file: &str, place: &str, text: &str, mode: u32| {
        let path = own.join(file);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .with_context(|| format!("failed to write {}", path.display()))?;
        anyhow::Ok(bind(path, place, mode == 0o644))
    };
    binds.push(written("last-words", TERMINATION_LOG, "", 0o666)?);
    binds.push(written("hosts", "/etc/hosts", &hosts(), 0o644)?);
    binds.push(written("hostname", "/etc/hostname", &format!("{HOST_NAME}\n"), 0o644)?);
    // Names are looked up as on this machine: the network is its own.
    let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    binds.push(written("resolv.conf", "/etc/resolv.conf", &resolver, 0o644)?);
    if restricted {
        binds.push(written("passwd", "/etc/passwd", &passwd(RESTRICTED_USER, 0), 0o644)?);
        binds.push(written("group", "/etc/group", &group(0), 0o644)?);
    }
    let variables = variables(world, &stage);
    let (runtime, kind) = find_runtime(world.args.runtime.as_deref())?;
    Ok(Run {
        name: directory.name(),
        chains: world.store.chains(),
        layers: builder.chains.clone(),
        flat: builder.flat,
        directory: own.to_owned(),
        runtime,
        kind,
        account: plan.account,
        user: plan.account.user().map_or_else(|| builder.user.clone(), |user| user.to_string()),
        env: environment(&builder.env, restricted, variables),
        binds,
        caches: caches(world, &plan.name, &stage, directory),
    })
}

/// The proxy where the stage asks for it, and the variables whose values are not in the spec: they are this process' own.
fn variables(world: &World, stage: &Stage) -> Vec<(String, String)> {
    let proxy = PROXY_VARIABLES.iter().filter(|_| stage.proxy).map(|name| (*name).to_owned());
    let secret =
        stage.env.iter().filter(|variable| variable.value_from.is_some()).map(|variable| variable.name.clone());
    proxy.chain(secret).filter_map(|name| Some((name.clone(), world.variable(&name)?))).collect()
}

/// Each stage has a directory of its own in a claim, as in a cluster; a claim is the repository's here.
/// The others are volumes of one build, as in a cluster.
fn caches(world: &World, name: &str, stage: &Stage, directory: &RunDirectory) -> Vec<Bind> {
    let claims = stage.claims().map(|(cache, claim)| {
        let source = world.store.cache(&format!("{} {claim} {name} {}", world.outline.repository, cache.name));
        bind(source, &cache.path, false)
    });
    let volume = |cache: &Cache| bind(directory.path().join("caches").join(&cache.name), &cache.path, false);
    claims.chain(stage.registry_caches().map(volume)).collect()
}

fn bind(source: PathBuf, destination: &str, read_only: bool) -> Bind {
    Bind { source, destination: destination.to_owned(), read_only }
}

fn hosts() -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {HOST_NAME}\n")
}

/// Passes on what a sandbox writes, line by line.
async fn pass_on(from: Option<impl AsyncRead + Unpin>, world: Arc<World>, stage: String) {
    let Some(mut from) = from else { return };
    let mut line: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    let say = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        // A carriage return would write over the stage's name.
        let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        match text.strip_prefix(STEP_LINE) {
            Some(step) => world.progress.state(&stage, &format!("step {step}")),
            None => world.progress.output(&stage, text),
        }
    };
    loop {
        // It ends when all processes of the sandbox have ended.
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            break;
        }
        for part in buffer.get(..count).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") || line.len() > LONGEST_LINE {
                say(line.strip_suffix(b"\n").unwrap_or(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        say(&line);
    }
}
