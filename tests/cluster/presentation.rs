//! What people and tools see: columns, docs, Events, conditions.

use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use minimalimage::api::v1alpha1::{MinimalImage, Status};
use serde_json::{Value, json};

use crate::fixture::{Repository, World, builder, go_program, go_spec, kubectl, setting};

fn column<'a>(header: &str, line: &'a str, name: &str) -> &'a str {
    let start = header.find(name).unwrap_or_else(|| panic!("no column {name} in {header}"));
    line[start..].split("   ").next().unwrap().trim()
}

#[tokio::test]
async fn lists_are_readable_and_sortable() {
    let world = World::new("columns").await;
    let source = Repository::new("columns");
    let commit = source.commit(&[("main.go", &go_program("one"))]);
    let git = json!({"git": {"url": source.url, "ref": {"branch": "main"}}});
    let mut spec = go_spec(&git, &world.repository("team/payments-reconciler"));
    let base = format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2"));
    spec["image"]["base"] = json!({"image": {"reference": base}});
    world.apply("payments-reconciler", spec.clone()).await;
    spec["image"].as_object_mut().unwrap().remove("base");
    spec["destination"]["repository"] = json!(world.repository("small"));
    world.apply("small", spec).await;
    let with_base = world.ready("payments-reconciler").await.image.unwrap();
    let small = world.ready("small").await.image.unwrap();

    let list = kubectl(&world, &["get", "mimg"]);
    println!("{list}");
    assert!(list.lines().all(|line| line.len() <= 120), "{list}");
    let wide = kubectl(&world, &["get", "mimg", "payments-reconciler", "--output", "wide"]);
    let (header, line) = wide.split_once('\n').unwrap();
    assert_eq!(column(header, line, "REVISION"), commit);
    assert_eq!(column(header, line, "IMAGE "), with_base.reference);
    assert!(column(header, line, "MESSAGE").contains(&with_base.display_size), "{wide}");

    let sorted = kubectl(&world, &["get", "mimg", "--sort-by=.status.image.size", "--no-headers"]);
    let names: Vec<_> = sorted.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(small.size < with_base.size);
    assert_eq!(names, ["small", "payments-reconciler"]);
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let world = World::new("explain").await;
    let text = kubectl(&world, &["explain", "mimg.spec.stages.run"]);
    assert!(text.contains("Shell line or script, run by `/bin/sh -e -c` in the working directory"), "{text}");
    for field in ["mimg.spec", "mimg.spec.source.git", "mimg.spec.stages", "mimg.spec.image", "mimg.status.image"] {
        let text = kubectl(&world, &["explain", field]);
        assert!(!text.contains("<no description>"), "{field}: {text}");
    }
}

/// What kstatus reads from conditions, which must never contradict each other.
fn assert_consistent(image: &MinimalImage) {
    let Some(status) = &image.status else { return };
    let is = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
    let (ready, reconciling, stalled) = (is("Ready"), is("Reconciling"), is("Stalled"));
    let shown = json!(status.conditions);
    assert!(reconciling.is_none() || stalled.is_none(), "{shown}");
    assert!([reconciling, stalled].into_iter().flatten().all(|status| status == "True"), "{shown}");
    assert!(ready != Some("True") || reconciling.is_none() && stalled.is_none(), "{shown}");
    assert!(stalled.is_none() || ready == Some("False"), "{shown}");
    assert!(status.observed_generation <= image.metadata.generation.unwrap_or_default());
    for condition in &status.conditions {
        assert_eq!(condition.observed_generation, Some(status.observed_generation), "{shown}");
    }
}

/// Watches until the status says `done`; every state in between is consistent.
async fn follow(world: &World, generation: Option<i64>, done: impl Fn(&Status) -> bool) {
    let stream = watcher(world.api::<MinimalImage>(), watcher::Config::default()).applied_objects();
    futures::pin_mut!(stream);
    let consistent = async {
        while let Some(image) = stream.try_next().await.unwrap() {
            assert_consistent(&image);
            let status = image.status.unwrap_or_default();
            if Some(status.observed_generation) == generation && done(&status) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(2), consistent).await.expect("the end of the build");
}

#[tokio::test]
async fn conditions_never_contradict_each_other_and_events_list_the_transitions() {
    let world = World::new("conditions").await;
    let spec = |run: &str| -> Value {
        json!({
            "stages": [{"name": "build", "image": builder("c"), "run": run}],
            "image": {"copy": [{"from": "build", "source": "/workspace/out", "destination": "/out"}]},
            "destination": {"repository": world.repository("app")}
        })
    };
    let is = |type_: &'static str| {
        move |status: &Status| status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
    };
    let generation = world.apply("app", spec("echo x > out")).await.metadata.generation;
    follow(&world, generation, is("Ready")).await;
    let generation = world.apply("app", spec("exit 1")).await.metadata.generation;
    follow(&world, generation, is("Stalled")).await;
    let generation = world.apply("app", spec("echo y > out")).await.metadata.generation;
    follow(&world, generation, is("Ready")).await;

    // Events are written after the status that they tell of.
    let transitions = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        lines.collect()
    };
    let list = || {
        let columns = "custom-columns=TYPE:.type,REASON:.reason,TIME:.metadata.creationTimestamp";
        let about = "--field-selector=involvedObject.kind=MinimalImage,involvedObject.name=app";
        kubectl(&world, &["get", "events", about, "--no-headers", "--output", columns])
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let expected = ["Normal Building", "Normal Succeeded", "Warning StageFailed"];
    let all = |seen: &[String]| expected.iter().all(|expected| seen.iter().any(|seen| seen == expected));
    while !all(&transitions(&list())) {
        assert!(std::time::Instant::now() < deadline, "{}", list());
    }
    let described = kubectl(&world, &["describe", "mimg", "app"]);
    assert!(described.contains("stage build failed with exit code 1"), "{described}");
}
