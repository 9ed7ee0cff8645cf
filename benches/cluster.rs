//! Seconds from `kubectl apply` to done: of an empty Job, of a Job that only compiles, and of a MinimalImage that is built
//! first, changed, and asked for again. All of them in each round, each at a random phase of the kubelet's second.
//!
//! `make bench-cluster`, with ROUNDS=11 and BENCH_RUN (the stage's script) as settings. Nothing passes or fails by time.

// As in tests: what cannot go on ends with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/cluster/fixture.rs"]
mod fixture;

use std::{
    collections::BTreeMap,
    env,
    fmt::Debug,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fixture::{World, builder, go_program, go_spec, is_ready, observed, registry_writes};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use minimalimage::{
    api::v1alpha1::{MinimalImage, REQUESTED_AT},
    domain::task::{AGENT_CONTAINER, AgentMessage},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);
/// Debian's Go has the standard library compiled for just these settings, so that the platform shows and not the compiler.
const RUN: &str = "go build -ldflags '-s -w' -o /workspace/app .";
const EMPTY: &str = "empty Job";
const COMPILE: &str = "compile-only Job";

/// A stretch of time by its name, and how long it took in each round, in seconds.
type Row = (String, Vec<f64>);
/// When something was seen first, in seconds after the start.
type Stamps = BTreeMap<&'static str, f64>;

/// What is measured, and where.
struct Bench {
    world: World,
    changes: BoxStream<'static, Change>,
    run: String,
    rows: Vec<Row>,
}

enum Change {
    Image(Box<MinimalImage>),
    Job(Box<Job>),
    Pod(Box<Pod>),
}

#[tokio::main]
async fn main() {
    let rounds: usize = env::var("ROUNDS").map_or(11, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let mut bench = Bench::new().await;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        bench.round(round).await;
    }
    print(&bench.rows);
}

impl Bench {
    async fn new() -> Self {
        let world = World::new("bench").await;
        let images = watch(&world, |image| Change::Image(Box::new(image)));
        let jobs = watch(&world, |job| Change::Job(Box::new(job)));
        let pods = watch(&world, |pod| Change::Pod(Box::new(pod)));
        let changes = futures::stream::select_all([images, jobs, pods]).boxed();
        let run = env::var("BENCH_RUN").unwrap_or_else(|_| RUN.to_owned());
        Self { world, changes, run, rows: Vec::new() }
    }

    async fn round(&mut self, round: usize) {
        let text = |what: &str| format!("{what} {round} {}", self.world.namespace);
        let (bare, first, changed) = (text("bare"), text("first"), text("changed"));
        let (empty, compile, app) = (format!("empty-{round}"), format!("compile-{round}"), format!("app-{round}"));
        self.job(EMPTY, &empty, json!({"command": ["/bin/true"]}), &[]).await;

        let source = json!({"metadata": {"name": compile}, "data": {"main.go": go_program(&bare)}});
        self.world.create::<k8s_openapi::api::core::v1::ConfigMap>(source).await;
        let script = format!("cp /source/main.go . && {}", self.run);
        let container = json!({"command": ["/bin/sh", "-ec", script], "workingDir": "/workspace", "env": go_env(),
            "volumeMounts": [{"name": "source", "mountPath": "/source"}, {"name": "home", "mountPath": "/home/build"},
                {"name": "workspace", "mountPath": "/workspace"}, {"name": "tmp", "mountPath": "/tmp"}]});
        let empty_dir = |name: &str| json!({"name": name, "emptyDir": {}});
        let volumes = [json!({"name": "source", "configMap": {"name": compile}})];
        let volumes: Vec<_> = volumes.into_iter().chain(["home", "workspace", "tmp"].map(empty_dir)).collect();
        self.job(COMPILE, &compile, container, &volumes).await;

        let repository = self.world.repository(&app);
        self.build("first build", &app, &first, &repository).await;
        self.build("source changed", &app, &changed, &repository).await;
        let writes = registry_writes(&repository);
        let request = format!("{REQUESTED_AT}=now");
        let stamps = self.measure(&["annotate", "minimalimage", &app, &request], "", &app).await;
        self.keep("nothing changed, requested", stamps["done"]);
        assert_eq!(registry_writes(&repository), writes, "nothing changed, so nothing is written");
    }

    async fn job(&mut self, what: &str, name: &str, container: Value, volumes: &[Value]) {
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": false, "volumes": volumes,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "build", "image": builder("go"),
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]
            }}}
        });
        let target = job["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap();
        target.extend(container.as_object().unwrap().clone());
        let stamps = self.measure(&["apply", "--filename", "-"], &job.to_string(), name).await;
        self.keep(what, stamps["done"]);
        self.keep(&format!("{what}: its container is seen to have ended"), stamps["ended"]);
    }

    /// One build, with where its time went; the parts add up to the whole.
    async fn build(&mut self, what: &str, name: &str, text: &str, repository: &str) {
        let source = json!({"inline": {"files": [{"path": "main.go", "content": go_program(text)}]}});
        let mut spec = go_spec(&source, repository);
        spec["stages"][0]["env"] = go_env();
        spec["stages"][0]["run"] = json!(self.run);
        let image = json!({"apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage",
            "metadata": {"name": name}, "spec": spec});
        let mut stamps = self.measure(&["apply", "--filename", "-"], &image.to_string(), name).await;
        stamps.extend(self.layer_in_place(stamps["clock"]).map(|after| ("layer", after)));
        let at = |name: &str| stamps.get(name).copied().unwrap_or(f64::NAN);
        let agent = at("fetch") + at("steps") + at("pack");
        self.keep(what, at("done"));
        for (part, took) in [
            ("apply to Job", at("job")),
            ("Job to Pod scheduled", at("scheduled") - at("job")),
            ("kubelet: starts both containers, sees their end", at("agent ended") - at("scheduled") - agent),
            ("agent: fetch", at("fetch")),
            ("steps", at("steps")),
            ("agent: pack and upload", at("pack")),
            ("operator: reads and records the artifact, mounts the layer", at("layer") - at("agent ended")),
            ("operator: config, manifest, tags, status", at("done") - at("layer")),
        ] {
            self.keep(&format!("{what}: {part}"), took);
        }
    }

    /// Runs kubectl with `input` and notes what is seen until the object `name` is done.
    async fn measure(&mut self, arguments: &[&str], input: &str, name: &str) -> Stamps {
        // The kubelet looks once a second: starts in step with it would measure its phase. What is before has settled then.
        let phase = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs()) % 1000;
        tokio::time::sleep(Duration::from_millis(500 + phase)).await;
        while self.changes.next().now_or_never().is_some() {}
        let (start, clock) = (Instant::now(), Timestamp::now());
        let mut kubectl = Command::new("kubectl")
            .args(["--namespace", &self.world.namespace])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("kubectl");
        kubectl.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let mut stamps = Stamps::from([("clock", seconds(clock))]);
        while !stamps.contains_key("done") {
            let change = tokio::time::timeout(PATIENCE, self.changes.next()).await;
            let change =
                change.unwrap_or_else(|_| panic!("{name} is not done: {stamps:?}")).expect("a watch has no end");
            let now = start.elapsed().as_secs_f64();
            let mut see = |what: &'static str, value: f64| {
                stamps.entry(what).or_insert(value);
            };
            match change {
                Change::Image(image) if image.name_any() == name => image_stamps(&image, now, &mut see),
                Change::Job(job) if of(&*job, name) => job_stamps(&job, now, &mut see),
                Change::Pod(pod) if of(&*pod, name) => pod_stamps(&pod, now, &mut see),
                _ => {}
            }
        }
        assert!(kubectl.wait().unwrap().success(), "kubectl {arguments:?}");
        stamps
    }

    /// When the operator's log says that the layer was in place, in seconds after `clock`: one build runs at a time here.
    fn layer_in_place(&self, clock: f64) -> Option<f64> {
        let log = ["logs", "--namespace=minimalimage-system", "deployment/minimalimage", "--since=60s"];
        let log = Command::new("kubectl").args(log).output().expect("kubectl").stdout;
        let log = String::from_utf8_lossy(&log);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours =
            |line: &Value| line["message"] == "layer" && line["span"]["namespace"] == self.world.namespace.as_str();
        let times = lines.filter(ours).filter_map(|line| line["timestamp"].as_str()?.parse::<Timestamp>().ok());
        times.map(|time| seconds(time) - clock).find(|after| *after > 0.0)
    }

    fn keep(&mut self, what: &str, value: f64) {
        match self.rows.iter_mut().find(|(name, _)| name == what) {
            Some((_, values)) => values.push(value),
            None => self.rows.push((what.to_owned(), vec![value])),
        }
    }
}

