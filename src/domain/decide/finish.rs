//! How a pass ends: the one place where status, conditions and Events are made.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        conditions::{Health, READY, RECONCILING, Reason, find, truncated, with_health},
        v1alpha1::{
            Build, FLUX_REQUESTED_AT, ImageStatus, NO_CACHE_REQUESTED_AT, Progress, REQUESTED_AT, SnapshotFailure,
            StageState, StageStatus, Status,
        },
    },
    domain::{
        observed::JobFact,
        plan::{Outline, Plan, inputs},
        preflight::some_of,
        settings::backoff,
        value::{Reference, human_size},
    },
};

use super::{
    Asked, Decision, Note, Outcome, Pass, Place, Published, Trouble, pins_of,
    published::{base_status, debug_status, image_status},
    stages::{StageFailure, Stages},
};

/// What no watch tells of, such as the Events of a Job without a Pod, is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Pass<'_> {
    /// The spec contradicts itself; whatever runs is for an older one.
    pub(super) fn refuse(&self, message: &str) -> Decision {
        let mut status = self.observed();
        status.progress = None;
        self.act(status, Health::Failed, Reason::InvalidSpec, message, Outcome::deleting(self.facts.jobs.clone()))
    }

    /// Suspended: what was built stays as it is, conditions included.
    pub(super) fn suspended(&self) -> Decision {
        let mut status = self.observed();
        status.progress = None;
        let message = "suspended before the image of this spec was built";
        self.act(status, Health::Suspended, Reason::Suspended, message, Outcome::deleting(self.facts.jobs.clone()))
    }

    /// Nothing to do until the next poll.
    pub(super) fn idle(&self, outline: &Outline) -> Decision {
        let requeue = self.until_poll(outline);
        Decision::Act(Box::new(Outcome { status: self.status.clone(), requeue, ..Outcome::deleting(self.leftovers()) }))
    }

    /// Between builds only the Job whose failure status tells of is kept, for its logs; an operator that died before it
    /// had deleted the others is made up for.
    fn leftovers(&self) -> Vec<JobFact> {
        let told = |job: &&JobFact| {
            self.status
                .stages
                .iter()
                .any(|stage| stage.state == StageState::Failed && stage.job_name.as_ref() == Some(&job.name))
        };
        self.facts.jobs.iter().filter(|job| !told(job)).cloned().collect()
    }

    /// What would be built is what was built last: by a poll, or after a change of the spec that changes no image.
    pub(super) fn nothing_new(&self, outline: &Outline) -> Asked<Decision> {
        let newer = self.newer(self.last_base().as_ref())?;
        let mut status = Status { last_check_time: Some(Time(self.now)), progress: None, ..self.observed() };
        status.conditions.retain(|condition| condition.type_ != RECONCILING);
        if let Some(last) = &mut status.last_build {
            last.generation = self.generation;
        }
        self.saw_releases(&mut status);
        if let Some(base) = &mut status.base {
            base.newer = newer;
        }
        let requeue = outline.poll();
        let rest = Outcome { requeue, ..Outcome::deleting(self.leftovers()) };
        let ready = find(&self.status.conditions, READY);
        Ok(match (&status.image, ready) {
            (Some(image), Some(ready)) if status.last_build.as_ref().is_some_and(|last| last.succeeded) => {
                // A suspension or a change of the interval may have left another word here, or another generation.
                let unchanged = ready.status == "True" && ready.observed_generation == Some(self.generation);
                let message = if unchanged { ready.message.clone() } else { built_message(image) };
                self.act(status, Health::Current, Reason::Succeeded, &message, rest)
            }
            _ => Decision::Act(Box::new(Outcome { status, ..rest })),
        })
    }

    /// Before a retry's time nothing is asked again.
    pub(super) fn wait_for_retry(&self, progress: &Progress) -> Option<Decision> {
        let left = Duration::try_from(progress.retry_time.as_ref()?.0.duration_since(self.now)).ok()?;
        if left.is_zero() {
            return None;
        }
        let outcome = Outcome { requeue: Some(left), place: self.live_place(), ..Outcome::deleting(Vec::new()) };
        Some(Decision::Act(Box::new(Outcome { status: self.status.clone(), ..outcome })))
    }

    /// A build that can do nothing now keeps its place only while Pods of its run.
    fn live_place(&self) -> Place {
        if self.facts.jobs.iter().any(JobFact::is_live) { Place::Running } else { Place::None }
    }

    /// Something outside failed before the stages were looked at.
    pub(super) fn trouble(&self, outline: &Outline, progress: Progress, trouble: &Trouble) -> Decision {
        self.trouble_amid(outline, progress, &Stages::default(), trouble)
    }

    /// Something outside failed: tried again later, unless only a person can help.
    pub(super) fn trouble_amid(
        &self,
        outline: &Outline,
        progress: Progress,
        stages: &Stages,
        trouble: &Trouble,
    ) -> Decision {
        let Some(first) = trouble.reason.first_retry() else {
            return self.ended(outline, &progress, stages, trouble, &[]);
        };
        let failures = progress.failures + 1;
        let wait = backoff(first, failures);
        let mut status = self.observed();
        if !stages.status.is_empty() {
            status.stages.clone_from(&stages.status);
        }
        let retry_time = self.now.checked_add(wait).ok().map(Time);
        status.progress = Some(Progress { failures, retry_time, ..progress });
        let poll = status.progress.as_ref().is_some_and(|progress| progress.poll);
        let health = if poll { Health::Checking } else { Health::InProgress };
        let rest = Outcome { requeue: Some(wait), place: self.live_place(), ..Outcome::deleting(stages.stale.clone()) };
        self.act(status, health, trouble.reason, &trouble.message, rest)
    }

    /// Stages run or wait.
    pub(super) fn building(&self, progress: Progress, stages: Stages) -> Decision {
        let mut status = self.observed();
        let done = stages.artifacts.len();
        let total = done + stages.status.iter().filter(|stage| !stages.artifacts.contains_key(&stage.name)).count();
        let (reason, message) =
            stages.waits.iter().find(|(reason, _)| *reason != Reason::Building).cloned().unwrap_or_else(|| {
                let running =
                    stages.status.iter().filter(|stage| stage.job_name.is_some() && stage.artifact_digest.is_none());
                let running: Vec<_> = running.map(|stage| stage.name.as_str()).collect();
                (Reason::Building, building_message(&running, done, total))
            });
        status.stages.clone_from(&stages.status);
        status.progress = Some(Progress { failures: 0, retry_time: None, ..progress });
        let look_again = stages.look_again || !stages.start.is_empty();
        let queued = stages.waits.iter().any(|(reason, _)| *reason == Reason::Queued);
        let place = match (stages.live, queued) {
            (true, _) => Place::Running,
            (false, true) => Place::Waiting,
            (false, false) => Place::None,
        };
        let events = stages.snapshot_failure.iter().map(|message| Note {
            warning: true,
            reason: Reason::SnapshotUnusable,
            message: message.clone(),
        });
        if let Some(message) = &stages.snapshot_failure {
            status.snapshot_failure = Some(SnapshotFailure { message: message.clone(), time: Time(self.now) });
        }
        let rest = Outcome {
            events: events.collect(),
            keep: stages.keep,
            start: stages.start,
            requeue: stages.retry.or(look_again.then_some(LOOK_AGAIN)),
            place,
            ..Outcome::deleting(stages.stale)
        };
        self.act(status, Health::InProgress, reason, &message, rest)
    }

    /// All artifacts are there: what is pushed is written down first.
    pub(super) fn pushing(&self, progress: Progress, stages: &Stages) -> Decision {
        let mut status = self.observed();
        status.stages.clone_from(&stages.status);
        status.progress = Some(progress);
        let place = self.live_place();
        let rest = Outcome { requeue: Some(Duration::ZERO), place, ..Outcome::keeping(stages, stages.stale.clone()) };
        self.act(status, Health::InProgress, Reason::Pushing, "the image is being put together and pushed", rest)
    }

    /// A stage failed for good: its Job stays for `kubectl logs` until the next build.
    pub(super) fn failed(
        &self,
        outline: &Outline,
        progress: &Progress,
        stages: &Stages,
        failure: &StageFailure,
    ) -> Decision {
        let code = failure.failure.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
        let mut message = format!("stage {} failed{code}: {}", failure.stage, failure.failure.message);
        if let Some(tail) = &failure.failure.log_tail {
            let last: Vec<&str> = tail.lines().rev().take(3).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
            message = format!("{message}; last lines: {}", truncated(&last, 400));
        }
        if let Some(advice) = failure.advice {
            message = format!("{message}; {advice}");
        }
        if failure.failure.reason == Reason::StageFailed {
            message = format!(
                "{message}; all of them: kubectl logs --namespace {} job/{} --container build",
                self.image.metadata.namespace.as_deref().unwrap_or_default(),
                failure.job
            );
        }
        let trouble = Trouble { reason: failure.failure.reason, message };
        self.ended(outline, progress, stages, &trouble, std::slice::from_ref(&failure.job))
    }

    /// A build ended without an image; the last good one stays in status.
    fn ended(
        &self,
        outline: &Outline,
        progress: &Progress,
        stages: &Stages,
        trouble: &Trouble,
        keep: &[String],
    ) -> Decision {
        let mut status = self.observed();
        let requeue = outline.poll();
        if progress.poll {
            // Not a build: the image stays what it is, and the next look may find more.
            status.progress = None;
            status.last_check_time = Some(Time(self.now));
            let rest = Outcome { requeue, ..Outcome::deleting(Vec::new()) };
            return self.act(status, Health::Checking, trouble.reason, &trouble.message, rest);
        }
        if !stages.status.is_empty() {
            status.stages.clone_from(&stages.status);
            // Their Pods end with the build.
            let under_way = status
                .stages
                .iter_mut()
                .filter(|stage| matches!(stage.state, StageState::Waiting | StageState::Running));
            under_way.for_each(|stage| {
                stage.state = StageState::Pending;
                stage.message = Some("ended with the build".to_owned());
            });
        }
        let build = Build { result: trouble.reason.as_str().into(), ..self.ended_build(progress) };
        self.remember(&mut status, build);
        let delete = self.facts.jobs.iter().filter(|job| !keep.contains(&job.name)).cloned().collect();
        let rest = Outcome { requeue, ..Outcome::keeping(stages, delete) };
        self.act(status, Health::Failed, trouble.reason, &trouble.message, rest)
    }

    /// The image is pushed.
    pub(super) fn succeeded(
        &self,
        plan: &Plan,
        progress: &Progress,
        stages: &Stages,
        published: &Published,
        (tags, newer): (&[Reference], Option<String>),
    ) -> Decision {
        let mut status = self.observed();
        let set = self.facts.packages.as_ref().and_then(|set| set.as_deref().ok());
        let mut base = base_status(plan, progress, published, set);
        // Packages are a layer of the image's own.
        let below = if plan.base.is_none() { 0 } else { u64::try_from(base.size).unwrap_or_default() };
        let image = image_status(plan, stages, below, published, tags);
        let debug = debug_status(plan, published, set);
        let image = ImageStatus { certificates: progress.certificates.clone(), debug, ..image };
        base.newer = newer;
        base.share = base.size * 100 / image.size.max(1);
        let build = Build {
            succeeded: true,
            result: Reason::Succeeded.as_str().into(),
            digest: Some(image.digest.clone()),
            size: Some(image.size),
            ..self.ended_build(progress)
        };
        self.remember(&mut status, build);
        let builder = stages.status.iter().filter_map(|stage: &StageStatus| stage.image_size).max();
        status.builder_size = builder;
        status.builder_display_size = builder.map(|size| human_size(u64::try_from(size).unwrap_or_default()));
        status.base = Some(base);
        status.source = progress.revision.as_ref().map(|revision| stages.source(revision, self.status));
        status.stages.clone_from(&stages.status);
        let message = built_message(&image);
        status.image = Some(image);
        let delete = self.facts.jobs.iter().filter(|job| !job.deleting).cloned().collect();
        let requeue = plan.outline.poll();
        let warning = |reason, message| Note { warning: true, reason, message };
        let doubtful = plan.warnings.iter().map(|message| warning(Reason::DockerfileWarning, message.clone()));
        let preflight = some_of(&published.warnings).map(|message| warning(Reason::PreflightWarning, message));
        let events = doubtful.chain(preflight).collect();
        let rest = Outcome { events, requeue, ..Outcome::keeping(stages, delete) };
        self.act(status, Health::Current, Reason::Succeeded, &message, rest)
    }

    /// The status with what every pass acknowledges.
    fn observed(&self) -> Status {
        let handled = |annotation, before: &Option<String>| self.annotation(annotation).or(before.as_ref()).cloned();
        let before = self.status;
        let no_cache = handled(NO_CACHE_REQUESTED_AT, &before.last_handled_no_cache_requested_at);
        let is_new = no_cache != before.last_handled_no_cache_requested_at;
        let earlier = before.last_handled_no_cache_time.clone();
        Status {
            observed_generation: self.generation,
            last_handled_requested_at: handled(REQUESTED_AT, &before.last_handled_requested_at),
            last_handled_reconcile_at: handled(FLUX_REQUESTED_AT, &before.last_handled_reconcile_at),
            last_handled_no_cache_requested_at: no_cache,
            last_handled_no_cache_time: if is_new { Some(Time(self.now)) } else { earlier },
            ..before.clone()
        }
    }

    fn ended_build(&self, progress: &Progress) -> Build {
        Build {
            reason: progress.reason,
            message: progress.message.clone(),
            generation: progress.generation,
            start_time: progress.start_time.clone(),
            completion_time: Some(Time(self.now)),
            revision: progress.revision.clone(),
            inputs: inputs(&self.image.spec, &pins_of(progress)).to_string(),
            ..Build::default()
        }
    }

    /// Puts an ended build into the history, within its limits.
    fn remember(&self, status: &mut Status, build: Build) {
        let limits = [self.image.spec.failed_history_limit, self.image.spec.successful_history_limit];
        let mut counts = [0, 0];
        let kept = std::iter::once(build.clone()).chain(status.history.drain(..)).filter(|build| {
            let index = usize::from(build.succeeded);
            let (count, limit) = (counts.get_mut(index), limits.get(index));
            count.zip(limit).is_some_and(|(count, limit)| {
                *count += 1;
                *count <= *limit
            })
        });
        status.history = kept.collect();
        status.last_build = Some(build);
        status.progress = None;
        status.last_check_time = Some(Time(self.now));
    }

    /// Sets the conditions and, on a transition, an Event.
    fn act(&self, mut status: Status, health: Health, reason: Reason, message: &str, rest: Outcome) -> Decision {
        let spoken = if health == Health::Checking { RECONCILING } else { READY };
        let told = |conditions| find(conditions, spoken).map(|condition| condition.reason.clone());
        status.conditions = with_health(&self.status.conditions, health, reason, message, self.generation, self.now);
        let digest = |status: &Status| status.image.as_ref().map(|image| image.digest.clone());
        let transition = told(&status.conditions) != told(&self.status.conditions)
            || reason == Reason::Succeeded && digest(&status) != digest(self.status);
        let note =
            Note { warning: health == Health::Failed || reason.is_trouble(), reason, message: message.to_owned() };
        let events = rest.events.iter().cloned().chain(transition.then_some(note)).collect();
        Decision::Act(Box::new(Outcome { status, events, ..rest }))
    }
}

impl Outcome {
    /// An outcome that deletes, and keeps what agents have sent.
    fn keeping(stages: &Stages, delete: Vec<JobFact>) -> Self {
        Self { keep: stages.keep.clone(), ..Self::deleting(delete) }
    }

    /// An outcome that only deletes.
    fn deleting(delete: Vec<JobFact>) -> Self {
        Self {
            status: Status::default(),
            start: Vec::new(),
            delete: delete.into_iter().filter(|job| !job.deleting).collect(),
            keep: Vec::new(),
            events: Vec::new(),
            requeue: None,
            place: Place::None,
        }
    }
}

fn built_message(image: &ImageStatus) -> String {
    format!("{} is {}", image.reference, image.display_size)
}

fn building_message(running: &[&str], done: usize, total: usize) -> String {
    match running {
        [] => format!("{done} of {total} stages done"),
        [one] => format!("stage {one} runs; {done} of {total} stages done"),
        many => format!("stages {} run; {done} of {total} stages done", many.join(", ")),
    }
}
