//! The stages of a build: whose artifact is known, who runs, who can start.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        conditions::Reason,
        v1alpha1::{Progress, SourceStatus, StageState, StageStatus, Status},
    },
    domain::{
        artifact::{Artifact, Layer},
        caches::KeepCaches,
        debug,
        image::SourcedLayer,
        job::StageRun,
        observed::{JobFact, JobFailure, JobState},
        plan::{LayerPlan, OutputReference, Pins, Plan, StagePlan, TIMEOUT_ADVICE},
        recipe::{Key, Recipe},
        settings::backoff,
        task::AgentMessage,
        value::Reference,
    },
};

use super::{
    Asked, Kept, Pass, Publication, PublicationLayer, Question, Trouble, pinned_digest,
    snapshots::{From, after},
};

/// First wait before an interrupted stage is started again.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Longer than an agent goes on after its build container: it has only to write its message.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where the stages of a build are.
#[derive(Debug, Default)]
pub(super) struct Stages {
    /// One entry per stage for status, skipped ones too.
    pub status: Vec<StageStatus>,
    /// The artifacts that are there, by stage.
    pub artifacts: BTreeMap<String, Artifact>,
    /// When the source's revision was made, in seconds since 1970, by an agent that had it.
    pub source_time: Option<i64>,
    /// Whether all are there.
    pub complete: bool,
    /// What to start.
    pub start: Vec<StageRun>,
    /// Jobs that belong to no stage of this build any more.
    pub stale: Vec<JobFact>,
    /// The stage that failed for good.
    pub failure: Option<StageFailure>,
    /// Something outside the stages that failed.
    pub trouble: Option<Trouble>,
    /// Why the build waits, in the order of the stages.
    pub waits: Vec<(Reason, String)>,
    /// When a stage that was interrupted is tried again.
    pub retry: Option<Duration>,
    /// What agents have sent beside artifacts.
    pub keep: Vec<Kept>,
    /// Why a snapshot could not be started from.
    pub snapshot_failure: Option<String>,
    /// Whether Pods of this build may be doing something.
    pub live: bool,
    /// Whether something is waited for that no watch tells of.
    pub look_again: bool,
}

/// A stage that failed for good.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StageFailure {
    pub stage: String,
    pub job: String,
    pub failure: JobFailure,
    /// What to do.
    pub advice: Option<&'static str>,
}

/// One way through the stages of a build, collecting what is known, asked and startable.
pub(super) struct Walk<'a> {
    pub(super) pass: &'a Pass<'a>,
    pub(super) plan: &'a Plan,
    pub(super) progress: &'a Progress,
    pub(super) pins: &'a Pins,
    pub(super) stages: Stages,
    questions: Vec<Question>,
    pub(super) startable: Vec<Startable<'a>>,
}

/// A stage whose inputs are there and that nobody has run yet.
pub(super) struct Startable<'a> {
    pub(super) stage: &'a StagePlan,
    pub(super) recipe: Recipe,
    pub(super) key: Key,
    pub(super) attempt: u32,
    pub(super) from: From,
}

impl Pass<'_> {
    pub(super) fn stages(&self, plan: &Plan, progress: &Progress, pins: &Pins) -> Asked<Stages> {
        let mut walk = Walk {
            pass: self,
            plan,
            progress,
            pins,
            stages: Stages::default(),
            questions: Vec::new(),
            startable: Vec::new(),
        };
        for stage in &plan.stages {
            walk.visit(stage);
        }
        walk.finish()
    }
}

impl<'a> Walk<'a> {
    fn visit(&mut self, stage: &'a StagePlan) {
        let mut status = stage_status(stage, self.progress);
        if let Some(recipe) = self.plan.recipe(stage, self.pins, &self.stages.artifacts) {
            let identity = self.plan.outline.source_identity(self.pins);
            let key = recipe.quick_key(identity.as_deref()).requested(self.progress.no_cache.as_deref());
            status.key = Some(key.to_string());
            let job = self.newest_job(stage, &key);
            let attempt = match job {
                // Below the first, a failure would be taken for an earlier build's.
                Some(job) => {
                    self.follow(&recipe, key, job, &mut status).map(|attempt| attempt.max(self.progress.first_attempt))
                }
                None => self.without_job(stage, key, &mut status),
            };
            let from = job.map(after).unwrap_or_default();
            self.startable.extend(attempt.map(|attempt| Startable { stage, recipe, key, attempt, from }));
        }
        self.stages.status.push(status);
    }

