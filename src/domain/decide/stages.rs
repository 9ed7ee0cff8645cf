//! The stages of a build: whose artifact is known, who runs, who can start.

use std::collections::BTreeMap;

use crate::{
    api::{
        conditions::Reason,
        v1alpha1::{Progress, StageState, StageStatus},
    },
    domain::{
        artifact::Artifact,
        image::SourcedLayer,
        job::{self, StageRun},
        observed::{JobFact, JobFailure, JobState},
        plan::{LayerPlan, Pins, Plan, StagePlan},
        recipe::{Key, Recipe},
        settings::backoff,
        task::{AgentMessage, SourceTask},
        value::Reference,
    },
};

use super::{Asked, Pass, Publication, PublicationLayer, Question, Slot, Trouble, pinned_digest};

/// A task travels in one environment variable, which Linux bounds at 128 KiB (MAX_ARG_STRLEN).
const TASK_BYTES: usize = 120 * 1024;
/// First wait before an interrupted stage is started again.
const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// Where the stages of a build are.
#[derive(Debug, Default)]
pub(super) struct Stages {
    /// One entry per stage for status, skipped ones too.
    pub status: Vec<StageStatus>,
    /// The artifacts that are there, by stage.
    pub artifacts: BTreeMap<String, Artifact>,
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
    /// Why the build waits, most pressing first.
    pub waits: Vec<(Reason, String)>,
    /// When a stage that was interrupted is tried again.
    pub retry: Option<std::time::Duration>,
    /// Whether Pods of this build may be doing something.
    pub live: bool,
}

/// A stage that failed for good.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StageFailure {
    pub stage: String,
    pub job: String,
    pub failure: JobFailure,
}

