//! What people ask about a cluster from outside: `list`, as a plugin of kubectl, and `plan`.

use std::{os::unix::fs::symlink, process::Command};

use serde_json::{Value, json};

use crate::fixture::{Repository, World, builder, go_program, go_spec, kubectl, setting};

/// Runs the program under `name`; gives its standard output and exit code.
fn run(name: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(name);
    symlink(env!("CARGO_BIN_EXE_minimalimage"), &program).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env("MINIMALIMAGE_STORE", directory.path().join("store"));
    let output = command.output().unwrap();
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[tokio::test]
async fn people_see_images_and_plans_of_a_cluster() {
    let world = World::new("commands").await;
    let source = Repository::new("commands");
    source.commit(&[("main.go", &go_program("one"))]);
    let git = json!({"git": {"url": source.url, "ref": {"branch": "main"}}});
    let mut spec = go_spec(&git, &world.repository("app"));
    spec["interval"] = json!("24h");
    world.apply("app", spec.clone()).await;
    let image = world.ready("app").await.image.unwrap();

    let namespace = world.namespace.as_str();
    let (list, _) = run("kubectl-minimalimage", &["list", "--namespace", namespace]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(rows[1][..4], [namespace, "app", &world.repository("app"), "latest"], "{list}");
    assert!(image.digest.contains(rows[1][4]) && rows[1].last() == Some(&"True"), "{list}");
    let (all, _) = run("minimalimage", &["list", "--all-namespaces", "--json"]);
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    let own = all.iter().find(|row| row["namespace"] == namespace).unwrap();
    assert_eq!((&own["digest"], &own["size"]), (&json!(image.digest), &json!(image.size)));

    let registries = tempfile::NamedTempFile::new().unwrap();
    let host = setting("MINIMALIMAGE_REGISTRY");
    std::fs::write(registries.path(), format!("\"{host}\": {{plainHttp: true}}\n")).unwrap();
    let file = registries.path().to_str().unwrap();
    let arguments = ["plan", "app", "-n", namespace, "--json", "--exit-code", "--registries-file", file];
    let plan = || {
        let (text, code) = run("minimalimage", &arguments);
        (serde_json::from_str::<Value>(&text).unwrap(), code)
    };
    let (quiet, code) = plan();
    assert_eq!((&quiet["image"], code), (&json!(image.digest), Some(0)), "{quiet}");
    assert_eq!((&quiet["stages"][0]["state"], &quiet["stages"][0]["reasons"]), (&json!("cached"), &json!([])));
    source.commit(&[("main.go", &go_program("two"))]);
    let (changed, code) = plan();
    assert_eq!((&changed["stages"][0]["state"], code), (&json!("mayRun"), Some(2)), "{changed}");
    assert!(changed["stages"][0]["reasons"][0].as_str().unwrap().starts_with("source is at "), "{changed}");
}

#[tokio::test]
async fn the_readme_s_inline_example_is_applied_as_it_is() {
    let world = World::new("readme").await;
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("kubectl apply -f - <<'EOF'\n").unwrap();
    let (text, _) = rest.split_once("EOF\n").unwrap();
    let text =
        text.replace("golang:1.26", &builder("go")).replace("registry.example.com/hello", &world.repository("hello"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    kubectl(&world, &["apply", "--filename", file.path().to_str().unwrap()]);
    let image = world.ready("hello").await.image.unwrap();
    assert_eq!(image.file_count, 1);
}
