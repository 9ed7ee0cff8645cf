//! One pass: observe, decide until nothing is left to ask, apply.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};

use crate::{
    api::{
        conditions::{Reason, truncated},
        v1alpha1::MinimalImage,
    },
    domain::{
        decide::{Decision, Facts, Outcome, Place, Trouble, decide},
        job::{self, JobOwner, References, StageRun},
        plan::{Draft, Outline, SourceKind},
        settings::backoff,
    },
    shell::{chain, health::Health, queue::ImageId},
};

use super::{
    answers::{Answers, World},
    keep::keep,
};

/// A decision that still asks after so many rounds would ask for ever; a chain of 32 stages needs two a stage.
const ROUNDS: usize = 200;

/// What all passes share.
pub(super) struct Operator {
    world: World,
    health: Health,
    memory: Mutex<BTreeMap<ImageId, Memory>>,
}

/// What is remembered of a resource between passes; all of it may be forgotten at any time.
#[derive(Default)]
struct Memory {
    /// As we wrote it last, until the watch has caught up with that.
    written: Option<MinimalImage>,
    /// Passes in a row that could not be ended.
    failures: u32,
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
        Self { world, health, memory: Mutex::default() }
    }

    /// A resource is gone: it runs and waits no longer.
    pub(super) fn forget(&self, id: &ImageId) {
        self.world.queue.forget(id);
        self.memory().remove(id);
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<ImageId, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource, or what we have written since the watch saw it: a pass over an old status would do things twice.
    fn newest(&self, image: Arc<MinimalImage>, id: &ImageId) -> Arc<MinimalImage> {
        let version = |image: &MinimalImage| image.resource_version().and_then(|version| version.parse::<u64>().ok());
        let mut memory = self.memory();
        let Some(memory) = memory.get_mut(id) else { return image };
        let written = memory.written.take();
        match written {
            Some(ours) if ours.uid() == image.uid() && version(&ours) > version(&image) => {
                Arc::new(memory.written.insert(ours).clone())
            }
            _ => image,
        }
    }
}

#[tracing::instrument(skip_all, fields(namespace = image.namespace(), image = image.name_any()))]
pub(super) async fn reconcile(image: Arc<MinimalImage>, operator: Arc<Operator>) -> Result<Action, PassError> {
    let started = Instant::now();
    let id = id(&image);
    let image = operator.newest(image, &id);
    if image.metadata.deletion_timestamp.is_some() {
        // Owner references collect what is left; nothing is pushed for a resource that is going.
        operator.forget(&id);
        return Ok(Action::await_change());
    }
    let result = pass(&image, &operator, &id).await;
    operator.health.metrics.reconciled(started.elapsed(), result.is_ok());
    operator.health.metrics.queue(operator.world.queue.counts());
    if result.is_ok()
        && let Some(memory) = operator.memory().get_mut(&id)
    {
        memory.failures = 0;
    }
    result
}

/// The API server did not do as asked: again after a while that grows.
pub(super) fn error_policy(image: Arc<MinimalImage>, error: &PassError, operator: Arc<Operator>) -> Action {
    tracing::warn!(namespace = image.namespace(), name = image.name_any(), error = chain(error), "pass failed");
    let mut memory = operator.memory();
    let failures = &mut memory.entry(id(&image)).or_default().failures;
    *failures += 1;
    Action::requeue(backoff(Duration::from_secs(1), *failures))
}

pub(super) fn id(image: &MinimalImage) -> ImageId {
    ImageId { namespace: image.namespace().unwrap_or_default(), name: image.name_any() }
}

