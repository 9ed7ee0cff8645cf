//! Every example in the repository, as its README says, with the names of the test cluster.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use backon::{ConstantBuilder, Retryable};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::fixture::{Repository, World, kubectl, message, setting};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MAIN: &str = "minimalimage.yaml";

/// What an example's image does when it runs.
enum Does {
    Prints(&'static str),
    /// Serves a port, and says something on a request.
    Answers(u16, &'static str, &'static str),
}
use Does::{Answers, Prints};

/// A manifest in a directory of examples/, what its image does, and how many bytes it has at most.
const EXAMPLES: &[(&str, &str, Does, i64)] = &[
    ("base-image", MAIN, Prints("world\n"), 20_000_000),
    ("c", MAIN, Prints("hello from C on glibc 2.41\n"), 30_000_000),
    ("c", "static.yaml", Prints("hello from C on glibc 2.36\n"), 1_000_000),
    ("chain", MAIN, Prints("IMAGES\nSAFE\nSMALL\n"), 2_000_000),
    ("dockerfile", MAIN, Answers(8080, "GET /6*7 HTTP/1.0\r\n\r\n", "42\n"), 1_900_000),
    ("dockerfile-four-stages", MAIN, Prints("greetings from C\nline 1\nline 2\nline 3\n"), 4_000_000),
    ("go", MAIN, Answers(8080, "GET /6*7 HTTP/1.0\r\n\r\n", "42\n"), 1_900_000),
    ("java", MAIN, Answers(8080, "GET / HTTP/1.0\r\n\r\n", "hello from Java 17\n"), 250_000_000),
    ("java", "jlink.yaml", Answers(8080, "GET / HTTP/1.0\r\n\r\n", "hello from Java 17\n"), 80_000_000),
    (
        "python",
        MAIN,
        Answers(8080, "GET /<you> HTTP/1.0\r\n\r\n", "<p>hello &lt;you&gt; from Python 3.11</p>"),
        60_000_000,
    ),
    ("redis", MAIN, Answers(6379, "PING\r\nQUIT\r\n", "+PONG\r\n"), 40_000_000),
    ("rust", MAIN, Answers(8080, "GET / HTTP/1.0\r\n\r\n", "hello from Rust, dynamically linked\n"), 30_000_000),
    ("rust", "static.yaml", Answers(8080, "GET / HTTP/1.0\r\n\r\n", "hello from Rust, statically linked\n"), 2_000_000),
    ("two-builders", MAIN, Prints("Go heard: hello Go, this is C\n"), 6_000_000),
];

/// Those that have tests of their own.
const ELSEWHERE: &[(&str, &str)] = &[
    ("c", "misfit.yaml"),
    ("dockerfile-apt", MAIN),
    ("go-https", MAIN),
    ("three-tier", "api.yaml"),
    ("three-tier", "data.yaml"),
    ("three-tier", "deployments.yaml"),
    ("three-tier", "web.yaml"),
];

/// Runs the script that knows which of the cluster's names stand for the examples' public ones.
pub(crate) fn examples(arguments: &[&str]) -> String {
    let output = Command::new(format!("{ROOT}/tests/examples")).args(arguments).output().expect("tests/examples");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Builds without a cluster, as a user does who has nothing yet.
pub(crate) struct Here {
    directory: tempfile::TempDir,
}

impl Here {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hosts = ["MINIMALIMAGE_REGISTRY", "MINIMALIMAGE_REGISTRY2"].map(setting);
        let registries = hosts.map(|host| format!("\"{host}\": {{plainHttp: true}}\n")).concat();
        fs::write(directory.path().join("registries.yaml"), registries).unwrap();
        Self { directory }
    }

    /// The digests of an example that is built from its Git repository, and then from its directory with what the store has.
    fn digests(&self, shown: &str) -> [String; 2] {
        let manifest: Value = serde_saphyr::from_str(shown).unwrap();
        let file = self.directory.path().join(MAIN);
        fs::write(&file, shown).unwrap();
        let context = tempfile::tempdir().unwrap();
        let directory = context.path().join("context");
        match manifest["spec"]["source"]["directory"].as_str() {
            Some(source) => drop(examples(&["copy", source, directory.to_str().unwrap()])),
            None => fs::create_dir(&directory).unwrap(),
        }
        [vec![], vec![Path::new("--no-cache"), &directory]].map(|arguments| self.build(&file, &arguments))
    }

    pub(crate) fn build(&self, file: &Path, arguments: &[&Path]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minimalimage"));
        command.args(["build", "--quiet", "--file"]).arg(file).args(arguments);
        command.arg("--store").arg(self.directory.path().join("store"));
        command.arg("--registries-file").arg(self.directory.path().join("registries.yaml"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Everything that a server says to `request`, until it hangs up.
async fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let answer = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_mins(1), answer).await.expect("an answer")
}

/// The answer once it has `expected` in it: a Service may lead nowhere for a moment although its Pods are ready.
async fn answered(address: SocketAddr, request: &str, expected: &str) -> String {
    let once = || async {
        match ask(address, request).await {
            Ok(answer) if answer.contains(expected) => Ok(answer),
            other => Err(other),
        }
    };
    let patience = ConstantBuilder::default().with_delay(Duration::from_millis(100)).with_max_times(300);
    once.retry(patience).await.unwrap_or_else(|last| panic!("{request} was answered with {last:?}"))
}

#[test]
fn every_example_is_tested() {
    let directories = fs::read_dir(format!("{ROOT}/examples")).unwrap().map(|entry| entry.unwrap());
    let files =
        directories.flat_map(|directory| fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()));
    let manifests = files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    let there: BTreeSet<PathBuf> = manifests.collect();
    let tested = EXAMPLES.iter().map(|(name, file, ..)| (*name, *file)).chain(ELSEWHERE.iter().copied());
    let tested: BTreeSet<_> =
        tested.map(|(name, file)| PathBuf::from(format!("{ROOT}/examples/{name}/{file}"))).collect();
    assert_eq!(there, tested);
}

#[tokio::test]
async fn every_example_becomes_an_image_that_does_what_its_readme_says() {
    let (world, baseline) = (World::new("examples").await, World::with_security("examples-root", "baseline").await);
    let mut applied = Vec::new();
    for (name, file, does, most) in EXAMPLES {
        let shown = examples(&["show", name, file]);
        let manifest: Value = serde_saphyr::from_str(&shown).unwrap();
        let resource = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        // Stages of a Dockerfile run as root in their container.
        let world = if manifest["spec"]["dockerfile"].is_null() { &world } else { &baseline };
        world.apply(&resource, manifest["spec"].clone()).await;
        applied.push((resource, shown, world, does, *most));
    }
    let here = Here::new();
    for (name, shown, world, does, most) in applied {
        let status = world.ready(&name).await;
        let image = status.image.unwrap();
        println!(
            "{name}: {} from {}",
            image.display_size,
            status.builder_display_size.as_deref().unwrap_or("no builder")
        );
        assert!(image.size <= most, "{name} has {} bytes", image.size);
        assert_eq!(here.digests(&shown), [image.digest.clone(), image.digest], "{name} without a cluster");
        let (heard, expected) = match does {
            Prints(text) => (world.run(&name, &image.reference).await, text),
            Answers(port, request, text) => {
                (ask(world.serve(&name, &image.reference, *port).await, request).await.unwrap(), text)
            }
        };
        assert!(heard.contains(expected), "{name}: {heard}");
    }
}

/// A page, an API and a store: each an image of its own, each without root and without anything that it could write to.
#[tokio::test]
async fn a_visit_goes_through_three_tiers_and_is_counted() {
    let world = World::new("three-tier").await;
    let tiers = ["web", "api", "data"].map(|tier| (tier, examples(&["show", "three-tier", &format!("{tier}.yaml")])));
    for (tier, shown) in &tiers {
        let manifest: Value = serde_saphyr::from_str(shown).unwrap();
        world.apply(tier, manifest["spec"].clone()).await;
    }
    let here = Here::new();
    for (tier, shown) in &tiers {
        let status = world.ready(tier).await;
        let image = status.image.unwrap();
        println!(
            "three-tier {tier}: {} from {}",
            image.display_size,
            status.builder_display_size.as_deref().unwrap_or("no builder")
        );
        assert_eq!(here.digests(shown), [image.digest.clone(), image.digest], "{tier} without a cluster");
    }
    let file = here.directory.path().join("deployments.yaml");
    fs::write(&file, examples(&["show", "three-tier", "deployments.yaml"])).unwrap();
    kubectl(&world, &["apply", "--filename", file.to_str().unwrap()]);
    let available =
        |deployment: &Deployment| deployment.status.as_ref().is_some_and(|status| status.available_replicas == Some(1));
    for (tier, _) in &tiers {
        world.until_any(tier, "a Pod that is ready", available).await;
    }
    let [web, data] = [service(&world, "web", 8080).await, service(&world, "data", 6379).await];

    let page = answered(web, "GET / HTTP/1.0\r\n\r\n", "Three tiers").await;
    let script = page.split('"').find(|word| word.starts_with("/assets/") && word.ends_with("-visits.js"));
    let script = ask(web, &format!("GET {} HTTP/1.0\r\n\r\n", script.expect(&page))).await.unwrap();
    assert!(script.contains("immutable") && script.contains("/api/visits"), "{script}");
    answered(web, "GET /api/visits HTTP/1.0\r\n\r\n", "{\"visits\": 0}").await;
    for visits in 1..=2 {
        let answer = ask(web, "POST /api/visits HTTP/1.0\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(answer.ends_with(&format!("{{\"visits\": {visits}}}\n")), "{answer}");
    }
    let kept = answered(data, "GET visits\r\nQUIT\r\n", "$1\r\n").await;
    assert!(kept.starts_with("$1\r\n2\r\n"), "{kept}");
}

async fn service(world: &World, name: &str, port: u16) -> SocketAddr {
    let service = world.api::<Service>().get(name).await.unwrap();
    let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap();
    SocketAddr::new(address.parse().unwrap(), port)
}

/// The Dockerfiles that everybody begins with: packages are installed, the program is built, and all of that is the image; and
/// the same with a stage behind it that takes the program alone.
#[tokio::test]
async fn the_large_dockerfile_is_refused_and_the_small_one_installs_packages_once() {
    let world = World::with_security("examples-apt", "baseline").await;
    let directory = tempfile::tempdir().unwrap();
    let context = directory.path().join("dockerfile-apt");
    examples(&["copy", "dockerfile-apt", context.to_str().unwrap()]);
    let repository = Repository::new("examples-apt");
    let commit = |program: &str| {
        let read = |name: &str| fs::read_to_string(context.join(name)).unwrap();
        let [small, large] = ["Dockerfile", "Dockerfile.single"].map(read);
        repository.commit(&[("Dockerfile", &small), ("Dockerfile.single", &large), ("main.go", program)]);
    };
    let program = fs::read_to_string(context.join("main.go")).unwrap();
    commit(&program);
    let spec = |dockerfile: Value, name: &str| {
        json!({
            "interval": "1h", "source": {"git": {"url": repository.url}}, "dockerfile": dockerfile,
            "destination": {"repository": world.repository(name)}
        })
    };
    world.apply("large", spec(json!({"path": "Dockerfile.single"}), "large")).await;
    let refused = message(&world.ended("large", "FinalStageNotMinimal").await);
    assert!(refused.contains("Dockerfile.single:2:1") && refused.contains("COPY --from=build"), "{refused}");

    world.apply("small", spec(json!({}), "small")).await;
    let status = world.ready("small").await;
    let image = status.image.clone().unwrap();
    assert!(image.size < 1_900_000, "{image:?}");
    assert_eq!(world.run("small", &image.reference).await, "42\n");
    world.told("SnapshotKept", 1).await;
    commit(&program.replace("\"6\", \"*\"", "\"7\", \"*\""));
    let changed = world.built_again("small", "1").await;
    let [before, after] = [&status, &changed].map(|status| status.stages[0].steps_milliseconds.unwrap());
    println!("steps with the packages {before} ms, behind the snapshot {after} ms");
    assert!(changed.stages[0].snapshot.is_some());
    assert_eq!(world.run("changed", &changed.image.unwrap().reference).await, "49\n");

    let allowed = json!({"path": "Dockerfile.single", "allowLargeBase": true});
    world.apply("large", spec(allowed, "large")).await;
    let image = world.ready("large").await.image.unwrap();
    println!("large: {}, small: {}", image.display_size, status.image.unwrap().display_size);
    assert!(image.size > 500_000_000 && image.layers.len() == 2, "{image:?}");
    assert_eq!(world.run("large", &image.reference).await, "49\n");
}
