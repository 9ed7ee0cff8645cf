//! What plans say, before and behind builds.

use serde_json::{Value, json};

use crate::support::{Machine, first_layer, users};

const CHAIN: &str = "  stages:
  - name: deps
    image: {registry}/builder:1
    copySource: false
    copy: [{from: source, source: deps.txt, destination: /workspace/}]
    run: cat deps.txt >out
  - name: build
    image: {registry}/builder:1
    copy: [{from: deps, source: /workspace/out, destination: /workspace/deps}, {from: source, source: main.txt, destination: /workspace/}]
    run: cat deps main.txt >out
  - name: unused
    image: {registry}/builder:1
    run: 'false'
  image:
    copy: [{from: build, source: /workspace/out, destination: /out}]
  destination: {repository: {registry}/app, tags: [one]}
";

/// The plan of the directory `work`, and the exit code.
fn plan(machine: &Machine) -> (Value, Option<i32>) {
    let output = machine.run(&["plan", "--json", "--exit-code", "--pull", "."]);
    let errors = String::from_utf8_lossy(&output.stderr);
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}")), output.status.code())
}

/// Name, state and reasons of each stage.
fn stages(plan: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = |stage: &Value| stage["reasons"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("; ");
    let stages = plan["stages"].as_array().unwrap();
    stages.iter().map(|stage| (text(&stage["name"]), text(&stage["state"]), reasons(stage))).collect()
}

/// Asserts what the plan says of `deps` and `build`, and that it wants a build.
fn wants(machine: &Machine, deps: (&str, &str), build: (&str, &str)) {
    let (found, code) = plan(machine);
    let found = stages(&found);
    let expected =
        [("deps", deps), ("build", build)].map(|(name, (state, why))| (name.into(), state.into(), why.into()));
    assert_eq!((found[..2].to_vec(), code), (expected.to_vec(), Some(2)));
    assert_eq!((found[2].0.as_str(), found[2].1.as_str()), ("unused", "skipped"));
}

#[tokio::test]
async fn a_plan_says_what_would_run_and_why() {
    let machine = Machine::new(users()[0]).await;
    machine.file("deps.txt", "deps");
    machine.file("main.txt", "main");
    machine.resource(CHAIN);
    wants(&machine, ("run", "not built here before"), ("run", "not built here before"));
    let built = machine.build(&[]);
    let (quiet, code) = plan(&machine);
    assert_eq!((code, &quiet["image"], &quiet["imageChanges"]), (Some(0), &built["digest"], &json!(false)), "{quiet}");
    assert_eq!(quiet["layers"][0]["digest"], built["layers"][0]["digest"]);
    assert_eq!(quiet["destination"], built["tags"]);

    machine.file("main.txt", "other");
    machine.file("not-copied", "x");
    wants(&machine, ("cached", ""), ("run", "source changed: main.txt"));
    machine.file("main.txt", "main");
    machine.file("deps.txt", "other");
    let waits = "it copies from deps, which would run";
    wants(&machine, ("run", "source changed: deps.txt"), ("mayRun", waits));
    machine.file("main.txt", "other");
    let both = format!("source changed: main.txt; {waits}");
    wants(&machine, ("run", "source changed: deps.txt"), ("run", &both));
    machine.build(&[]);

    machine.resource(&CHAIN.replace("cat deps main.txt", "cat main.txt deps"));
    wants(&machine, ("cached", ""), ("run", "steps changed: step 3 (`cat main.txt deps >out`)"));
    machine.resource(CHAIN);
    machine.push_image("builder", &[first_layer(7)], json!({"Env": ["PATH=/bin"]})).await;
    let moved = format!("builder image moved; {waits}");
    wants(&machine, ("run", "builder image moved"), ("run", &moved));
    machine.build(&["--pull"]);
    assert!(machine.run(&["store", "prune"]).status.success());
    let (pruned, _) = plan(&machine);
    assert_eq!(stages(&pruned)[0].2, "not built here before");
}

#[tokio::test]
async fn a_plan_for_people_names_builder_destination_and_total() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    let builder = format!("{}/builder:1", machine.registry.host);
    machine.file("Dockerfile", &format!("FROM {builder} AS b\nRUN echo >/x\nFROM scratch\nCOPY --from=b /x /x\n"));
    let output = machine.run(&["plan", "."]);
    let said = String::from_utf8(output.stdout).unwrap();
    let row: Vec<&str> = said.lines().nth(1).unwrap_or_default().split_ascii_whitespace().collect();
    assert_eq!((row[0], &row[1..3], output.status.code()), ("b", &["would", "run"][..], Some(0)), "{said}");
    assert!(row[3].starts_with(&format!("{builder}@sha256:")), "{said}");
    assert!(said.contains("localhost/work:latest") && said.contains("1 of 1 stages would run"), "{said}");
}
