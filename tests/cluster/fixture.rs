//! Namespaces, repositories and MinimalImages for one test, and how to await what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Namespace, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use minimalimage::{
    api::{
        conditions::{READY, RECONCILING, STALLED, find},
        v1alpha1::{MinimalImage, StageState, Status},
    },
    domain::job::STAGE_LABEL,
};
use serde_json::{Value, json};

/// By this label a resource belongs to an operator that a test started itself; the installed one leaves it alone.
pub(crate) const TEST_OPERATOR: &str = "minimalimage.dev/test-operator";
/// A command that waits until the test lets it go on: however busy the machine is, what is to happen meanwhile does.
pub(crate) const GATE: &str = "until [ -e /tmp/open ]; do sleep 0.1; done";
/// Longer than any build here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// One namespace and what it needs around it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Whether MinimalImages are for an operator that the test starts, and not for the installed one.
    pub(crate) own_operator: bool,
}

/// What the scripts of the test cluster export; without it a cluster test cannot run, and fails.
pub(crate) fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test-cluster`, which starts a cluster"))
}

impl World {
    /// A namespace under the `restricted` Pod Security Standard.
    pub(crate) async fn new(test: &str) -> Self {
        Self::with_security(test, "restricted").await
    }

    /// A namespace whose MinimalImages the installed operator leaves alone.
    pub(crate) async fn with_own_operator(test: &str) -> Self {
        Self::new(test).await.on_its_own()
    }

    /// The same, made already.
    pub(crate) fn on_its_own(mut self) -> Self {
        self.own_operator = true;
        self
    }

    pub(crate) async fn with_security(test: &str, level: &str) -> Self {
        let _first = rustls::crypto::ring::default_provider().install_default();
        setting("KUBECONFIG");
        let client = Client::try_default().await.expect("a cluster");
        let namespace = format!("{test}-{}", unique());
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": level, "minimalimage.dev/test": "true"}}
        }))
        .unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &object).await.expect("a namespace");
        let world = Self { client, namespace, own_operator: false };
        world.await_service_account().await;
        world
    }

    async fn await_service_account(&self) {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = self.api();
        let stream = watcher(accounts, watcher::Config::default().fields("metadata.name=default")).applied_objects();
        futures::pin_mut!(stream);
        tokio::time::timeout(PATIENCE, stream.try_next()).await.expect("a default service account").unwrap();
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A repository name of this test's own on the open registry.
    pub(crate) fn repository(&self, name: &str) -> String {
        format!("{}/{}/{name}", setting("MINIMALIMAGE_REGISTRY"), self.namespace)
    }

    pub(crate) async fn apply(&self, name: &str, spec: Value) -> MinimalImage {
        self.try_apply(name, spec).await.expect("the API server takes it")
    }

    pub(crate) async fn try_apply(&self, name: &str, spec: Value) -> kube::Result<MinimalImage> {
        let mut object = json!({
            "apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage",
            "metadata": {"name": name}, "spec": spec
        });
        if self.own_operator {
            object["metadata"]["labels"] = json!({TEST_OPERATOR: self.namespace});
        }
        let params = PatchParams::apply("test").force();
        self.api::<MinimalImage>().patch(name, &params, &Patch::Apply(object)).await
    }

    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.api::<MinimalImage>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    /// What a platform team does for a namespace whose Secrets the operator may read.
    pub(crate) async fn allow_secrets(&self) {
        self.create::<k8s_openapi::api::rbac::v1::RoleBinding>(json!({
            "metadata": {"name": "minimalimage-secrets"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "minimalimage-secrets"},
            "subjects": [{"kind": "ServiceAccount", "name": "minimalimage", "namespace": "minimalimage-system"}]
        }))
        .await;
    }

    /// A login Secret for a registry.
    pub(crate) async fn registry_secret(&self, name: &str, password: &str) {
        let auths = json!({"auths": {setting("MINIMALIMAGE_REGISTRY_AUTH"):
            {"username": setting("MINIMALIMAGE_REGISTRY_USER"), "password": password}}});
        let secret = json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": auths.to_string()}});
        let secrets = self.api::<k8s_openapi::api::core::v1::Secret>();
        secrets
            .patch(name, &PatchParams::apply("test").force(), &Patch::Apply(with_kind(secret, "Secret")))
            .await
            .unwrap();
    }

    /// The resource once `done` says so; what it was last, when that never comes.
    pub(crate) async fn until(&self, name: &str, what: &str, done: impl Fn(&MinimalImage) -> bool) -> MinimalImage {
        self.until_any(name, what, done).await
    }

    /// The same for any object.
    pub(crate) async fn until_any<K>(&self, name: &str, what: &str, done: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(self.api::<K>(), config).applied_objects();
        futures::pin_mut!(stream);
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(object) = stream.try_next().await.unwrap() {
                if done(&object) {
                    return object;
                }
                last = Some(object);
            }
            unreachable!("a watch has no end")
        })
        .await;
        found.unwrap_or_else(|_| {
            let last = serde_json::to_value(&last).unwrap();
            let shown = last.get("status").unwrap_or(&last);
            panic!("{}/{name}: {what} did not come; what it was last: {shown}", self.namespace)
        })
    }

    /// Waits until a stage runs.
    pub(crate) async fn running(&self, name: &str) -> MinimalImage {
        let running = |image: &MinimalImage| {
            let mut stages = image.status.iter().flat_map(|status| &status.stages);
            stages.any(|stage| stage.state == StageState::Running)
        };
        self.until(name, "a running stage", running).await
    }

    /// Waits until no object of this kind is left.
    pub(crate) async fn none_left<K>(&self)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let stream = watcher(self.api::<K>(), watcher::Config::default());
        futures::pin_mut!(stream);
        let mut left = BTreeSet::new();
        let mut listed = false;
        let gone = tokio::time::timeout(PATIENCE, async {
            while !listed || !left.is_empty() {
                match stream.try_next().await.unwrap().expect("a watch has no end") {
                    watcher::Event::Init => (left, listed) = (BTreeSet::new(), false),
                    watcher::Event::InitDone => listed = true,
                    watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                        left.insert(object.name_any());
                    }
                    watcher::Event::Delete(object) => {
                        left.remove(&object.name_any());
                    }
                }
            }
        })
        .await;
        assert!(gone.is_ok(), "{}: these are left: {left:?}", self.namespace);
    }

    /// Lets a stage go on that waits by [`GATE`]; gives whether it has heard of it, which one on its way out has not.
    pub(crate) async fn open_gate(&self, stage: &str) -> bool {
        let selector = format!("{STAGE_LABEL}={stage}");
        let pods = self.api::<Pod>().list(&ListParams::default().labels(&selector)).await.unwrap();
        let mut heard = false;
        for pod in pods.items {
            let mut kubectl = tokio::process::Command::new("kubectl");
            kubectl.args(["exec", "--namespace", &self.namespace, "--container", "build", &pod.name_any()]);
            heard |= kubectl.args(["--", "touch", "/tmp/open"]).output().await.unwrap().status.success();
        }
        heard
    }

    /// Opens the gate of `stage` as soon as the status of `name` says that it runs.
    pub(crate) async fn open_gate_when_running(&self, name: &str, stage: &str) {
        let runs = |image: &MinimalImage| {
            let mut stages = image.status.iter().flat_map(|status| &status.stages);
            stages.any(|status| status.name == stage && status.state == StageState::Running)
        };
        self.until(name, stage, runs).await;
        assert!(self.open_gate(stage).await, "{}: stage {stage} cannot be told to go on", self.namespace);
    }

    /// The status once the image of the current generation is ready.
    pub(crate) async fn ready(&self, name: &str) -> Status {
        let generation = self.api::<MinimalImage>().get(name).await.unwrap().metadata.generation;
        let image = self.until(name, "Ready", |image| is_ready(image) && observed(image) == generation).await;
        image.status.unwrap()
    }

    /// The status after a build that an annotation asks for.
    pub(crate) async fn built_again(&self, name: &str, request: &str) -> Status {
        self.annotate(name, "minimalimage.dev/requestedAt", request).await;
        let done = |image: &MinimalImage| {
            image.status.as_ref().is_some_and(|status| {
                let succeeded = status.last_build.as_ref().is_some_and(|build| build.succeeded);
                status.last_handled_requested_at.as_deref() == Some(request) && status.progress.is_none() && succeeded
            })
        };
        self.until(name, "the requested build", done).await.status.unwrap()
    }

    /// The status once the build of the current generation has ended with `reason`.
    pub(crate) async fn ended(&self, name: &str, reason: &str) -> Status {
        let generation = self.api::<MinimalImage>().get(name).await.unwrap().metadata.generation;
        let image =
            self.until(name, reason, |image| reason_of(image) == Some(reason) && observed(image) == generation).await;
        image.status.unwrap()
    }

    pub(crate) async fn jobs(&self) -> Vec<Job> {
        self.api::<Job>().list(&ListParams::default()).await.unwrap().items
    }

    /// Build Pods that were ever made here, by their Events, are so many.
    pub(crate) async fn had_pods(&self, expected: usize) {
        self.told("SuccessfulCreate", expected).await;
    }

    /// There are so many Events of a reason. They come after what they tell of.
    pub(crate) async fn told(&self, reason: &str, expected: usize) {
        let fields = format!("reason={reason}");
        let stream = watcher(self.api::<Event>(), watcher::Config::default().fields(&fields));
        let stream = stream.applied_objects();
        futures::pin_mut!(stream);
        let mut told = BTreeSet::new();
        let enough = tokio::time::timeout(PATIENCE, async {
            while told.len() < expected {
                told.insert(stream.try_next().await.unwrap().expect("a watch has no end").name_any());
            }
        })
        .await;
        assert!(enough.is_ok(), "{}: {told:?}", self.namespace);
        let events = self.api::<Event>().list(&ListParams::default().fields(&fields)).await.unwrap();
        let all: Vec<_> = events.items.into_iter().filter_map(|event| event.message).collect();
        assert_eq!(all.len(), expected, "{}: {all:?}", self.namespace);
    }

    /// Runs an image to its end as a restricted Pod and gives its log.
    pub(crate) async fn run(&self, name: &str, image: &str) -> String {
        let pods = self.api::<Pod>();
        let pod = restricted(name, image);
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(pods.clone(), config).applied_objects();
        futures::pin_mut!(stream);
        let ended = async {
            while let Some(pod) = stream.try_next().await.unwrap() {
                let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
                if phase.as_deref() == Some("Succeeded") || phase.as_deref() == Some("Failed") {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{name} did not end"));
        pods.logs(name, &kube::api::LogParams::default()).await.unwrap()
    }

    /// Runs an image as a restricted Pod that cannot write to it, and gives the Pod's address once `port` is open.
    pub(crate) async fn serve(&self, name: &str, image: &str, port: u16) -> SocketAddr {
        let mut pod = restricted(name, image);
        let spec = pod.spec.as_mut().unwrap();
        let container = spec.containers.first_mut().unwrap();
        container.readiness_probe =
            serde_json::from_value(json!({"tcpSocket": {"port": port}, "periodSeconds": 1})).unwrap();
        container.security_context.as_mut().unwrap().read_only_root_filesystem = Some(true);
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        let ready = |pod: &Pod| {
            let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let pod = self.until_any(name, "an open port", ready).await;
        let address = pod.status.and_then(|status| status.pod_ip).unwrap();
        SocketAddr::new(address.parse().unwrap(), port)
    }
}

/// A Pod that the `restricted` Pod Security Standard admits.
fn restricted(name: &str, image: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "main", "image": image,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]
        }
    }))
    .unwrap()
}

/// What a failed test leaves is shown by tests/dump, which finds it by the label, and then deleted by tests/on-cluster.
impl Drop for World {
    fn drop(&mut self) {
        let mut kubectl = Command::new("kubectl");
        if std::thread::panicking() {
            kubectl.args(["label", "--overwrite", "namespace", &self.namespace, "minimalimage.dev/test=failed"]);
        } else if env::var_os("KEEP_NAMESPACES").is_none() {
            kubectl.args(["delete", "namespace", &self.namespace, "--wait=false"]);
        } else {
            return;
        }
        let _ = kubectl.output();
    }
}

/// A bare repository on the test cluster's git server.
pub(crate) struct Repository {
    path: PathBuf,
    pub(crate) url: String,
}

impl Repository {
    pub(crate) fn new(name: &str) -> Self {
        Self::at(&format!("{name}-{}.git", unique()))
    }

    pub(crate) fn private(name: &str) -> Self {
        Self::at(&format!("private/{name}-{}.git", unique()))
    }

    fn at(name: &str) -> Self {
        let path = PathBuf::from(setting("GIT_ROOT")).join(name);
        git(&path, &["init", "--quiet", "--bare", "--initial-branch=main", path.to_str().unwrap()]);
        Self { url: format!("{}/{name}", setting("GIT_URL")), path }
    }

    /// Commits exactly `files` to main and gives the commit.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        let tree = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let work = format!("--work-tree={}", tree.path().display());
        git(&self.path, &[&work, "add", "--all"]);
        git(&self.path, &[&work, "commit", "--quiet", "--allow-empty", "--message=change"]);
        git(&self.path, &["rev-parse", "main"])
    }
}

fn git(directory: &std::path::Path, args: &[&str]) -> String {
    fs::create_dir_all(directory).unwrap();
    let output = Command::new("git")
        .env("GIT_DIR", directory)
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "core.bare=false"])
        .args(args)
        .output()
        .expect("git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The text of one file of an image.
pub(crate) fn file_in(image: &str, path: &str) -> String {
    tar_of(image, &["--extract", "--to-stdout", "--file"], &[path])
}

/// All entries of an image: mode, numeric owner, name, and where links lead.
pub(crate) fn listing(image: &str) -> Vec<String> {
    let listed = tar_of(image, &["--list", "--verbose", "--numeric-owner", "--file"], &[]);
    let short = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        // Behind mode and owner come size, date and time.
        [&words[..2], &words[5..]].concat().join(" ")
    };
    listed.lines().map(short).collect()
}

fn tar_of(image: &str, before: &[&str], after: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let crane = Command::new("crane").args(["export", "--insecure", image]).arg(&archive).output().expect("crane");
    assert!(crane.status.success(), "crane export {image}: {}", String::from_utf8_lossy(&crane.stderr));
    let tar = Command::new("tar").args(before).arg(&archive).args(after).output().expect("tar");
    assert!(tar.status.success(), "tar {before:?} {after:?} of {image}: {}", String::from_utf8_lossy(&tar.stderr));
    String::from_utf8(tar.stdout).unwrap()
}

/// Runs kubectl in a namespace and gives what it prints.
pub(crate) fn kubectl(world: &World, args: &[&str]) -> String {
    let output = Command::new("kubectl").args(["--namespace", &world.namespace]).args(args).output().expect("kubectl");
    assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A builder image of the test cluster.
pub(crate) fn builder(name: &str) -> String {
    format!("{}/builders/{name}:1", setting("MINIMALIMAGE_REGISTRY"))
}

/// A Go program that prints `text`.
pub(crate) fn go_program(text: &str) -> String {
    format!("package main\n\nimport \"os\"\n\nfunc main() {{\n\tos.Stdout.WriteString(\"{text}\\n\")\n}}\n")
}

/// The usual spec: one Go stage, one file on scratch.
pub(crate) fn go_spec(source: &Value, repository: &str) -> Value {
    json!({
        "interval": "1h",
        "source": source,
        "stages": [{"name": "build", "image": builder("go"),
            "env": [{"name": "CGO_ENABLED", "value": "0"}, {"name": "GO111MODULE", "value": "off"}],
            "run": "go build -trimpath -ldflags='-s -w' -o /workspace/app ."}],
        "image": {"copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}], "command": ["/app"]},
        "destination": {"repository": repository}
    })
}

/// How many writes the open registry has seen for a repository, by its log.
pub(crate) fn registry_writes(repository: &str) -> usize {
    let path = repository.split_once('/').unwrap().1;
    let log = fs::read_to_string(setting("MINIMALIMAGE_REGISTRY_LOG")).expect("the registry's log");
    let about = |line: &&str| line.contains(&format!("/v2/{path}/")) || line.contains(&format!("/v2/{path}-cache/"));
    let writes = |line: &&str| ["PUT", "POST", "PATCH"].iter().any(|method| line.contains(&format!("\"{method} /v2/")));
    log.lines().filter(about).filter(writes).count()
}

pub(crate) fn is_ready(image: &MinimalImage) -> bool {
    condition(image, READY).is_some_and(|(status, _)| status == "True") && condition(image, RECONCILING).is_none()
}

pub(crate) fn is_stalled(status: &Status) -> bool {
    find(&status.conditions, STALLED).is_some() && find(&status.conditions, RECONCILING).is_none()
}

pub(crate) fn message(status: &Status) -> String {
    find(&status.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default()
}

pub(crate) fn observed(image: &MinimalImage) -> Option<i64> {
    image.status.as_ref().map(|status| status.observed_generation)
}

fn reason_of(image: &MinimalImage) -> Option<&str> {
    find(&image.status.as_ref()?.conditions, READY).map(|ready| ready.reason.as_str())
}

fn condition(image: &MinimalImage, type_: &str) -> Option<(String, String)> {
    let condition = find(&image.status.as_ref()?.conditions, type_)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

fn with_kind(mut object: Value, kind: &str) -> Value {
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    object
}

/// Different in each run and test: names of namespaces and repositories must never meet.
fn unique() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{:x}{count:x}", now & 0xffff_ffff)
}

/// Names and layers by stage of an image's status.
pub(crate) fn layers_by_origin(status: &Status) -> BTreeMap<String, usize> {
    status.image.iter().flat_map(|image| &image.layers).fold(BTreeMap::new(), |mut counts, layer| {
        *counts.entry(layer.from.clone()).or_default() += 1;
        counts
    })
}

/// Time from here to a later moment, for messages.
pub(crate) struct Watch(Instant);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn print(&self, what: &str) {
        println!("{what}: {:.1} s", self.0.elapsed().as_secs_f64());
    }
}
