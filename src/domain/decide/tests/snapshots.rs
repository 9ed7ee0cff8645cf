//! What stages of a Dockerfile are started from.

use super::*;
use crate::domain::{
    recipe::Recipe,
    snapshot::{Prefix, SnapshotTask},
    task::Sent,
};

/// Two cuts: at step 1, behind a command alone, and at step 3, behind a file as well.
const DOCKERFILE: &str = "FROM golang:1.26 AS build\nRUN install\nCOPY go.mod .\nRUN download\nCOPY . .\nRUN make\n\
                          FROM scratch\nCOPY --from=build /app /app\n";
const CUTS: [usize; 2] = [1, 3];

fn world() -> (World, Recipe) {
    let mut world = with_dockerfile(DOCKERFILE);
    let recipe = world.pass().start[0].task.recipe.clone();
    (with_dockerfile(DOCKERFILE), recipe)
}

fn files(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Puts a snapshot into the cache: what its steps took, and its age in seconds.
fn put(world: &mut World, key: Key, source: Option<Digest>, age: i64) -> Digest {
    let image = Digest::of(format!("{key}").as_bytes());
    let made = Timestamp::from_second(world.now - age).unwrap();
    world.snapshots.insert(key, Snapshot { image, source, made });
    image
}

/// What a pass starts the stage from: the image, the step, what the agent checks.
fn started(outcome: &Outcome) -> (Option<Digest>, SnapshotTask) {
    let run = &outcome.start[0];
    (run.start.as_ref().map(|start| start.image), run.task.snapshots.clone())
}

#[test]
fn a_stage_starts_behind_the_last_cut_that_there_is_a_snapshot_of() {
    let (mut world, recipe) = world();
    let (image, task) = started(&world.pass());
    assert_eq!((image, task), (None, SnapshotTask { cuts: CUTS.into(), ..SnapshotTask::default() }));

    let mut world = with_dockerfile(DOCKERFILE);
    let first = put(&mut world, recipe.snapshot_key(1, None), None, 60);
    let (image, task) = started(&world.pass());
    assert_eq!((image, task.start, task.source), (Some(first), 1, None));

    let mut world = with_dockerfile(DOCKERFILE);
    put(&mut world, recipe.snapshot_key(1, None), None, 60);
    let second = put(&mut world, recipe.snapshot_key(3, None), Some(files("go.mod")), 60);
    let (image, task) = started(&world.pass());
    assert_eq!((image, task.start, task.source), (Some(second), 3, Some(files("go.mod"))));
    world.set_job(done());
    world.pass();
    assert!(world.status().stages[0].snapshot.as_ref().unwrap().ends_with(&second.to_string()));
}

#[test]
fn an_old_snapshot_a_forced_build_and_a_policy_leave_the_builder_image() {
    let (_, recipe) = world();
    let old = |world: &mut World| put(world, recipe.snapshot_key(1, None), None, 8 * 24 * 3600);
    let fresh = |world: &mut World| put(world, recipe.snapshot_key(1, None), None, 60);
    let mut aged = with_dockerfile(DOCKERFILE);
    old(&mut aged);
    assert_eq!(started(&aged.pass()).0, None);
    let mut patient = with_dockerfile(DOCKERFILE).with_spec("/dockerfile", json!({"snapshots": {"maxAge": "720h"}}));
    old(&mut patient);
    assert!(started(&patient.pass()).0.is_some());
    let mut forced = with_dockerfile(DOCKERFILE);
    fresh(&mut forced);
    forced.annotate(NO_CACHE_REQUESTED_AT, "1");
    let (image, task) = started(&forced.pass());
    assert_eq!((image, task.cuts), (None, CUTS.to_vec()), "but new ones are made");
    // Whatever it was made from: what is older than the forced build does not come back with the next one.
    forced.set_job(done());
    forced.pass();
    forced.now += 60;
    forced.annotate(REQUESTED_AT, "2");
    forced.revision = Ok(COMMIT.replace('0', "7"));
    assert_eq!(started(&forced.pass()).0, None);
    let newer = put(&mut forced, recipe.snapshot_key(1, None), None, 1);
    forced.jobs.clear();
    assert_eq!(started(&forced.pass()).0, Some(newer));
    let mut never = with_dockerfile(DOCKERFILE).with_spec("/dockerfile", json!({"snapshots": {"policy": "Never"}}));
    fresh(&mut never);
    assert_eq!(started(&never.pass()), (None, SnapshotTask::default()));
}

#[test]
fn where_its_files_have_changed_the_right_snapshot_is_looked_for() {
    let (_, recipe) = world();
    for known in [true, false] {
        let mut world = with_dockerfile(DOCKERFILE);
        let first = put(&mut world, recipe.snapshot_key(1, None), None, 60);
        put(&mut world, recipe.snapshot_key(3, None), Some(files("old")), 60);
        let exact = put(&mut world, recipe.snapshot_key(3, Some(files("new"))), Some(files("new")), 60);
        if !known {
            world.snapshots.remove(&recipe.snapshot_key(3, Some(files("new"))));
        }
        world.pass();
        world.set_job(JobState::Outdated);
        world.jobs[0].prefixes = vec![Prefix { step: 3, source: files("new") }];
        let outcome = world.pass();
        assert_eq!(outcome.delete.len(), 1);
        assert_eq!(outcome.start[0].attempt, 1);
        let (image, task) = started(&outcome);
        let expected = if known { (Some(exact), 3, Some(files("new"))) } else { (Some(first), 1, None) };
        assert_eq!((image, task.start, task.source), expected);
    }
}

#[test]
fn a_node_that_cannot_start_from_a_snapshot_gets_the_builder_image_for_an_hour() {
    let (_, recipe) = world();
    for state in [
        JobState::Waiting { reason: Reason::ImagePullFailed, message: "build: no".into(), has_pod: true, build: true },
        JobState::Waiting { reason: Reason::PodRejected, message: "build: no".into(), has_pod: true, build: true },
        failure(Reason::PodRejected, false, 1_000_000),
    ] {
        let mut world = with_dockerfile(DOCKERFILE);
        put(&mut world, recipe.snapshot_key(1, None), None, 60);
        assert!(started(&world.pass()).0.is_some());
        world.set_job(state);
        let outcome = world.pass();
        assert_eq!((outcome.start[0].attempt, outcome.delete.len()), (1, 1));
        assert_eq!(started(&outcome), (None, SnapshotTask::default()));
        assert!(outcome.events.iter().any(|note| note.reason == Reason::SnapshotUnusable && note.warning));
        assert!(world.status().snapshot_failure.is_some());
        world.set_job(done());
        world.pass();
        assert_eq!(world.ready().1, "Succeeded");
        for (later, used) in [(60, false), (3600, true)] {
            world.now += later;
            world.revision = Ok(COMMIT.replace('0', &format!("{}", later % 7)));
            world.annotate(REQUESTED_AT, &later.to_string());
            let (image, _) = started(&world.pass());
            assert_eq!(image.is_some(), used, "{later}");
            world.set_job(done());
            world.pass();
        }
    }
}

#[test]
fn a_try_that_was_interrupted_is_followed_by_one_from_the_same_files_and_the_agents_image_is_no_snapshot() {
    let (_, recipe) = world();
    let mut world = with_dockerfile(DOCKERFILE);
    put(&mut world, recipe.snapshot_key(3, None), Some(files("old")), 60);
    let exact = put(&mut world, recipe.snapshot_key(3, Some(files("new"))), Some(files("new")), 60);
    world.pass();
    let message = "agent: no".to_owned();
    world.set_job(JobState::Waiting { reason: Reason::ImagePullFailed, message, has_pod: true, build: false });
    assert!(world.pass().start.is_empty());
    world.set_job(failure(Reason::BuildInterrupted, true, 1_000_000));
    world.jobs[0].prefixes = vec![Prefix { step: 3, source: files("new") }];
    world.now += 60;
    assert_eq!(started(&world.pass()).0, Some(exact));
}

#[test]
fn what_agents_have_made_is_kept_of_a_stage_that_failed_too() {
    let (_, recipe) = world();
    for state in [done(), failure(Reason::StageFailed, false, 1_000_000)] {
        let mut world = with_dockerfile(DOCKERFILE);
        let below = put(&mut world, recipe.snapshot_key(1, None), None, 60);
        world.pass();
        world.set_job(state);
        world.jobs[0].prefixes = vec![Prefix { step: 3, source: files("go.mod") }];
        world.jobs[0].snapshots = Some(Sent { artifact: Digest::of(b"made"), numbers: vec![3] });
        let outcome = world.one_pass();
        let [Kept::Snapshots(keep)] = &outcome.keep[..] else { panic!("{:?}", outcome.keep) };
        assert_eq!((keep.stage.as_str(), keep.below, keep.artifact), ("build", Some(below), Digest::of(b"made")));
        assert_eq!(keep.layers.len(), 1);
        let keys = [recipe.snapshot_key(3, Some(files("go.mod"))), recipe.snapshot_key(3, None)];
        assert_eq!((keep.layers[0].source, &keep.layers[0].keys[..]), (Some(files("go.mod")), &keys[..]));
    }
}