    /// The latest try of a stage within this build.
    fn newest_job(&self, stage: &StagePlan, key: &Key) -> Option<&'a JobFact> {
        let key = key.to_string();
        let first = self.progress.first_attempt;
        let of_stage =
            self.pass.facts.jobs.iter().filter(|job| job.stage == stage.name && job.key == key && !job.deleting);
        // A failure of an earlier build is no answer to a new request; anything that still runs or succeeded is.
        let counts = |job: &&JobFact| job.attempt >= first || !matches!(job.state, JobState::Failed(_));
        of_stage.filter(counts).max_by_key(|job| job.attempt)
    }

    /// A stage that nobody works on: its artifact may be known; else gives the number of its first try.
    fn without_job(&mut self, stage: &StagePlan, key: Key, status: &mut StageStatus) -> Option<u32> {
        match self.pass.facts.records.get(&key) {
            None if stage.packages.is_some() => self.questions.push(Question::Base(key)),
            None => self.questions.push(Question::Record(key)),
            Some(Err(trouble)) => self.stages.trouble = Some(trouble.clone()),
            Some(Ok(Some(artifact))) => self.known(status, StageState::Cached, artifact),
            Some(Ok(None)) => return Some(self.progress.first_attempt),
        }
        None
    }

    /// Reads a stage's Job; gives the number of the next try when it is time for one.
    fn follow(&mut self, recipe: &Recipe, key: Key, job: &JobFact, status: &mut StageStatus) -> Option<u32> {
        status.job_name = Some(job.name.clone());
        status.start_time = job.started.map(Time);
        status.completion_time = job.finished.map(Time);
        status.snapshot = job.snapshot.map(|image| self.plan.outline.cache.pinned(image).to_string());
        self.keep(recipe, job);
        match &job.state {
            JobState::Outdated => {
                status.state = StageState::Waiting;
                status.message = Some("the files that its snapshot was made from have changed".into());
                return Some(job.attempt + 1);
            }
            // What holds it up may be what the new spec does otherwise; nothing of the user's ran yet.
            JobState::Waiting { reason, .. }
                if reason.is_trouble()
                    && job.generation.is_some_and(|made_for| made_for < self.progress.generation) =>
            {
                status.state = StageState::Waiting;
                status.message = Some("its Pod is made anew for the changed spec".into());
                return Some(job.attempt + 1);
            }
            JobState::Waiting {
                reason: Reason::ImagePullFailed | Reason::PodRejected, message, build: true, ..
            } if job.snapshot.is_some() => return Some(self.without_snapshot(job, message)),
            JobState::Failed(JobFailure { reason: Reason::PodRejected, message, .. }) if job.snapshot.is_some() => {
                return Some(self.without_snapshot(job, message));
            }
            JobState::Waiting { reason, message, has_pod, .. } => {
                if let Some(failure) = self.too_late(job, message) {
                    return self.after_failure(job, &failure, status);
                }
                // Why a Job has no Pod is told by Events alone, which nobody watches.
                self.stages.look_again |= !has_pod;
                // A Pod that no node or quota takes uses nothing meanwhile: others may go first.
                self.stages.live |= *reason == Reason::Building || *has_pod && *reason != Reason::Unschedulable;
                status.state = StageState::Waiting;
                let stage = self.plan.stages.iter().find(|stage| stage.name == job.stage);
                let advice = stage.and_then(|stage| stage.account.advice());
                let message = match advice.filter(|_| *reason == Reason::PodSecurityViolated) {
                    Some(advice) => format!("{advice}; {message}"),
                    None => message.clone(),
                };
                self.stages.waits.push((*reason, format!("stage {}: {message}", status.name)));
                status.message = Some(message);
            }
            JobState::Running => {
                self.stages.live = true;
                status.state = StageState::Running;
            }
            JobState::Orphaned(failure) => {
                if self.since(failure.at) > LAST_WORDS {
                    return self.after_failure(job, failure, status);
                }
                self.stages.look_again = true;
                self.stages.live = true;
                status.state = StageState::Running;
            }
            JobState::Done(message) => {
                self.keep_caches(job, message);
                self.adopt(recipe, key, message, status);
            }
            JobState::Failed(failure) => return self.after_failure(job, failure, status),
        }
        None
    }

    /// A Pod that never starts never reaches its own deadline, which counts from its start.
    fn too_late(&self, job: &JobFact, waits_for: &str) -> Option<JobFailure> {
        let timeout = self.plan.stages.iter().find(|stage| stage.name == job.stage)?.timeout;
        (self.since(job.created) > timeout).then(|| JobFailure {
            reason: Reason::Timeout,
            message: format!(
                "the stage did not start within its timeout of {} s: {waits_for}; mend that, or {TIMEOUT_ADVICE}",
                timeout.as_secs()
            ),
            exit_code: None,
            log_tail: None,
            transient: false,
            at: None,
        })
    }

    fn adopt(&mut self, recipe: &Recipe, key: Key, message: &AgentMessage, status: &mut StageStatus) {
        let Some(digest) = message.artifact else { return };
        match self.pass.facts.adopted.get(&key) {
            None => {
                let also = self.further_keys(recipe, message);
                self.questions.push(Question::Adopt { artifact: digest, key, also });
            }
            Some(Err(trouble)) => self.stages.trouble = Some(trouble.clone()),
            Some(Ok(artifact)) => {
                let state = if message.cached { StageState::Cached } else { StageState::Built };
                self.known(status, state, artifact);
                self.stages.source_time = self.stages.source_time.or(message.source_time);
                status.steps_milliseconds = i64::try_from(message.timings.steps).ok();
            }
        }
    }

    /// What is in caches after a success is for the next build.
    fn keep_caches(&mut self, job: &JobFact, message: &AgentMessage) {
        let stage = self.plan.stages.iter().find(|stage| stage.name == job.stage);
        let (Some(sent), Some(stage)) = (&message.caches, stage) else { return };
        let known = self.cache_keys(stage);
        let keys = sent.numbers.iter().map(|index| known.get(*index).copied()).collect::<Option<Vec<_>>>();
        let keep = |keys| Kept::Caches(KeepCaches { stage: job.stage.clone(), artifact: sent.artifact, keys });
        self.stages.keep.extend(keys.map(keep));
    }

    pub(super) fn cache_keys(&self, stage: &StagePlan) -> Vec<Key> {
        let meta = &self.pass.image.metadata;
        let [namespace, name] = [&meta.namespace, &meta.name].map(|text| text.as_deref().unwrap_or_default());
        self.plan.cache_keys(stage, &format!("{namespace}/{name}"))
    }

    /// What an artifact is recorded under beside its key in this build.
    fn further_keys(&self, recipe: &Recipe, message: &AgentMessage) -> Vec<Key> {
        let mut keys = Vec::new();
        if self.progress.no_cache.is_some() {
            // The ordinary name too: what was asked to be made anew replaces what was there.
            keys.push(recipe.quick_key(self.plan.outline.source_identity(self.pins).as_deref()));
        }
        if message.source.is_some() || !recipe.uses_source() {
            // This one spares only the steps, not the Pod.
            keys.push(recipe.exact_key(message.source));
        }
        keys
    }

    fn known(&mut self, status: &mut StageStatus, state: StageState, artifact: &Artifact) {
        let size: u64 = artifact.layers.iter().map(|layer| layer.size).sum();
        status.state = state;
        status.artifact_digest = Some(artifact.digest.to_string());
        status.artifact_size = i64::try_from(size).ok();
        self.stages.artifacts.insert(status.name.clone(), artifact.clone());
    }

    fn after_failure(&mut self, job: &JobFact, failure: &JobFailure, status: &mut StageStatus) -> Option<u32> {
        status.state = StageState::Failed;
        status.message = Some(failure.message.clone());
        status.exit_code = failure.exit_code;
        status.log_tail.clone_from(&failure.log_tail);
        let tries = job.attempt + 1 - self.progress.first_attempt.min(job.attempt);
        // Servers come back and Secrets are corrected without anything here being touched: those are waited for.
        let outside = failure.reason.first_retry().filter(|_| failure.reason != Reason::BuildInterrupted);
        if !failure.transient || outside.is_none() && tries > self.pass.settings.interruptions {
            let (stage, job, failure) = (status.name.clone(), job.name.clone(), failure.clone());
            let words = failure.log_tail.as_deref().unwrap_or_default();
            let planned = self.plan.stages.iter().find(|planned| planned.name == stage);
            let advice = planned.and_then(|planned| planned.account.denied(words));
            self.stages.failure = Some(StageFailure { stage, job, failure, advice });
            return None;
        }
        let left = backoff(outside.unwrap_or(FIRST_RETRY), tries).saturating_sub(self.since(failure.at));
        if left.is_zero() {
            return Some(job.attempt + 1);
        }
        status.state = StageState::Waiting;
        let message = format!("stage {}: {} (tried again in {}s)", status.name, failure.message, left.as_secs() + 1);
        self.stages.waits.push((failure.reason, message));
        self.stages.retry = Some(self.stages.retry.map_or(left, |other| other.min(left)));
        None
    }

    /// Zero for what has no time, or one that a clock ahead of ours gave.
    pub(super) fn since(&self, time: Option<Timestamp>) -> Duration {
        time.and_then(|time| Duration::try_from(self.pass.now.duration_since(time)).ok()).unwrap_or_default()
    }

    fn finish(mut self) -> Asked<Stages> {
        if !self.questions.is_empty() {
            return Err(self.questions);
        }
        self.stages.status.extend(self.plan.skipped.iter().map(|name| StageStatus {
            name: name.clone(),
            state: StageState::Skipped,
            ..StageStatus::default()
        }));
        // A stage whose inputs are not known yet keeps its Job: they may turn out to be what they were.
        let current = |job: &JobFact| {
            let stage = self.stages.status.iter().find(|stage| stage.name == job.stage);
            stage.is_some_and(|stage| {
                stage.job_name.as_ref() == Some(&job.name) || stage.key.is_none() && stage.state == StageState::Pending
            })
        };
        let retried = |job: &JobFact| self.startable.iter().any(|next| next.stage.name == job.stage);
        let stale = self.pass.facts.jobs.iter().filter(|job| !job.deleting && (!current(job) || retried(job)));
        self.stages.stale = stale.cloned().collect();
        if self.stages.trouble.is_none() {
            self.stages.trouble.clone_from(&self.pass.facts.refused);
        }
        self.stages.complete = self.stages.artifacts.len() == self.plan.stages.len();
        if self.stages.failure.is_none() && self.stages.trouble.is_none() && !self.startable.is_empty() {
            self.start()?;
        }
        Ok(self.stages)
    }
}

