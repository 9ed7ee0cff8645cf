//! Bases of packages, pass by pass.

use super::*;
use crate::domain::{
    debian::base::{Package, SeenRelease},
    plan::{BASE_STAGE, DEBUG_STAGE},
};

/// Packages given as `name=version`, of a suite that was made at `date`.
pub(super) fn set(names: &[&str], date: &str) -> Arc<PackageSet> {
    let package = |text: &&str| {
        let (name, version) = text.split_once('=').unwrap();
        Package {
            name: name.into(),
            version: version.parse().unwrap(),
            architecture: "amd64".into(),
            digest: Digest::of(text.as_bytes()),
            size: 1,
        }
    };
    Arc::new(PackageSet {
        distribution: "Debian 12 (bookworm)".into(),
        packages: names.iter().map(package).collect(),
        urls: names.iter().map(|name| format!("http://mirror/{name}.deb")).collect(),
        releases: vec![SeenRelease { suite: "bookworm".into(), date: date.parse().unwrap() }],
    })
}

fn world() -> World {
    World::new().with_spec("/image/base", json!({"runtime": {"cc": {}, "suite": "bookworm"}}))
}

fn finish_all(world: &mut World) {
    world.jobs.iter_mut().for_each(|job| job.state = done());
    world.pass();
}

#[test]
fn a_base_of_packages_is_a_stage_beside_the_others() {
    let mut world = world();
    let outcome = world.pass();
    let stages: Vec<&str> = outcome.start.iter().map(|run| run.stage.name.as_str()).collect();
    assert_eq!(stages, [BASE_STAGE, "build"], "both at once");
    let task = &outcome.start[0].task;
    assert_eq!(task.package_urls, ["http://mirror/libc6=1.deb"]);
    assert_eq!(task.recipe.packages.as_ref().unwrap().packages[0].name, "libc6");
    assert_eq!((task.source.clone(), task.recipe.uses_source()), (None, false));
    finish_all(&mut world);
    assert_eq!(world.ready(), ("True".into(), "Succeeded".into()));
    let base = world.status().base.clone().unwrap();
    assert_eq!((base.kind.as_str(), base.display_name.as_str()), ("Packages", "cc (bookworm)"));
    assert_eq!((base.distribution.as_deref(), base.package_count), (Some("Debian 12 (bookworm)"), Some(1)));
    assert_eq!(base.packages, ["libc6=1"]);
    assert_eq!(base.creation_time.as_deref(), Some("2026-11-01T00:00:00Z"));
    assert!(base.share > 0 && base.share <= 100);
    assert_eq!(world.image.status.as_ref().unwrap().image.as_ref().unwrap().size, 1_830_000, "counted once");
}

#[test]
fn where_packages_come_from_is_no_part_of_the_key() {
    let mut world = world();
    let first = world.pass().start[0].key;
    let mut other = self::world();
    let moved = PackageSet {
        urls: vec!["http://other/libc6.deb".into()],
        ..(*set(&["libc6=1"], "2026-11-05T00:00:00Z")).clone()
    };
    other.packages = Ok(Arc::new(moved));
    assert_eq!(other.pass().start[0].key, first);
    other.packages = Ok(set(&["libc6=2"], "2026-11-05T00:00:00Z"));
    assert_ne!(other.pass().start[0].key, first);
}

#[test]
fn newer_packages_are_put_below_with_their_names_as_the_reason() {
    let mut world = world();
    world.pass();
    finish_all(&mut world);
    world.now += 3600;
    world.pass();
    assert!(world.jobs.is_empty(), "nothing new");
    world.packages = Ok(set(&["libc6=2"], "2026-11-02T00:00:00Z"));
    world.now += 3600;
    let outcome = world.pass();
    let progress = world.status().progress.clone().unwrap();
    assert_eq!(progress.reason, BuildReason::BaseChanged);
    assert_eq!(progress.message, "the base's packages changed: libc6 1 → 2");
    assert!(outcome.start.iter().any(|run| run.stage.name == BASE_STAGE));
}

#[test]
fn a_look_that_finds_the_same_packages_remembers_how_new_they_are() {
    let mut world = world();
    world.pass();
    finish_all(&mut world);
    world.packages = Ok(set(&["libc6=1"], "2026-11-03T00:00:00Z"));
    world.now += 3600;
    world.pass();
    assert_eq!(world.status().base.as_ref().unwrap().releases[0].time.0.to_string(), "2026-11-03T00:00:00Z");
    assert_eq!(world.ready().0, "True");
}

#[test]
fn a_restarted_operator_that_finds_newer_packages_builds_those() {
    let mut world = world();
    let first = world.pass().start[0].key;
    world.packages = Ok(set(&["libc6=2"], "2026-11-02T00:00:00Z"));
    let outcome = world.pass();
    let again = outcome.start.iter().find(|run| run.stage.name == BASE_STAGE).unwrap();
    assert_ne!(again.key, first);
    assert_eq!(world.status().progress.as_ref().unwrap().reason, BuildReason::Created);
    finish_all(&mut world);
    assert_eq!(world.status().base.as_ref().unwrap().packages, ["libc6=2"]);
}

#[test]
fn packages_that_are_not_there_end_the_build_and_keep_the_image() {
    let mut world = world();
    world.packages = Err(trouble(Reason::PackagesUnresolvable));
    world.pass();
    assert_eq!(world.ready(), ("False".into(), "PackagesUnresolvable".into()));
    assert!(world.has(STALLED));
    let mut built = self::world();
    built.pass();
    finish_all(&mut built);
    built.packages = Err(trouble(Reason::ArchiveUnavailable));
    built.now += 3600;
    built.pass();
    assert_eq!(built.ready().0, "True", "a look that fails takes nothing away");
    assert!(built.has(RECONCILING));
}

