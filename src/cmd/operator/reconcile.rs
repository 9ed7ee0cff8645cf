//! One pass: observe, decide until nothing is left to ask, apply.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};

use crate::{
    api::v1alpha1::MinimalImage,
    domain::{
        decide::{Decision, Facts, Outcome, decide},
        job::{self, Owner, References, StageRun},
        plan::{Plan, SourceKind},
    },
    shell::{chain, health::Health, queue::ImageId},
};

use super::answers::{Answers, World};

/// A decision that still asks after so many rounds would ask for ever; a chain of 32 stages needs two a stage.
const ROUNDS: usize = 200;

/// What all passes share.
pub(super) struct Operator {
    world: World,
    health: Health,
    /// Resources as we wrote them last, until the watch has caught up with it.
    written: Mutex<BTreeMap<String, MinimalImage>>,
    failures: Mutex<BTreeMap<String, u32>>,
}

/// Why a pass could not be ended; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The API server.
    #[error("failed to work with the API server")]
    Cluster(#[from] kube::Error),
    /// A fault of ours.
    #[error("a decision asked without end")]
    Endless,
}

impl Operator {
    pub(super) fn new(world: World, health: Health) -> Self {
        Self { world, health, written: Mutex::default(), failures: Mutex::default() }
    }

    /// What was kept about a resource that is not there any more, its place in the queue above all.
    pub(super) fn forget(&self, id: &ImageId) {
        self.world.queue.forget(id);
        self.health.metrics.queue(self.world.queue.counts());
    }

    /// The resource, or what we have written since the watch saw it: a pass over an old status would do things twice.
    fn newest(&self, image: Arc<MinimalImage>) -> Arc<MinimalImage> {
        let version = |image: &MinimalImage| image.resource_version().and_then(|version| version.parse::<u64>().ok());
        let uid = image.uid().unwrap_or_default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(&uid) {
            Some(ours) if version(ours) > version(&image) => Arc::new(ours.clone()),
            _ => {
                written.remove(&uid);
                image
            }
        }
    }
}

#[tracing::instrument(skip_all, fields(namespace = image.namespace(), name = image.name_any()))]
pub(super) async fn reconcile(image: Arc<MinimalImage>, operator: Arc<Operator>) -> Result<Action, PassError> {
    let started = Instant::now();
    let image = operator.newest(image);
    let id = ImageId { namespace: image.namespace().unwrap_or_default(), name: image.name_any() };
    if image.metadata.deletion_timestamp.is_some() {
        // Owner references collect what is left; nothing is pushed for a resource that is going.
        operator.world.queue.forget(&id);
        return Ok(Action::await_change());
    }
    let result = pass(&image, &operator, &id).await;
    operator.health.metrics.reconciled(started.elapsed(), result.is_ok());
    operator.health.metrics.queue(operator.world.queue.counts());
    if result.is_ok() {
        operator.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&image.uid().unwrap_or_default());
    }
    result
}

/// The API server did not do as asked: again after a while that grows.
pub(super) fn error_policy(image: Arc<MinimalImage>, error: &PassError, operator: Arc<Operator>) -> Action {
    tracing::warn!(namespace = image.namespace(), name = image.name_any(), error = chain(error), "pass failed");
    let mut failures = operator.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(image.uid().unwrap_or_default()).or_default();
    *count += 1;
    Action::requeue(crate::domain::settings::backoff(Duration::from_secs(1), *count))
}

async fn pass(image: &MinimalImage, operator: &Operator, id: &ImageId) -> Result<Action, PassError> {
    let world = &operator.world;
    let mut facts = Facts { jobs: world.cluster.jobs(image).await?, ..Facts::default() };
    // A plan that is refused asks nothing, so there is nobody to answer then.
    let plan = Plan::new(&image.spec).ok();
    let answers = plan.as_ref().map(|plan| Answers { world, image, plan, id: id.clone() });
    for _ in 0..ROUNDS {
        match (decide(image, &facts, &world.settings, Timestamp::now()), &answers) {
            (Decision::Ask(questions), Some(answers)) => answers.answer(questions, &mut facts).await,
            (Decision::Ask(_), None) => return Err(PassError::Endless),
            (Decision::Act(outcome), _) => return apply(image, operator, plan.as_ref(), id, *outcome).await,
        }
    }
    Err(PassError::Endless)
}

/// Does what was decided: status first, so that people see what is going on, then Jobs, then Events.
async fn apply(
    image: &MinimalImage,
    operator: &Operator,
    plan: Option<&Plan>,
    id: &ImageId,
    outcome: Outcome,
) -> Result<Action, PassError> {
    let world = &operator.world;
    if let Some(written) = world.cluster.write_status(image, &outcome.status).await? {
        let mut all = operator.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(image.uid().unwrap_or_default(), written);
    }
    let deletes = outcome.delete.iter().map(|job| world.cluster.delete(&id.namespace, job));
    futures::future::try_join_all(deletes).await?;
    if let Some(plan) = plan {
        let creates = outcome.start.iter().map(|run| start(image, operator, plan, id, run));
        futures::future::try_join_all(creates).await?;
    }
    for note in &outcome.events {
        tracing::info!(reason = note.reason.as_str(), message = note.message, "transition");
        world.cluster.record(image, note).await;
    }
    if outcome.holds_slot {
        world.queue.hold(id.clone());
    } else {
        world.queue.release(id);
    }
    count(image, operator, &outcome);
    Ok(outcome.requeue.map_or_else(Action::await_change, Action::requeue))
}

async fn start(
    image: &MinimalImage,
    operator: &Operator,
    plan: &Plan,
    id: &ImageId,
    run: &StageRun,
) -> Result<(), PassError> {
    let world = &operator.world;
    let Some(stage) = plan.stages.iter().find(|stage| stage.name == run.stage) else { return Ok(()) };
    let owner = Owner { name: id.name.clone(), namespace: id.namespace.clone(), uid: image.uid().unwrap_or_default() };
    let job = job::render(&owner, plan, stage, run, &references(image, plan), &world.settings);
    tracing::info!(stage = run.stage, key = %run.key, attempt = run.attempt, job = job.name_any(), "start");
    world.cluster.create(&job).await?;
    operator.health.metrics.started();
    Ok(())
}

fn references(image: &MinimalImage, plan: &Plan) -> References {
    let spec = &image.spec;
    let own = spec.cache.as_ref().and_then(|cache| cache.secret_ref.as_ref());
    let source = plan.source.as_ref();
    References {
        source_secret: source.and_then(|source| source.secret()).map(str::to_owned),
        cache_secret: own.or(spec.destination.secret_ref.as_ref()).map(|secret| secret.name.clone()),
        pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
        service_account: spec.service_account_name.clone(),
        source_config_map: source.and_then(|source| match &source.kind {
            SourceKind::ConfigMap { name } => Some(name.clone()),
            _ => None,
        }),
    }
}

/// Counts a build that ended in this pass.
fn count(image: &MinimalImage, operator: &Operator, outcome: &Outcome) {
    let before = image.status.as_ref().and_then(|status| status.last_build.as_ref());
    let (Some(build), Some(note)) = (&outcome.status.last_build, outcome.events.first()) else { return };
    if before == Some(build) {
        return;
    }
    let times = build.start_time.as_ref().zip(build.completion_time.as_ref());
    let took = times.and_then(|(start, end)| Duration::try_from(end.0.duration_since(start.0)).ok());
    operator.health.metrics.built(note.reason.as_str(), took.unwrap_or_default());
}
