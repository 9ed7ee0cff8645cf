//! An operator of a test's own: a process on this machine that can be killed, beside the one that the chart installed.
//! That one leaves out what carries the label; this one takes what carries it with the test's namespace as its value.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::Api;
use serde_json::json;

use crate::fixture::{TEST_OPERATOR, World, setting};

/// How to start operators for one test.
pub(crate) struct Recipe {
    namespace: String,
    agent_image: String,
    directory: tempfile::TempDir,
    registries: Vec<String>,
    kubeconfig: PathBuf,
    flags: Vec<String>,
}

/// A running operator; killed at the end of its scope.
pub(crate) struct Operator {
    process: Child,
}

impl Recipe {
    /// For the resources of `world`, with the agent of the installed operator.
    pub(crate) async fn new(world: &World) -> Self {
        assert!(world.own_operator, "the installed operator would take them too");
        let deployments = Api::<Deployment>::namespaced(world.client.clone(), "minimalimage-system");
        let installed = deployments.get("minimalimage").await.expect("the installed operator");
        let pod = installed.spec.unwrap().template.spec.unwrap();
        let variables = pod.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
        let mut agent_image = variables.filter(|variable| variable.name == "MINIMALIMAGE_AGENT_IMAGE");
        let agent_image = agent_image.next().and_then(|variable| variable.value).expect("an agent image");
        Self {
            namespace: world.namespace.clone(),
            agent_image,
            directory: tempfile::tempdir().unwrap(),
            registries: vec![setting("MINIMALIMAGE_REGISTRY")],
            kubeconfig: setting("KUBECONFIG").into(),
            flags: Vec::new(),
        }
    }

    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// One more registry that speaks plain http.
    pub(crate) fn registry(mut self, host: &str) -> Self {
        self.registries.push(host.to_owned());
        self
    }

    /// Behind an address that needs no login, instead of the API server.
    pub(crate) fn api_server(mut self, address: SocketAddr) -> Self {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {}}]
        });
        self.kubeconfig = self.directory.path().join("kubeconfig");
        fs::write(&self.kubeconfig, config.to_string()).unwrap();
        self
    }

    pub(crate) fn start(&self) -> Operator {
        let plain = |host: &String| (host.clone(), json!({"plainHttp": true}));
        let registries: serde_json::Map<_, _> = self.registries.iter().map(plain).collect();
        let registries_file = self.directory.path().join("registries.yaml");
        if !registries_file.exists() {
            // Not while another replica reads it.
            fs::write(&registries_file, serde_json::Value::from(registries).to_string()).unwrap();
        }
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_minimalimage"))
            .args(["operator", "--address=127.0.0.1:0", "--agent-image", &self.agent_image])
            .args(["--namespace", &self.namespace, "--watch-namespace", &self.namespace])
            .arg(format!("--selector={TEST_OPERATOR}={}", self.namespace))
            .arg("--registries-file")
            .arg(&registries_file)
            .arg("--ca-file")
            .arg(setting("MINIMALIMAGE_CA"))
            .args(&self.flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("an operator");
        Operator { process }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// What the operators said, for whoever reads why a test failed.
impl Drop for Recipe {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(200).collect();
            eprintln!("the operator's log:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

impl Operator {
    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to end, as the kubelet does, and waits until it has.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        tokio::task::spawn_blocking(move || self.process.wait().unwrap()).await.unwrap()
    }

    /// Ends with the identity that it has in the Lease.
    pub(crate) fn suffix(&self) -> String {
        format!("_{}", self.process.id())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until `operator` holds the Lease of its namespace.
pub(crate) async fn leads(world: &World, operator: &Operator) {
    let suffix = operator.suffix();
    world
        .until_any::<Lease>("minimalimage-operator", "the leader's name in the Lease", |lease| {
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
            holder.is_some_and(|holder| holder.ends_with(&suffix))
        })
        .await;
}