#[test]
fn a_base_that_another_image_is_getting_is_waited_for() {
    let mut world = world();
    world.compose = Slot::Queued("the same base is being put together for another image".into());
    let outcome = world.pass();
    let started: Vec<&str> = outcome.start.iter().map(|run| run.stage.name.as_str()).collect();
    assert_eq!(started, ["build"], "the other stages need not wait");
    assert_eq!(world.ready().1, "Queued");
    assert_eq!(outcome.requeue, Some(Duration::from_secs(2)));
    world.base_is_known = true;
    world.set_job(done());
    world.pass();
    assert_eq!(world.ready().0, "True");
    assert!(world.jobs.is_empty());
}

/// An image with a debug image that is built.
fn debugged(spec: &[(&str, Value)]) -> World {
    let mut world = World::new();
    for (pointer, value) in spec {
        world = world.with_spec(pointer, value.clone());
    }
    let base = spec.iter().any(|(pointer, _)| *pointer == "/image/base").then_some("libc6=1");
    let packages: Vec<&str> = ["busybox-static=1"].into_iter().chain(base).collect();
    world.packages = Ok(set(&packages, "2026-11-01T00:00:00Z"));
    world.published = world.published.map(|published| Published { debug: Some(Digest::of(b"debug")), ..published });
    world.dockerfile = Some("FROM golang:1.26 AS build\nRUN make\nFROM scratch\nCOPY --from=build /app /app\n".into());
    let outcome = world.pass();
    let of_tools = outcome.start.iter().find(|run| run.stage.name == DEBUG_STAGE).unwrap();
    let composed = of_tools.task.recipe.packages.as_ref().unwrap();
    assert_eq!(composed.packages.iter().map(ToString::to_string).collect::<Vec<_>>(), ["busybox-static=1"]);
    let of_base = outcome.start.iter().find(|run| run.stage.name == BASE_STAGE);
    let composed = of_base.map(|run| run.task.recipe.packages.as_ref().unwrap().packages.len());
    assert_eq!(composed, base.map(|_| 1), "without the tools");
    finish_all(&mut world);
    assert_eq!(world.ready(), ("True".into(), "Succeeded".into()));
    world
}

#[test]
fn a_debug_image_has_a_layer_that_the_image_has_not() {
    let debug = ("/image/debug", json!(true));
    let base = ("/image/base", json!({"runtime": {"cc": {}}}));
    let in_file = [("/dockerfile", json!({})), ("/stages", json!([])), ("/image", json!({})), debug.clone()];
    for (spec, layers, packages) in [
        (&[debug.clone()][..], vec!["build"], vec![]),
        (&[base, debug], vec!["base", "build"], vec!["libc6=1"]),
        (&in_file, vec!["build"], vec![]),
    ] {
        let world = debugged(spec);
        let publication = world.asked.iter().find_map(|question| match question {
            Question::Publish(publication) => Some(publication),
            _ => None,
        });
        let publication = publication.unwrap();
        let from = |layer: &PublicationLayer| match layer {
            PublicationLayer::Artifact(layer) => layer.from.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(publication.layers.iter().map(from).collect::<Vec<_>>(), layers);
        assert_eq!(publication.debug.as_ref().unwrap().from, "debug");
        let status = world.status().image.clone().unwrap().debug.unwrap();
        assert_eq!(status.package, "busybox-static=1");
        assert_eq!(status.reference, format!("registry.example.com/app@{}", Digest::of(b"debug")));
        assert_eq!(world.status().base.as_ref().unwrap().packages, packages, "its tools are not in the base");

        let mut off = world;
        off.change_spec("/image/debug", json!(false));
        off.packages = Ok(set(&["libc6=1"], "2026-11-01T00:00:00Z"));
        off.published = off.published.map(|published| Published { debug: None, ..published });
        off.cached = None;
        off.pass();
        assert_eq!((off.ready().1.as_str(), off.status().image.clone().unwrap().debug), ("Succeeded", None));
    }
}

#[test]
fn newer_tools_of_a_debug_image_are_the_reason_for_a_build() {
    let mut world = debugged(&[("/image/debug", json!(true))]);
    world.now += 3600;
    world.pass();
    assert!(world.status().progress.is_none(), "nothing new");
    world.packages = Ok(set(&["busybox-static=2"], "2026-11-02T00:00:00Z"));
    world.now += 3600;
    world.pass();
    let progress = world.status().progress.clone().unwrap();
    assert_eq!(progress.message, "the debug image's tools changed: busybox-static 1 → 2");
}

#[test]
fn an_artifact_without_the_layer_that_its_stage_has_is_refused() {
    let mut world = world();
    world.artifact.layers.clear();
    world.pass();
    finish_all(&mut world);
    assert_eq!(world.ready(), ("False".into(), "ArtifactInvalid".into()));
    assert!(!world.asked_for(|q| matches!(q, Question::Publish(_))));
}

#[test]
fn a_base_that_ends_with_a_failed_build_is_not_under_way_any_longer() {
    let mut world = world();
    world.pass();
    world.set_job(failure(Reason::StageFailed, false, world.now));
    world.pass();
    let states: Vec<_> = world.status().stages.iter().map(|stage| (stage.name.as_str(), stage.state)).collect();
    assert_eq!(states, [(BASE_STAGE, StageState::Pending), ("build", StageState::Failed)]);
    assert!(world.status().progress.is_none());
}