impl Stages {
    /// The source of the image. A commit's time never changes: where all stages were in the cache, what `before` has counts.
    pub(super) fn source(&self, revision: &str, before: &Status) -> SourceStatus {
        let earlier = before.source.as_ref().filter(|source| source.revision == revision);
        let time = self.source_time.and_then(|time| Timestamp::from_second(time).ok()).map(Time);
        SourceStatus { revision: revision.to_owned(), time: time.or_else(|| earlier?.time.clone()) }
    }

    fn layer(&self, from: &OutputReference) -> Option<Layer> {
        self.artifacts.get(&from.stage)?.layers.get(from.output).cloned()
    }

    /// The image that the artifacts make; none where they lack a layer of it.
    pub(super) fn publication(
        &self,
        plan: &Plan,
        progress: &Progress,
        tags: Vec<Reference>,
        certificates: Option<String>,
    ) -> Option<Publication> {
        let layers = plan.layers.iter().map(|layer| match layer {
            LayerPlan::Files(files) => Some(PublicationLayer::Files(files.clone())),
            LayerPlan::Include(included) => Some(PublicationLayer::Include(*included)),
            LayerPlan::Artifact(from) => {
                let layer = self.layer(from)?;
                Some(PublicationLayer::Artifact(SourcedLayer { layer, from: from.origin() }))
            }
        });
        let debug = match plan.debug() {
            Some(from) => Some(debug::tools(self.layer(&from)?)),
            None => None,
        };
        Some(Publication {
            base: plan.base.as_ref().and_then(|base| Some((base.clone(), pinned_digest(progress, base)?))),
            layers: layers.collect::<Option<_>>()?,
            composed: plan.composed(),
            debug,
            certificates,
            has_base: plan.has_base(),
            base_name: plan.base_name(),
            preflight: plan.outline.preflight,
            image: plan.image.clone(),
            platform: plan.outline.platform.clone(),
            cache: plan.outline.cache.clone(),
            repository: plan.outline.repository.clone(),
            tags,
            generation: progress.generation,
        })
    }
}

fn stage_status(stage: &StagePlan, progress: &Progress) -> StageStatus {
    let pinned = stage.image.as_ref().and_then(|image| {
        let name = image.to_string();
        progress.images.iter().find(|pinned| pinned.reference == name).map(|pinned| (image, pinned))
    });
    StageStatus {
        name: stage.name.clone(),
        image: pinned.map(|(image, pinned)| format!("{}@{}", image.repository(), pinned.digest)),
        image_size: pinned.map(|(_, pinned)| pinned.size),
        ..StageStatus::default()
    }
}
