//! Every example in the repository, as its README says, with the names of the test cluster.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::fixture::{Repository, World, message};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the script that knows which of the cluster's names stand for the examples' public ones.
fn examples(arguments: &[&str]) -> String {
    let output = Command::new(format!("{ROOT}/tests/examples")).args(arguments).output().expect("tests/examples");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn show(name: &str) -> String {
    examples(&["show", name])
}

fn manifest(name: &str) -> Value {
    serde_saphyr::from_str(&show(name)).unwrap()
}

/// The digest that the example has when it is built on this machine, from its Git repository or its directory: the first
/// in an empty store, the second with what that has.
fn built_here(name: &str, source: &str) -> String {
    let store = std::env::temp_dir().join(format!("minimalimage-examples-{}", std::process::id()));
    let [file, registries] = ["yaml", "registries.yaml"].map(|end| store.with_extension(format!("{name}.{end}")));
    fs::write(&file, show(name)).unwrap();
    let hosts = ["MINIMALIMAGE_REGISTRY", "MINIMALIMAGE_REGISTRY2"].map(|variable| std::env::var(variable).unwrap());
    fs::write(&registries, hosts.map(|host| format!("\"{host}\": {{plainHttp: true}}\n")).concat()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_minimalimage"));
    command.args(["build", "--quiet", "--file"]).arg(&file).arg("--store").arg(&store);
    command.arg("--registries-file").arg(&registries);
    let context = tempfile::tempdir().unwrap();
    if source == "directory" {
        let directory = context.path().join(name);
        examples(&["copy", name, directory.to_str().unwrap()]);
        command.arg("--no-cache").arg(directory);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for path in [file, registries] {
        fs::remove_file(path).unwrap();
    }
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn every_example_becomes_an_image_that_does_what_its_readme_says() {
    let (world, baseline) = (World::new("examples").await, World::with_security("examples-root", "baseline").await);
    let mut names: Vec<_> =
        fs::read_dir(format!("{ROOT}/examples")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let (prints, most) = match name {
            "go" | "dockerfile" => (None, 1_900_000),
            "two-builders" => (None, 6_000_000),
            "chain" => (Some("IMAGES\nSAFE\nSMALL\n"), 2_000_000),
            "base-image" => (Some("world\n"), 20_000_000),
            "java" => (Some("hello from Java 17\n"), 250_000_000),
            // It runs until it is stopped; what it answers is asked elsewhere.
            "redis" => (None, 40_000_000),
            "dockerfile-four-stages" => (Some("greetings from C\nline 1\nline 2\nline 3\n"), 4_000_000),
            // They have a test of their own below.
            "dockerfile-apt" => continue,
            other => panic!("say here what the example {other} does"),
        };
        let manifest = manifest(name);
        let resource = manifest["metadata"]["name"].as_str().unwrap();
        // Stages of a Dockerfile run as root in their container.
        let world = if manifest["spec"]["dockerfile"].is_null() { &world } else { &baseline };
        world.apply(resource, manifest["spec"].clone()).await;
        let image = world.ready(resource).await.image.unwrap();
        println!("{name}: {}", image.display_size);
        for source in ["git", "directory"] {
            assert_eq!(built_here(name, source), image.digest, "{name} from {source} without a cluster");
        }
        assert!(image.size <= most, "{name} has {} bytes", image.size);
        if let Some(prints) = prints {
            let printed = world.run(name, &image.reference).await;
            assert!(printed.contains(prints), "{name}: {printed}");
        }
    }
    fs::remove_dir_all(std::env::temp_dir().join(format!("minimalimage-examples-{}", std::process::id()))).unwrap();
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