/// All changes of one kind in the namespace. Begins at once, so that the first one finds an open connection.
fn watch<K>(world: &World, change: impl Fn(K) -> Change + Send + 'static) -> BoxStream<'static, Change>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + serde::de::DeserializeOwned
        + Clone
        + Debug
        + Send
        + 'static,
{
    let objects = watcher(world.api::<K>(), watcher::Config::default()).applied_objects();
    objects.map(move |object| change(object.expect("a watch"))).boxed()
}

/// A Job by its name or its owner's, and its Pod; not one that is on its way out.
fn of(object: &impl ResourceExt, name: &str) -> bool {
    if object.meta().deletion_timestamp.is_some() {
        return false;
    }
    let label = |key: &str| object.labels().get(key).is_some_and(|value| value == name);
    object.name_any() == name || label("minimalimage.dev/image") || label("batch.kubernetes.io/job-name")
}

fn image_stamps(image: &MinimalImage, now: f64, see: &mut impl FnMut(&'static str, f64)) {
    let handled = image.status.as_ref().and_then(|status| status.last_handled_requested_at.as_ref());
    if is_ready(image)
        && observed(image) == image.metadata.generation
        && handled == image.annotations().get(REQUESTED_AT)
    {
        see("done", now);
    }
}

fn job_stamps(job: &Job, now: f64, see: &mut impl FnMut(&'static str, f64)) {
    see("job", now);
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in conditions.filter(|condition| condition.status == "True") {
        assert_ne!(condition.type_, "Failed", "{:?}", condition.message);
        if condition.type_ == "Complete" && !job.labels().contains_key("minimalimage.dev/image") {
            see("done", now);
        }
    }
}

fn pod_stamps(pod: &Pod, now: f64, see: &mut impl FnMut(&'static str, f64)) {
    let status = pod.status.iter();
    let mut conditions = status.clone().flat_map(|status| status.conditions.iter().flatten());
    if conditions.any(|condition| condition.type_ == "PodScheduled" && condition.status == "True") {
        see("scheduled", now);
    }
    for container in status.flat_map(|status| status.container_statuses.iter().flatten()) {
        let Some(ended) = container.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
        see("ended", now);
        if container.name == AGENT_CONTAINER {
            see("agent ended", now);
            let message = ended.message.as_deref().unwrap_or_default();
            let timings = serde_json::from_str::<AgentMessage>(message).unwrap_or_default().timings;
            for (what, value) in [("fetch", timings.fetch), ("steps", timings.steps), ("pack", timings.pack)] {
                see(what, Duration::from_millis(value).as_secs_f64());
            }
        }
    }
}

/// Seconds since 1970.
#[allow(clippy::cast_precision_loss)] // microseconds since then fit
fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

fn go_env() -> Value {
    json!([{"name": "GO111MODULE", "value": "off"}, {"name": "HOME", "value": "/home/build"}])
}

/// Median and p90 of each row, and the median beside those of the two Jobs.
fn print(rows: &[Row]) {
    let quantile = |values: &[f64], share: usize| {
        let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values.get((values.len() * share).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    let median =
        |name: &str| rows.iter().find(|(row, _)| row == name).map_or(f64::NAN, |(_, values)| quantile(values, 50));
    println!("{:<66} {:>7} {:>7} {:>8} {:>10}", "seconds", "median", "p90", "/ empty", "/ compile");
    for (name, values) in rows {
        let (half, most) = (quantile(values, 50), quantile(values, 90));
        match name.split_once(": ") {
            Some((_, part)) => println!("  {part:<64} {half:>7.3} {most:>7.3}"),
            None => {
                let (empty, compile) = (half / median(EMPTY), half / median(COMPILE));
                println!("{name:<66} {half:>7.2} {most:>7.2} {empty:>8.2} {compile:>10.2}");
            }
        }
    }
}