async fn pass(image: &MinimalImage, operator: &Arc<Operator>, id: &ImageId) -> Result<Action, PassError> {
    let world = &operator.world;
    let mut facts = Facts { jobs: world.cluster.jobs(image).await?, ..Facts::default() };
    // A plan that is refused asks nothing, so there is nobody to answer then.
    let draft = Draft::new(&image.spec).ok();
    let outline = draft.as_ref().map(Draft::outline);
    let answers = outline.map(|outline| Answers { world, image, outline, id: id.clone() });
    let now = Timestamp::now();
    for _ in 0..ROUNDS {
        match (decide(image, &facts, &world.settings, now), &answers) {
            (Decision::Ask(questions), Some(answers)) => answers.answer(questions, &mut facts).await,
            (Decision::Ask(_), None) => return Err(PassError::Endless),
            (Decision::Act(outcome), _) => match start_all(image, operator, outline, id, &outcome).await? {
                // The status must say so: decide again, knowing it.
                Some(refused) if facts.refused.is_none() => facts.refused = Some(refused),
                _ => return apply(image, operator, id, *outcome).await,
            },
        }
    }
    Err(PassError::Endless)
}

/// Creates the Jobs of `outcome`; gives why one was refused for good. A Job without a status is found again.
async fn start_all(
    image: &MinimalImage,
    operator: &Operator,
    outline: Option<&Outline>,
    id: &ImageId,
    outcome: &Outcome,
) -> Result<Option<Trouble>, PassError> {
    let Some(outline) = outline else { return Ok(None) };
    let starts = outcome.start.iter().map(|run| start(image, operator, outline, id, run));
    let results = futures::future::join_all(starts).await;
    let mut refused = None;
    for result in results {
        match result {
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                refused = Some(Trouble { reason: Reason::PodRejected, message: truncated(&status.message, 600) });
            }
            result => result?,
        }
    }
    Ok(refused)
}

/// Does the rest of what was decided: status, so that people see what is going on, then deletions, then Events.
async fn apply(
    image: &MinimalImage,
    operator: &Arc<Operator>,
    id: &ImageId,
    mut outcome: Outcome,
) -> Result<Action, PassError> {
    let world = &operator.world;
    for kept in std::mem::take(&mut outcome.keep) {
        let (operator, image, id) = (Arc::clone(operator), image.clone(), id.clone());
        tokio::spawn(async move { keep(&operator.world, &image, id, kept).await });
    }
    if let Some(written) = world.cluster.write_status(image, &outcome.status).await? {
        operator.memory().entry(id.clone()).or_default().written = Some(written);
    }
    let deletes = outcome.delete.iter().map(|job| world.cluster.delete(&id.namespace, job));
    futures::future::try_join_all(deletes).await?;
    for note in &outcome.events {
        tracing::info!(reason = note.reason.as_str(), message = note.message, "transition");
        world.cluster.record(image, note).await;
    }
    match outcome.place {
        Place::Running => world.queue.hold(id.clone()),
        Place::Waiting => {}
        Place::None => world.queue.forget(id),
    }
    count(image, operator, &outcome);
    Ok(outcome.requeue.map_or_else(Action::await_change, Action::requeue))
}

async fn start(
    image: &MinimalImage,
    operator: &Operator,
    outline: &Outline,
    id: &ImageId,
    run: &StageRun,
) -> kube::Result<()> {
    let world = &operator.world;
    let owner =
        JobOwner { name: id.name.clone(), namespace: id.namespace.clone(), uid: image.uid().unwrap_or_default() };
    let mut references = references(image, outline);
    if run.start.is_some() && references.cache_secret.is_some() && references.pull_secrets.is_empty() {
        // A Pod that names a Secret of its own gets none of its account's, which the agent's image may need.
        let account = image.spec.service_account_name.as_deref().unwrap_or("default");
        references.pull_secrets = world.cluster.pull_secrets(&id.namespace, account).await?;
    }
    let job = job::render(&owner, run, &references, &world.settings);
    tracing::info!(stage = run.stage.name, key = %run.key, attempt = run.attempt, job = job.name_any(), "start");
    world.cluster.create(&job).await?;
    operator.health.metrics.started();
    Ok(())
}

fn references(image: &MinimalImage, outline: &Outline) -> References {
    let spec = &image.spec;
    let source = outline.source.as_ref();
    References {
        source_secret: source.and_then(|source| source.secret()).map(str::to_owned),
        cache_secret: spec.cache_secret().map(|secret| secret.name.clone()),
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