impl Pass<'_> {
    pub(super) fn stages(&self, plan: &Plan, progress: &Progress, pins: &Pins) -> Asked<Stages> {
        let mut stages = Stages::default();
        let mut questions = Vec::new();
        let mut current: Vec<String> = Vec::new();
        let mut startable: Vec<(&StagePlan, Recipe, Key, u32)> = Vec::new();
        for stage in &plan.stages {
            let mut status = stage_status(stage, progress);
            if let Some(recipe) = plan.recipe(stage, pins, &stages.artifacts) {
                let key = recipe.quick_key(pins.revision.as_deref()).requested(progress.no_cache.as_deref());
                status.key = Some(key.to_string());
                let job = self.newest_job(stage, &key, progress);
                current.extend(job.map(|job| job.uid.clone()));
                match job {
                    Some(job) => {
                        if let Some(attempt) =
                            self.follow(stage, &recipe, key, job, progress, &mut status, &mut stages, &mut questions)
                        {
                            startable.push((stage, recipe, key, attempt));
                        }
                    }
                    None => match self.facts.records.get(&key) {
                        None => questions.push(Question::Record(key)),
                        Some(Err(trouble)) => stages.trouble = Some(trouble.clone()),
                        Some(Ok(Some(artifact))) => known(&mut status, StageState::Cached, artifact, &mut stages),
                        Some(Ok(None)) => startable.push((stage, recipe, key, progress.first_attempt)),
                    },
                }
            }
            stages.status.push(status);
        }
        stages.status.extend(plan.skipped.iter().map(|name| StageStatus {
            name: name.clone(),
            state: StageState::Skipped,
            ..StageStatus::default()
        }));
        if !questions.is_empty() {
            return Err(questions);
        }
        stages.complete = stages.artifacts.len() == plan.stages.len();
        stages.stale =
            self.facts.jobs.iter().filter(|job| !job.deleting && !current.contains(&job.uid)).cloned().collect();
        if stages.failure.is_none() && stages.trouble.is_none() {
            self.start(plan, progress, pins, startable, &mut stages)?;
        }
        Ok(stages)
    }

    /// The latest try of a stage within this build.
    fn newest_job(&self, stage: &StagePlan, key: &Key, progress: &Progress) -> Option<&JobFact> {
        let key = key.to_string();
        let of_stage = self.facts.jobs.iter().filter(|job| job.stage == stage.name && job.key == key && !job.deleting);
        // A failure of an earlier build is no answer to a new request; anything that still runs or succeeded is.
        let counts =
            |job: &&JobFact| job.attempt >= progress.first_attempt || !matches!(job.state, JobState::Failed(_));
        of_stage.filter(counts).max_by_key(|job| job.attempt)
    }

    /// Reads a stage's Job; gives the number of the next try when it is time for one.
    #[allow(clippy::too_many_arguments)] // one row of the table: the stage, its Job, and the three places it reports to
    fn follow(
        &self,
        stage: &StagePlan,
        recipe: &Recipe,
        key: Key,
        job: &JobFact,
        progress: &Progress,
        status: &mut StageStatus,
        stages: &mut Stages,
        questions: &mut Vec<Question>,
    ) -> Option<u32> {
        status.job_name = Some(job.name.clone());
        match &job.state {
            JobState::Waiting { reason, message } => {
                stages.live = true;
                status.state = StageState::Waiting;
                status.message = Some(message.clone());
                stages.waits.push((*reason, format!("stage {}: {message}", stage.name)));
            }
            JobState::Running => {
                stages.live = true;
                status.state = StageState::Running;
            }
            JobState::Done(message) => {
                let digest = message.artifact?;
                match self.facts.adopted.get(&digest) {
                    None => {
                        questions
                            .push(Question::Adopt { artifact: digest, keys: keys(recipe, key, message, progress) });
                    }
                    Some(Err(trouble)) => stages.trouble = Some(trouble.clone()),
                    Some(Ok(artifact)) => {
                        let state = if message.cached { StageState::Cached } else { StageState::Built };
                        known(status, state, artifact, stages);
                        status.steps_milliseconds = i64::try_from(message.timings.steps).ok();
                    }
                }
            }
            JobState::Failed(failure) => return self.after_failure(stage, job, failure, progress, status, stages),
        }
        None
    }

    fn after_failure(
        &self,
        stage: &StagePlan,
        job: &JobFact,
        failure: &JobFailure,
        progress: &Progress,
        status: &mut StageStatus,
        stages: &mut Stages,
    ) -> Option<u32> {
        status.state = StageState::Failed;
        status.message = Some(failure.message.clone());
        status.exit_code = failure.exit_code;
        status.log_tail.clone_from(&failure.log_tail);
        let tries = job.attempt + 1 - progress.first_attempt.min(job.attempt);
        if !failure.transient || tries > self.settings.interruptions {
            let failure = failure.clone();
            stages.failure = Some(StageFailure { stage: stage.name.clone(), job: job.name.clone(), failure });
            return None;
        }
        let since = failure.at.map_or_else(Default::default, |at| {
            std::time::Duration::try_from(self.now.duration_since(at)).unwrap_or_default()
        });
        let left = backoff(FIRST_RETRY, tries).saturating_sub(since);
        if left.is_zero() {
            return Some(job.attempt + 1);
        }
        status.state = StageState::Waiting;
        let message = format!("stage {}: {} (tried again in {}s)", stage.name, failure.message, left.as_secs() + 1);
        stages.waits.push((failure.reason, message));
        stages.retry = Some(stages.retry.map_or(left, |other| other.min(left)));
        None
    }

    /// Starts what can be started, once the queue lets this build in.
    fn start(
        &self,
        plan: &Plan,
        progress: &Progress,
        pins: &Pins,
        startable: Vec<(&StagePlan, Recipe, Key, u32)>,
        stages: &mut Stages,
    ) -> Asked<()> {
        if startable.is_empty() {
            return Ok(());
        }
        let mut questions = Vec::new();
        if self.facts.slot.is_none() {
            questions.push(Question::Slot);
        }
        let has_secret = plan.source.as_ref().and_then(|source| source.secret()).is_some();
        let needs_host = has_secret && startable.iter().any(|(_, recipe, ..)| recipe.uses_source());
        if needs_host && self.facts.credential_host.is_none() {
            questions.push(Question::CredentialHost);
        }
        if !questions.is_empty() {
            return Err(questions);
        }
        if let Some(Slot::Queued(message)) = &self.facts.slot {
            stages.waits.push((Reason::Queued, message.clone()));
            return Ok(());
        }
        let host = match &self.facts.credential_host {
            Some(Err(trouble)) => {
                stages.trouble = Some(trouble.clone());
                return Ok(());
            }
            Some(Ok(host)) => host.as_deref(),
            None => None,
        };
        for (stage, recipe, key, attempt) in startable {
            let run = self.run(plan, progress, pins, stage, (recipe, key, attempt), host, &stages.artifacts);
            if serde_json::to_vec(&run.task).map_or(0, |task| task.len()) > TASK_BYTES {
                let message = format!(
                    "stage {} with its script and inline files is over {TASK_BYTES} bytes: move them to the source",
                    stage.name
                );
                stages.trouble = Some(Trouble { reason: Reason::InvalidSpec, message });
                return Ok(());
            }
            if let Some(status) = stages.status.iter_mut().find(|status| status.name == stage.name) {
                status.state = StageState::Waiting;
                status.message = Some("its Job is being created".into());
            }
            stages.start.push(run);
            stages.live = true;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the stage, its inputs and how they are found
    fn run(
        &self,
        plan: &Plan,
        progress: &Progress,
        pins: &Pins,
        stage: &StagePlan,
        (recipe, key, attempt): (Recipe, Key, u32),
        credential_host: Option<&str>,
        artifacts: &BTreeMap<String, Artifact>,
    ) -> StageRun {
        let revision = pins.revision.as_deref().unwrap_or_default();
        let source = plan.source.as_ref().and_then(|source| {
            Some(SourceTask { origin: source.origin(revision, credential_host)?, directory: source.directory.clone() })
        });
        let layer = |input: &crate::domain::plan::OutputReference| {
            artifacts.get(&input.stage)?.layers.get(input.output).cloned()
        };
        let inputs = stage.inputs.iter().filter_map(layer).collect();
        let cache = (&plan.cache, progress.no_cache.is_some());
        let task = job::task(stage, recipe, source, inputs, cache, self.settings);
        StageRun { stage: stage.name.clone(), key, attempt, task }
    }
}

impl Stages {
    /// The image that the artifacts make.
    pub(super) fn publication(
        &self,
        plan: &Plan,
        pins: &Pins,
        progress: &Progress,
        tags: Vec<Reference>,
    ) -> Publication {
        let layers = plan.layers.iter().filter_map(|layer| match layer {
            LayerPlan::Files(files) => Some(PublicationLayer::Files(files.clone())),
            LayerPlan::Artifact(from) => {
                let layer = self.artifacts.get(&from.stage)?.layers.get(from.output)?.clone();
                Some(PublicationLayer::Artifact(SourcedLayer { layer, from: from.stage.clone() }))
            }
        });
        debug_assert!(plan.base.iter().all(|base| pins.images.contains_key(base)));
        Publication {
            base: plan.base.as_ref().and_then(|base| Some((base.clone(), pinned_digest(progress, base)?))),
            layers: layers.collect(),
            image: plan.image.clone(),
            platform: plan.platform.clone(),
            cache: plan.cache.clone(),
            repository: plan.repository.clone(),
            tags,
            generation: progress.generation,
        }
    }
}

/// What an artifact is recorded under: the key that spares the Pod, and the one that spares only the steps.
fn keys(recipe: &Recipe, key: Key, message: &AgentMessage, progress: &Progress) -> Vec<Key> {
    let mut keys = vec![key];
    if progress.no_cache.is_some() {
        // The ordinary names too: what was asked to be made anew replaces what was there.
        keys.push(recipe.quick_key(progress.revision.as_deref()));
    }
    if message.source.is_some() || !recipe.uses_source() {
        keys.push(recipe.exact_key(message.source));
    }
    keys
}

fn known(status: &mut StageStatus, state: StageState, artifact: &Artifact, stages: &mut Stages) {
    let size: u64 = artifact.layers.iter().map(|layer| layer.size).sum();
    status.state = state;
    status.artifact_digest = Some(artifact.digest.to_string());
    status.artifact_size = i64::try_from(size).ok();
    stages.artifacts.insert(status.name.clone(), artifact.clone());
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
