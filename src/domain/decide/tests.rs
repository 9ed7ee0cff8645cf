//! The table of decisions: a small world that answers questions, and what a pass makes of it.

use serde_json::{Value, json};

mod packages;
mod snapshots;

use super::*;
use crate::{
    api::{
        conditions::{READY, RECONCILING, STALLED, find},
        v1alpha1::{BuildReason, NO_CACHE_REQUESTED_AT, REQUESTED_AT, StageState},
    },
    domain::{
        artifact::{FileSize, Layer},
        observed::{JobFailure, JobState},
        task::AgentMessage,
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Everything outside the resource, and what was asked of it.
struct World {
    image: MinimalImage,
    jobs: Vec<JobFact>,
    revision: Result<String, Trouble>,
    images: Result<ResolvedImage, Trouble>,
    /// Keys that the cache holds; any key when none is given.
    cached: Option<Vec<Key>>,
    /// Why the cache does not answer.
    records: Option<Trouble>,
    /// The snapshots that the cache holds.
    /// Whether some repository on the registry has the base.
    base_is_known: bool,
    compose: Slot,
    artifact: Artifact,
    packages: Result<Arc<PackageSet>, Trouble>,
    certificates: Result<String, Trouble>,
    snapshots: BTreeMap<Key, Snapshot>,
    /// The text of the source's Dockerfile.
    dockerfile: Option<String>,
    slot: Slot,
    published: Result<Published, Trouble>,
    refused: Option<Trouble>,
    now: i64,
    asked: Vec<Question>,
}

impl World {
    fn new() -> Self {
        let image: MinimalImage = serde_json::from_value(json!({
            "apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage",
            "metadata": {"name": "app", "namespace": "ns", "uid": "uid", "generation": 1},
            "spec": {
                "source": {"git": {"url": "https://git.example.com/app"}},
                "stages": [{"name": "build", "image": "golang:1.26", "run": "make"}],
                "image": {"copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}]},
                "destination": {"repository": "registry.example.com/app"}
            }
        }))
        .unwrap();
        let builder = ResolvedImage {
            digest: Digest::of(b"index"),
            manifest_digest: Digest::of(b"builder"),
            size: 770_000_000,
            compressed_size: 250_000_000,
        };
        let published = Published {
            digest: Digest::of(b"image"),
            base_layers: Vec::new(),
            base_created: None,
            layers: vec![SourcedLayer { layer: layer(), from: "build".into() }],
            files: None,
            distribution: Distribution { name: Some("Some Linux 1".into()), packages: Some(3) },
            warnings: Vec::new(),
            debug: None,
        };
        Self {
            image,
            jobs: Vec::new(),
            revision: Ok(COMMIT.into()),
            images: Ok(builder),
            cached: Some(Vec::new()),
            records: None,
            snapshots: BTreeMap::new(),
            base_is_known: false,
            compose: Slot::Granted,
            artifact: artifact(),
            packages: Ok(packages::set(&["libc6=1"], "2026-11-01T00:00:00Z")),
            certificates: Ok(String::new()),
            dockerfile: None,
            slot: Slot::Granted,
            published: Ok(published),
            refused: None,
            now: 1_000_000,
            asked: Vec::new(),
        }
    }

    fn with_spec(mut self, pointer: &str, value: Value) -> Self {
        self.change_spec(pointer, value);
        self.image.metadata.generation = Some(1);
        self
    }

    fn change_spec(&mut self, pointer: &str, value: Value) {
        let mut spec = serde_json::to_value(&self.image.spec).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        self.image.spec = serde_json::from_value(spec).unwrap();
        self.image.metadata.generation = self.image.metadata.generation.map(|generation| generation + 1);
    }

    fn annotate(&mut self, name: &str, value: &str) {
        self.image.annotations_mut().insert(name.into(), value.into());
    }

    /// Passes until nothing is to be done at once.
    fn pass(&mut self) -> Outcome {
        self.asked.clear();
        let mut first = self.one_pass();
        while first.requeue == Some(Duration::ZERO) {
            let next = self.one_pass();
            first = Outcome {
                start: [first.start, next.start].concat(),
                delete: [first.delete, next.delete].concat(),
                events: [first.events, next.events].concat(),
                ..next
            };
        }
        first
    }

    /// One pass: answers until something is done, and takes over status and deletions as the cluster would.
    fn one_pass(&mut self) -> Outcome {
        let mut facts = Facts { jobs: self.jobs.clone(), refused: self.refused.clone(), ..Facts::default() };
        let now = Timestamp::from_second(self.now).unwrap();
        for _ in 0..20 {
            match decide(&self.image, &facts, &Settings::default(), now) {
                Decision::Ask(questions) => {
                    for question in questions {
                        self.answer(question, &mut facts);
                    }
                }
                Decision::Act(outcome) => {
                    self.image.status = Some(outcome.status.clone());
                    self.jobs.retain(|job| !outcome.delete.iter().any(|deleted| deleted.uid == job.uid));
                    let now = self.now;
                    self.jobs.extend(outcome.start.iter().map(|run| JobFact {
                        generation: Some(run.generation),
                        name: format!("{}-{}", run.stage.name, run.attempt),
                        uid: format!("{}-{}-{}", run.stage.name, run.key, run.attempt),
                        stage: run.stage.name.clone(),
                        key: run.key.to_string(),
                        attempt: run.attempt,
                        deleting: false,
                        created: Some(Timestamp::from_second(now).unwrap()),
                        started: Some(Timestamp::from_second(now + 1).unwrap()),
                        finished: None,
                        state: JobState::Running,
                        snapshot: run.start.as_ref().map(|start| start.image),
                        prefixes: Vec::new(),
                        snapshots: None,
                    }));
                    return *outcome;
                }
            }
        }
        panic!("asked without end: {:?}", self.asked);
    }

    fn answer(&mut self, question: Question, facts: &mut Facts) {
        self.asked.push(question.clone());
        match question {
            Question::Revision => facts.revision = Some(self.revision.clone()),
            Question::CredentialHost => facts.credential_host = Some(Ok(None)),
            Question::Image(reference) => {
                let pinned = |image: ResolvedImage| match reference.digest() {
                    Some(digest) => ResolvedImage { digest, manifest_digest: digest, ..image },
                    None => image,
                };
                facts.images.insert(reference.clone(), self.images.clone().map(pinned));
            }
            Question::Packages { .. } => facts.packages = Some(self.packages.clone()),
            Question::Certificates => facts.certificates = Some(self.certificates.clone()),
            Question::Files { .. } => {
                let texts = [("Dockerfile".to_owned(), self.dockerfile.clone())];
                facts.files = Some(Ok(texts.into()));
            }
            Question::Config(reference) => {
                facts.configs.insert(reference, Ok(RuntimeConfig::default()));
            }
            Question::Record(key) if self.records.is_some() => {
                facts.records.insert(key, Err(self.records.clone().unwrap()));
            }
            Question::Record(key) => {
                let known = self.cached.as_ref().is_none_or(|cached| cached.contains(&key));
                facts.records.insert(key, Ok(known.then(|| self.artifact.clone())));
            }
            Question::Base(key) => {
                let known = self.base_is_known || self.cached.is_none();
                facts.records.insert(key, Ok(known.then(|| self.artifact.clone())));
            }
            Question::Compose(key) => drop(facts.compose.insert(key, self.compose.clone())),
            Question::Snapshot(key) => drop(facts.snapshots.insert(key, Ok(self.snapshots.get(&key).copied()))),
            Question::Adopt { key, .. } => drop(facts.adopted.insert(key, Ok(self.artifact.clone()))),
            Question::Slot => facts.slot = Some(self.slot.clone()),
            Question::Publish(_) => facts.published = Some(self.published.clone()),
        }
    }

    fn set_job(&mut self, state: JobState) {
        self.jobs.last_mut().unwrap().state = state;
    }

    fn asked_for(&self, wanted: impl Fn(&Question) -> bool) -> bool {
        self.asked.iter().any(wanted)
    }

    fn ready(&self) -> (String, String) {
        let ready = find(&self.image.status.as_ref().unwrap().conditions, READY).unwrap();
        (ready.status.clone(), ready.reason.clone())
    }

    fn has(&self, type_: &str) -> bool {
        find(&self.image.status.as_ref().unwrap().conditions, type_).is_some()
    }

    fn status(&self) -> &Status {
        self.image.status.as_ref().unwrap()
    }

    /// A world whose image is built.
    fn built() -> Self {
        let mut world = Self::new();
        world.pass();
        world.set_job(done());
        world.pass();
        assert_eq!(world.ready(), ("True".into(), "Succeeded".into()));
        world
    }
}

fn layer() -> Layer {
    Layer {
        media_type: crate::domain::media_type::LAYER.into(),
        digest: Digest::of(b"layer"),
        compressed_size: 800_000,
        diff_id: Digest::of(b"unpacked"),
        size: 1_830_000,
        index: None,
    }
}

fn artifact() -> Artifact {
    let report = OutputReport {
        diff_id: layer().diff_id,
        size: layer().size,
        file_count: 1,
        largest_files: vec![FileSize { path: "/app".into(), size: layer().size }],
    };
    Artifact { digest: Digest::of(b"artifact"), layers: vec![layer()], outputs: vec![report] }
}

fn done() -> JobState {
    JobState::Done(AgentMessage {
        artifact: Some(Digest::of(b"artifact")),
        source: Some(Digest::of(b"tree")),
        source_time: Some(1_700_000_000),
        ..AgentMessage::default()
    })
}

fn failure(reason: Reason, transient: bool, at: i64) -> JobState {
    JobState::Failed(JobFailure {
        reason,
        message: "it failed".into(),
        exit_code: Some(3),
        log_tail: Some("one\ntwo".into()),
        transient,
        at: Some(Timestamp::from_second(at).unwrap()),
    })
}

fn trouble(reason: Reason) -> Trouble {
    Trouble { reason, message: "words".into() }
}

#[test]
fn a_new_resource_is_resolved_and_started_in_one_pass() {
    let mut world = World::new();
    let outcome = world.pass();
    assert_eq!(world.asked.iter().filter(|q| matches!(q, Question::Revision | Question::Image(_))).count(), 2);
    assert_eq!(outcome.start.len(), 1);
    assert!(outcome.place == Place::Running);
    assert_eq!(world.ready(), ("False".into(), "Building".into()));
    assert!(world.has(RECONCILING) && !world.has(STALLED));
    assert_eq!(world.status().observed_generation, 1);
    let progress = world.status().progress.clone().unwrap();
    assert_eq!((progress.reason, progress.revision.as_deref()), (BuildReason::Created, Some(COMMIT)));
}

#[test]
fn a_running_stage_asks_nothing_of_any_server() {
    let mut world = World::new();
    world.pass();
    let outcome = world.pass();
    assert_eq!(world.asked, []);
    assert!(outcome.start.is_empty() && outcome.delete.is_empty());
    assert_eq!(world.status().stages[0].state, StageState::Running);
}

#[test]
fn jobs_that_a_killed_operator_left_behind_go_with_the_next_pass_but_what_failed_stays_for_its_logs() {
    let mut world = World::new();
    world.pass();
    world.set_job(done());
    let left = world.jobs.clone();
    world.pass();
    world.jobs.clone_from(&left);
    assert_eq!(world.pass().delete, left);

    let mut world = World::new();
    world.pass();
    let mut other = world.jobs[0].clone();
    other.uid = "another stage's".into();
    other.name = "another".into();
    world.set_job(failure(Reason::StageFailed, false, world.now));
    world.pass();
    world.jobs.push(other.clone());
    assert_eq!(world.pass().delete, [other]);
    assert_eq!(world.pass().delete, []);
}

#[test]
fn a_finished_stage_is_adopted_and_the_image_pushed() {
    let mut world = World::new();
    world.pass();
    world.set_job(done());
    let outcome = world.pass();
    assert!(world.asked_for(|q| matches!(q, Question::Adopt { also, .. } if also.len() == 1)));
    assert_eq!(outcome.delete.len(), 1);
    assert!(outcome.place != Place::Running);
    let status = world.status();
    let image = status.image.clone().unwrap();
    assert_eq!(image.display_size, "1.83MB");
    assert_eq!(status.builder_display_size.as_deref(), Some("770MB"));
    assert_eq!(status.base.as_ref().unwrap().display_name, "scratch");
    assert_eq!(image.reference, format!("registry.example.com/app@{}", Digest::of(b"image")));
    assert_eq!(status.history.len(), 1);
    assert_eq!(status.progress, None);
    assert!(!world.has(RECONCILING) && !world.has(STALLED));
    assert_eq!(outcome.events.len(), 1);
}

#[test]
fn a_known_artifact_starts_no_pod() {
    let mut world = World::new();
    world.cached = None;
    let outcome = world.pass();
    assert!(outcome.start.is_empty());
    assert!(!world.asked_for(|q| matches!(q, Question::Slot)));
    assert_eq!(world.ready().1, "Succeeded");
    assert_eq!(world.status().stages[0].state, StageState::Cached);
}

#[test]
fn the_commits_time_is_told_by_an_agent_and_kept_while_the_commit_is_the_same() {
    let mut world = World::built();
    let source = world.status().source.clone().unwrap();
    assert_eq!(source.time.as_ref().unwrap().0, "2023-11-14T22:13:20Z".parse().unwrap());
    world.cached = None;
    world.annotate(REQUESTED_AT, "1");
    world.pass();
    assert_eq!((world.status().history.len(), world.status().source.as_ref()), (2, Some(&source)));
    world.revision = Ok(COMMIT.replace('0', "f"));
    world.annotate(REQUESTED_AT, "2");
    world.pass();
    let unknown = crate::api::v1alpha1::SourceStatus { revision: COMMIT.replace('0', "f"), time: None };
    assert_eq!(world.status().source.as_ref(), Some(&unknown));
}

#[test]
fn a_touched_resource_does_nothing() {
    let mut world = World::built();
    world.annotate("note", "touched");
    let before = world.status().clone();
    let outcome = world.pass();
    assert_eq!(world.asked, []);
    assert_eq!(outcome.status, before);
    assert!(outcome.requeue.is_some_and(|wait| wait > Duration::from_secs(500)));
}

#[test]
fn a_poll_that_finds_nothing_new_changes_only_the_time() {
    let mut world = World::built();
    let before = world.status().clone();
    world.now += 3600;
    let outcome = world.pass();
    assert_eq!(world.asked.len(), 2);
    assert!(outcome.start.is_empty() && outcome.events.is_empty());
    let after = world.status().clone();
    assert_ne!(after.last_check_time, before.last_check_time);
    assert_eq!(Status { last_check_time: before.last_check_time.clone(), ..after }, before);
}

#[test]
fn what_a_poll_finds_is_the_reason_of_the_build() {
    let mut world = World::built();
    world.now += 3600;
    world.revision = Ok("f".repeat(40));
    assert_eq!(world.pass().start.len(), 1);
    assert_eq!(world.status().progress.as_ref().unwrap().reason, BuildReason::SourceChanged);
    assert!(world.status().image.is_some());

    let mut world = World::built();
    world.now += 3600;
    world.images.as_mut().unwrap().manifest_digest = Digest::of(b"newer");
    assert_eq!(world.pass().start.len(), 1);
    assert_eq!(world.status().progress.as_ref().unwrap().reason, BuildReason::BuilderChanged);
}

#[test]
fn what_is_newer_than_a_pinned_base_is_told_and_not_built() {
    let base = format!("registry.example.com/base:1@{}", Digest::of(b"index"));
    let image = json!({
        "base": {"image": {"reference": base}},
        "copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}]
    });
    // Nothing else can change.
    let builder = json!(format!("golang:1.26@{}", Digest::of(b"builder")));
    let mut world = World::new()
        .with_spec("/image", image)
        .with_spec("/stages/0/image", builder)
        .with_spec("/source/git/ref", json!({"commit": COMMIT}));
    world.pass();
    world.set_job(done());
    world.pass();
    let newer = |world: &World| world.status().base.as_ref().unwrap().newer.clone();
    assert_eq!((world.ready().1.as_str(), newer(&world)), ("Succeeded", None));
    world.images.as_mut().unwrap().digest = Digest::of(b"newer");
    world.now += 3600;
    let outcome = world.pass();
    assert_eq!(newer(&world), Some(Digest::of(b"newer").to_string()));
    assert!(outcome.start.is_empty() && world.ready().0 == "True");
    let pinned = |q: &Question| matches!(q, Question::Image(reference) if reference.digest().is_some());
    assert!(!world.asked_for(pinned), "what cannot change is not asked for again");
    let images = std::mem::replace(&mut world.images, Err(trouble(Reason::RegistryUnavailable)));
    world.now += 3600;
    world.pass();
    assert_eq!(newer(&world), Some(Digest::of(b"newer").to_string()), "as far as is known");
    world.images = images;
    world.images.as_mut().unwrap().digest = Digest::of(b"index");
    world.now += 3600;
    world.pass();
    assert_eq!(newer(&world), None, "somebody moved it back");
}

#[test]
fn a_poll_that_fails_leaves_ready_alone_and_ends_without_a_trace() {
    let mut world = World::built();
    let before = world.status().clone();
    world.now += 3600;
    world.revision = Err(trouble(Reason::SourceUnavailable));
    let outcome = world.pass();
    assert_eq!(world.ready(), ("True".into(), "Succeeded".into()));
    assert!(world.has(RECONCILING) && outcome.events[0].warning);
    world.now += 10;
    world.revision = World::new().revision;
    let outcome = world.pass();
    assert!(outcome.start.is_empty() && outcome.events.is_empty());
    let after = world.status().clone();
    assert_eq!(Status { last_check_time: before.last_check_time.clone(), ..after }, before);
}

#[test]
fn a_change_that_changes_no_image_is_no_build() {
    let mut world = World::built();
    world.change_spec("/interval", json!("1h"));
    let outcome = world.pass();
    assert!(outcome.start.is_empty() && outcome.events.is_empty());
    assert!(!world.asked_for(|q| matches!(q, Question::Publish(_))));
    assert_eq!((world.status().observed_generation, world.status().history.len()), (2, 1));
    assert_eq!(find(&world.status().conditions, READY).unwrap().observed_generation, Some(2));
    world.pass();
    assert_eq!(world.asked, []);
}

#[test]
fn a_job_that_the_api_server_refuses_is_a_reason() {
    let mut world = World::new();
    world.refused = Some(trouble(Reason::PodRejected));
    let outcome = world.pass();
    assert!(outcome.start.is_empty() && outcome.requeue.is_some());
    assert_eq!(world.ready(), ("False".into(), "PodRejected".into()));
}

#[test]
fn a_pinned_build_is_never_polled() {
    let mut world = World::new()
        .with_spec("/source/git/ref", json!({"commit": COMMIT}))
        .with_spec("/stages/0/image", json!(format!("golang@{}", Digest::of(b"builder"))));
    world.pass();
    assert!(!world.asked_for(|q| matches!(q, Question::Revision)));
    world.set_job(done());
    world.pass();
    world.now += 1_000_000;
    assert_eq!(world.pass().requeue, None);
    assert_eq!(world.asked, []);
}

#[test]
fn a_changed_spec_replaces_the_running_build() {
    let mut world = World::new();
    world.pass();
    world.change_spec("/stages/0/run", json!("make other"));
    let outcome = world.pass();
    assert_eq!((outcome.start.len(), outcome.delete.len()), (1, 1));
    assert_eq!(outcome.status.progress.unwrap().reason, BuildReason::SpecChanged);
}

#[test]
fn a_late_result_of_an_old_spec_is_never_pushed() {
    let mut world = World::new();
    world.pass();
    world.set_job(done());
    world.change_spec("/stages/0/run", json!("make other"));
    let outcome = world.pass();
    assert!(!world.asked_for(|q| matches!(q, Question::Adopt { .. } | Question::Publish(_))));
    assert_eq!((outcome.start.len(), outcome.delete.len()), (1, 1));
}

#[test]
fn a_change_that_leaves_a_stage_as_it_is_keeps_its_pod() {
    let mut world = World::new();
    world.pass();
    world.change_spec("/image/command", json!(["/app"]));
    let outcome = world.pass();
    assert!(outcome.start.is_empty() && outcome.delete.is_empty());
}

#[test]
fn what_waits_for_something_that_the_spec_named_is_made_anew_when_that_changes() {
    let waits = |reason| JobState::Waiting { reason, message: "no".into(), has_pod: true, build: false };
    for (reason, expected) in [(Reason::Unschedulable, (1, 1)), (Reason::Building, (0, 0))] {
        let mut world = World::new();
        world.pass();
        world.set_job(waits(reason));
        world.pass();
        world.change_spec("/stages/0/nodeSelector", json!({"disk": "fast"}));
        let outcome = world.pass();
        assert_eq!((outcome.start.len(), outcome.delete.len()), expected, "{reason:?}");
        world.set_job(waits(reason));
        let again = world.pass();
        assert_eq!((again.start.len(), again.delete.len()), (0, 0), "once is enough");
    }
    // A try of another stage counts for the build's first number: a failure of this one is still its own.
    let mut world = World::new();
    world.pass();
    world.set_job(waits(Reason::Unschedulable));
    world.pass();
    let other = JobFact {
        stage: "other".into(),
        key: "other".into(),
        uid: "other".into(),
        attempt: 4,
        ..world.jobs[0].clone()
    };
    world.jobs.push(other);
    world.change_spec("/stages/0/nodeSelector", json!({"disk": "fast"}));
    assert_eq!(world.pass().start[0].attempt, 5);
}

#[test]
fn a_failed_step_stalls_with_its_words_and_keeps_its_pod() {
    let mut world = World::built();
    world.change_spec("/stages/0/run", json!("exit 3"));
    world.pass();
    world.set_job(failure(Reason::StageFailed, false, world.now));
    let outcome = world.pass();
    assert_eq!(world.ready(), ("False".into(), "StageFailed".into()));
    assert!(world.has(STALLED) && !world.has(RECONCILING));
    assert!(outcome.delete.is_empty());
    let status = world.status();
    assert!(status.image.is_some(), "the last good image stays");
    assert_eq!(status.stages[0].exit_code, Some(3));
    assert_eq!(status.stages[0].log_tail.as_deref(), Some("one\ntwo"));
    let message = &find(&status.conditions, READY).unwrap().message;
    assert_eq!(
        message,
        "stage build failed with exit code 3: it failed; last lines: one | two; all of them: \
         kubectl logs --namespace ns job/build-0 --container build"
    );
    assert!(outcome.events[0].warning);
    let again = world.pass();
    assert!(again.start.is_empty() && again.delete.is_empty());
    assert_eq!(world.asked, []);
}

#[test]
fn an_interruption_is_tried_again_and_then_no_more() {
    let mut world = World::new();
    world.pass();
    for attempt in 1..=3 {
        world.set_job(failure(Reason::BuildInterrupted, true, world.now));
        let waiting = world.pass();
        assert!(waiting.start.is_empty() && waiting.requeue.is_some(), "{attempt}");
        world.now += 300;
        let retried = world.pass();
        assert_eq!(retried.start[0].attempt, attempt);
        let failed = world.jobs.iter().filter(|job| matches!(job.state, JobState::Failed(_))).count();
        assert!(failed <= 1);
    }
    world.set_job(failure(Reason::BuildInterrupted, true, world.now));
    world.pass();
    assert_eq!(world.ready(), ("False".into(), "BuildInterrupted".into()));
    assert!(world.has(STALLED));
}

#[test]
fn a_request_builds_again_after_a_failure() {
    let mut world = World::new();
    world.pass();
    world.set_job(failure(Reason::StageFailed, false, world.now));
    world.pass();
    world.annotate(REQUESTED_AT, "1");
    let outcome = world.pass();
    assert_eq!((outcome.start.len(), outcome.delete.len()), (1, 1));
    assert_eq!(outcome.start[0].attempt, 1);
    assert_eq!(world.status().last_handled_requested_at.as_deref(), Some("1"));
    assert!(world.pass().start.is_empty(), "a request counts once");
}

#[test]
fn a_request_with_nothing_changed_starts_no_pod() {
    let mut world = World::built();
    world.cached = None;
    world.annotate(REQUESTED_AT, "1");
    let outcome = world.pass();
    assert!(outcome.start.is_empty());
    assert!(world.asked_for(|q| matches!(q, Question::Revision)));
    assert_eq!(world.status().last_build.as_ref().unwrap().reason, BuildReason::Requested);
}

#[test]
fn a_request_without_cache_runs_every_stage_and_replaces_what_was_cached() {
    let mut world = World::built();
    let ordinary = world.status().stages[0].key.clone().unwrap();
    world.annotate(NO_CACHE_REQUESTED_AT, "1");
    let outcome = world.pass();
    assert_eq!(outcome.start.len(), 1);
    assert!(outcome.start[0].task.no_cache);
    world.set_job(done());
    world.pass();
    let adopted = world.asked.iter().find_map(|question| match question {
        Question::Adopt { also, .. } => Some(also.iter().map(ToString::to_string).collect::<Vec<_>>()),
        _ => None,
    });
    assert!(adopted.unwrap().contains(&ordinary));
}

#[test]
fn an_invalid_spec_stalls_at_once_and_ends_what_runs() {
    let mut world = World::new();
    world.pass();
    world.change_spec("/image/copy/0/from", json!("biuld"));
    let outcome = world.pass();
    assert_eq!(outcome.delete.len(), 1);
    assert_eq!(world.ready(), ("False".into(), "InvalidSpec".into()));
    assert!(world.has(STALLED));
    assert_eq!(world.status().observed_generation, 2);
}

#[test]
fn wrong_credentials_are_tried_again_by_themselves() {
    let mut world = World::new();
    world.images = Err(trouble(Reason::RegistryAccessDenied));
    let outcome = world.pass();
    assert_eq!(outcome.requeue, Some(Duration::from_secs(30)));
    assert_eq!(world.ready(), ("False".into(), "RegistryAccessDenied".into()));
    assert!(world.has(RECONCILING) && !world.has(STALLED));
    world.now += 10;
    assert_eq!(world.pass().requeue, Some(Duration::from_secs(20)));
    assert_eq!(world.asked, []);
    world.now += 20;
    assert_eq!(world.pass().requeue, Some(Duration::from_mins(1)));
    world.images = World::new().images;
    world.now += 60;
    assert_eq!(world.pass().start.len(), 1);
}

#[test]
fn a_push_that_fails_does_not_run_stages_again() {
    let mut world = World::new();
    world.published = Err(trouble(Reason::RegistryUnavailable));
    world.pass();
    world.set_job(done());
    let outcome = world.pass();
    assert_eq!(world.ready().1, "RegistryUnavailable");
    assert!(outcome.delete.is_empty());
    world.published = World::new().published;
    world.now += 5;
    let outcome = world.pass();
    assert!(outcome.start.is_empty());
    assert_eq!(world.ready().1, "Succeeded");
}

#[test]
fn an_image_that_could_not_start_is_refused_for_good_and_the_last_one_stays() {
    let mut world = World::new();
    world.cached = None;
    if let Ok(published) = &mut world.published {
        published.warnings = (1..=7).map(|number| format!("/lib/{number}.so needs something")).collect();
    }
    let outcome = world.pass();
    let status = world.status();
    assert_eq!(status.image.as_ref().unwrap().warnings.len(), 7);
    let warned = outcome.events.iter().find(|event| event.reason == Reason::PreflightWarning).unwrap();
    assert!(warned.warning && warned.message.ends_with("/lib/5.so needs something; and 2 more"), "{warned:?}");

    let last = status.image.clone();
    world.published = Err(trouble(Reason::PreflightRefused));
    world.change_spec("/preflight", json!("Strict"));
    world.pass();
    assert!(
        world.asked_for(|q| matches!(q, Question::Publish(publication) if publication.preflight == Preflight::Strict))
    );
    assert_eq!(world.ready(), ("False".into(), "PreflightRefused".into()));
    assert!(world.has(STALLED));
    assert_eq!(world.status().image, last);
    world.published = World::new().published;
    world.change_spec("/preflight", json!("Off"));
    world.pass();
    assert_eq!(world.ready().1, "Succeeded");
}

#[test]
fn certificates_that_change_are_a_new_image_and_run_nothing() {
    let mut world = World::new();
    world.cached = None;
    world.change_spec("/image/certificates", json!([{"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}]));
    world.certificates = Err(trouble(Reason::ReferenceNotFound));
    world.pass();
    assert_eq!(world.ready().1, "ReferenceNotFound");
    world.certificates = Ok("one".into());
    world.now += 30;
    world.pass();
    let with = |text: &'static str| move |q: &Question| matches!(q, Question::Publish(publication) if publication.certificates.as_deref() == Some(text));
    assert!(world.asked_for(with("one")));
    assert_eq!(world.ready().1, "Succeeded");
    world.now += 3600;
    world.pass();
    assert!(!world.asked_for(|q| matches!(q, Question::Publish(_))), "nothing has changed");
    world.certificates = Ok("two".into());
    world.now += 3600;
    let outcome = world.pass();
    assert!(world.asked_for(with("two")) && outcome.start.is_empty());
    let last = world.status().last_build.clone().unwrap();
    assert_eq!(
        (last.reason, last.message.as_str()),
        (BuildReason::BaseChanged, "the certificates of spec.image.certificates changed")
    );
}

#[test]
fn an_image_that_does_not_exist_stalls() {
    let mut world = World::new();
    world.images = Err(trouble(Reason::ImageNotFound));
    world.pass();
    assert_eq!(world.ready(), ("False".into(), "ImageNotFound".into()));
    assert!(world.has(STALLED));
    world.now += 3600;
    world.images = World::new().images;
    assert_eq!(world.pass().start.len(), 1, "the next poll finds it");
}

#[test]
fn a_full_queue_is_a_reason() {
    let mut world = World::new();
    world.slot = Slot::Queued("20 of 20 builds run in the cluster".into());
    let outcome = world.pass();
    assert!(outcome.start.is_empty() && outcome.place != Place::Running);
    assert_eq!(world.ready(), ("False".into(), "Queued".into()));
    world.slot = Slot::Granted;
    assert_eq!(world.pass().start.len(), 1);
}

#[test]
fn waits_of_pods_are_reasons() {
    let mut world = World::new();
    world.pass();
    world.set_job(JobState::Waiting {
        reason: Reason::QuotaExceeded,
        message: "exceeded quota".into(),
        has_pod: false,
        build: false,
    });
    let outcome = world.pass();
    assert_eq!(world.ready(), ("False".into(), "QuotaExceeded".into()));
    assert!(outcome.requeue.is_some());
    assert_eq!(outcome.place, Place::None, "others may go first");
    assert_eq!(world.status().stages[0].state, StageState::Waiting);
    world.set_job(JobState::Running);
    assert_eq!(world.pass().place, Place::Running);
}

#[test]
fn suspending_ends_the_build_and_keeps_the_image() {
    let mut world = World::built();
    world.change_spec("/stages/0/run", json!("make other"));
    world.pass();
    world.change_spec("/suspend", json!(true));
    let outcome = world.pass();
    assert_eq!((outcome.start.len(), outcome.delete.len(), outcome.requeue), (0, 1, None));
    assert!(world.status().image.is_some());
    assert!(!world.has(RECONCILING));
    assert_eq!(world.ready(), ("False".into(), "Suspended".into()));
    world.change_spec("/suspend", json!(false));
    assert_eq!(world.pass().start.len(), 1);
}

#[test]
fn independent_stages_run_side_by_side_and_a_dependent_one_waits() {
    let stage =
        |name: &str, copy: Value| json!({"name": name, "image": "b", "copySource": false, "copy": copy, "run": name});
    let take =
        |from: &str| json!({"from": from, "source": "/workspace/x", "destination": format!("/workspace/{from}")});
    let mut world = World::new().with_spec(
        "/stages",
        json!([stage("a", json!([])), stage("b", json!([])), stage("build", json!([take("a"), take("b")]))]),
    );
    let outcome = world.pass();
    assert_eq!(
        outcome.start.iter().map(|run| run.stage.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"],
        "{:?} {:#?}",
        world.asked,
        world.status().stages
    );
    assert_eq!(world.status().stages[2].state, StageState::Pending);
    world.jobs.iter_mut().for_each(|job| job.state = done());
    let outcome = world.pass();
    assert_eq!(outcome.start.len(), 1);
    assert_eq!(outcome.start[0].task.inputs.len(), 2);
}

#[test]
fn a_build_that_waits_for_a_server_keeps_nobody_from_building() {
    let mut world = World::new();
    world.images = Err(trouble(Reason::RegistryAccessDenied));
    assert_eq!(world.pass().place, Place::None);
    world.now += 1;
    assert_eq!(world.pass().place, Place::None);
}

#[test]
fn more_memory_after_a_failure_is_tried_although_the_key_is_the_same() {
    let mut world = World::new();
    world.pass();
    world.set_job(failure(Reason::OutOfMemory, false, world.now));
    world.pass();
    world.change_spec("/stages/0/resources", json!({"limits": {"memory": "2Gi"}}));
    let outcome = world.pass();
    assert_eq!((outcome.start.len(), outcome.start[0].attempt, outcome.delete.len()), (1, 1, 1));
}

#[test]
fn a_registry_that_stutters_does_not_end_stages_that_run() {
    let take = json!([{"from": "a", "source": "/workspace/x", "destination": "/workspace/x"}]);
    let mut world = World::new().with_spec(
        "/stages",
        json!([{"name": "a", "image": "b", "run": "a"}, {"name": "build", "image": "b", "copy": take, "run": "b"}]),
    );
    world.pass();
    world.set_job(done());
    world.pass();
    assert_eq!(world.jobs.len(), 2);
    world.jobs.remove(0);
    world.records = Some(trouble(Reason::RegistryUnavailable));
    let outcome = world.pass();
    assert!(outcome.delete.is_empty());
    assert_eq!(outcome.place, Place::Running);
}

#[test]
fn credentials_that_only_the_agent_uses_are_waited_for() {
    let mut world = World::new();
    world.pass();
    for attempt in 1..10 {
        world.set_job(failure(Reason::RegistryAccessDenied, true, world.now));
        world.pass();
        assert!(world.has(RECONCILING), "{attempt}");
        world.now += 300;
        assert_eq!(world.pass().start[0].attempt, attempt);
    }
}

#[test]
fn going_back_to_what_is_built_ends_what_was_begun() {
    let mut world = World::built();
    let key: Key =
        serde_json::from_value(json!(format!("sha256:{}", world.status().stages[0].key.clone().unwrap()))).unwrap();
    world.cached = Some(vec![key]);
    world.change_spec("/stages/0/run", json!("make other"));
    world.pass();
    world.change_spec("/stages/0/run", json!("make"));
    let outcome = world.pass();
    assert_eq!(outcome.delete.len(), 1);
    assert_eq!(world.status().stages[0].state, StageState::Cached);
    assert_eq!(world.ready().1, "Succeeded");
}

#[test]
fn flux_and_kubectl_can_both_ask() {
    let mut world = World::built();
    world.cached = None;
    world.annotate(REQUESTED_AT, "1");
    world.pass();
    world.annotate(crate::api::v1alpha1::FLUX_REQUESTED_AT, "2");
    world.pass();
    assert_eq!(world.status().last_handled_reconcile_at.as_deref(), Some("2"));
    assert_eq!(world.status().history.len(), 3);
}

#[test]
fn a_branch_that_is_gone_is_no_build() {
    let mut world = World::built();
    world.now += 3600;
    world.revision = Err(trouble(Reason::SourceInvalid));
    let outcome = world.pass();
    assert_eq!((world.status().history.len(), world.ready().1.as_str()), (1, "Succeeded"));
    assert!(world.has(RECONCILING) && outcome.requeue.is_some());
}

#[test]
fn a_pod_that_never_starts_is_late_by_the_stages_timeout() {
    let mut world = World::new().with_spec("/stages/0/timeout", json!("10m"));
    world.pass();
    world.set_job(JobState::Waiting {
        reason: Reason::Unschedulable,
        message: "no node".into(),
        has_pod: true,
        build: false,
    });
    let outcome = world.pass();
    assert_eq!(outcome.requeue, None, "the Pod's changes are heard of");
    assert_eq!(outcome.place, Place::None, "others may go first");
    world.now += 601;
    world.pass();
    assert_eq!(world.ready().1, "Timeout");
    let message = &find(&world.status().conditions, READY).unwrap().message;
    assert!(message.contains("600 s: no node; mend that, or raise spec.stages[].timeout"), "{message}");
}

#[test]
fn an_agent_that_waits_for_a_build_container_that_has_ended_is_not_waited_for() {
    let mut world = World::new();
    world.pass();
    let JobState::Failed(orphaned) = failure(Reason::BuildInterrupted, true, world.now) else { unreachable!() };
    world.set_job(JobState::Orphaned(orphaned));
    let outcome = world.pass();
    assert_eq!(world.ready().1, "Building", "the agent may be about to end");
    assert_eq!(outcome.requeue, Some(Duration::from_secs(2)));
    world.now += 6;
    let outcome = world.pass();
    assert_eq!((outcome.start.len(), outcome.delete.len()), (1, 1), "another try");
    for _ in 0..Settings::default().interruptions {
        let JobState::Failed(orphaned) = failure(Reason::BuildInterrupted, true, world.now) else { unreachable!() };
        world.set_job(JobState::Orphaned(orphaned));
        world.now += 600;
        world.pass();
    }
    assert_eq!(world.ready().1, "BuildInterrupted");
    assert!(world.has(STALLED));
}

#[test]
fn another_directory_of_the_same_commit_is_another_key() {
    let mut world = World::new();
    world.pass();
    let first = world.status().stages[0].key.clone();
    world.change_spec("/source/directory", json!("b"));
    world.pass();
    assert_ne!(world.status().stages[0].key, first);
}

#[test]
fn history_is_bounded() {
    let mut world = World::built();
    world.cached = None;
    for request in 0..30 {
        world.annotate(REQUESTED_AT, &request.to_string());
        world.pass();
    }
    assert_eq!(world.status().history.len(), 10);
    assert!(serde_json::to_vec(world.status()).unwrap().len() < 16 * 1024);
}

const TWO_STAGES: &str = "FROM golang:1.26 AS build\nCOPY . .\nRUN make\nFROM scratch\nCOPY --from=build /app /app\n";

/// A world whose stages are in a Dockerfile of its source.
fn with_dockerfile(text: &str) -> World {
    let mut world =
        World::new().with_spec("/dockerfile", json!({})).with_spec("/stages", json!([])).with_spec("/image", json!({}));
    world.dockerfile = Some(text.to_owned());
    world
}

#[test]
fn a_dockerfile_is_read_at_the_revision_and_its_stages_run() {
    let mut world = with_dockerfile(TWO_STAGES);
    let outcome = world.pass();
    assert_eq!(outcome.start.iter().map(|run| run.stage.name.as_str()).collect::<Vec<_>>(), ["build"]);
    assert!(world.asked_for(|question| matches!(question, Question::Files { revision, .. } if revision == COMMIT)));
    let pinned = |question: &Question| matches!(question, Question::Config(reference) if reference.digest() == Some(Digest::of(b"builder")));
    assert!(world.asked_for(pinned));
    world.set_job(done());
    world.pass();
    assert_eq!(world.ready(), ("True".into(), "Succeeded".into()));
    // Nothing is looked at until the next poll, which finds nothing new.
    assert!(world.pass().start.is_empty() && world.asked.is_empty());
    world.now += 3600;
    world.pass();
    assert!(world.asked_for(|question| *question == Question::Revision));
    assert!(!world.asked_for(|question| matches!(question, Question::Publish(_))));
}

#[test]
fn what_is_doubtful_in_a_dockerfile_is_told_once_and_built() {
    let mut world = with_dockerfile(&format!("{TWO_STAGES}ENTRYPOINT /app\n"));
    world.pass();
    world.set_job(done());
    let mut told = Vec::new();
    for _ in 0..4 {
        let events = world.one_pass().events;
        told.extend(events.into_iter().filter(|note| note.reason == Reason::DockerfileWarning));
    }
    assert!(matches!(&told[..], [note] if note.warning && note.message.contains("scratch has no shell")), "{told:?}");
    assert_eq!(world.ready().1, "Succeeded");
}

#[test]
fn a_dockerfile_that_cannot_be_built_is_told_and_a_commit_helps() {
    for (text, reason) in [
        (Some("FROM golang:1.26\nRUN make\n"), "FinalStageNotMinimal"),
        (Some("FORM golang:1.26\n"), "DockerfileInvalid"),
        (None, "DockerfileInvalid"),
    ] {
        let mut world = with_dockerfile("");
        world.dockerfile = text.map(str::to_owned);
        let outcome = world.pass();
        assert_eq!(world.ready(), ("False".into(), reason.into()));
        assert!(world.has(STALLED) && outcome.start.is_empty() && outcome.requeue.is_some(), "{reason}");
        world.dockerfile = Some(TWO_STAGES.to_owned());
        world.revision = Ok(COMMIT.replace('0', "1"));
        world.now += 3600;
        assert_eq!(world.pass().start.len(), 1, "{reason}");
    }
}

#[test]
fn a_commit_that_breaks_the_dockerfile_is_a_failed_build_and_keeps_the_image() {
    let mut world = with_dockerfile(TWO_STAGES);
    world.pass();
    world.set_job(done());
    world.pass();
    world.dockerfile = Some("FROM golang:1.26\nCOPPY\n".to_owned());
    world.revision = Ok(COMMIT.replace('0', "1"));
    world.now += 3600;
    world.pass();
    assert_eq!(world.ready(), ("False".into(), "DockerfileInvalid".into()));
    assert!(world.has(STALLED) && world.status().image.is_some());
    assert!(!world.status().last_build.as_ref().unwrap().succeeded);
}
