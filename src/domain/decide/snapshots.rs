//! Snapshots in a build: which one a stage starts from, which are kept, what happens where a node cannot start from one.

use std::time::Duration;

use crate::{
    api::{conditions::Reason, v1alpha1::SnapshotPolicy},
    domain::{
        observed::{JobFact, JobFailure, JobState},
        recipe::{Key, Recipe},
        snapshot::{Keep, Prefix, SnapshotTask, Start, source_before},
        value::Digest,
    },
};

use super::{
    Kept, Question,
    stages::{Startable, Walk},
};

/// How long no snapshot is tried after a node could not start from one.
const SNAPSHOT_PAUSE: Duration = Duration::from_hours(1);

/// What a stage may be started from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum From {
    /// A snapshot, the newest of its steps where they take files: they are likely to be the same still.
    #[default]
    Newest,
    /// A snapshot of these files.
    Files(Vec<Prefix>),
    /// Its builder image.
    Builder,
}

/// What the try after `job` may be started from.
pub(super) fn after(job: &JobFact) -> From {
    match &job.state {
        JobState::Waiting { reason: Reason::ImagePullFailed | Reason::PodRejected, build: true, .. }
            if job.snapshot.is_some() =>
        {
            From::Builder
        }
        JobState::Failed(JobFailure { reason: Reason::PodRejected, .. }) => From::Builder,
        _ if !job.prefixes.is_empty() => From::Files(job.prefixes.clone()),
        _ => From::Newest,
    }
}

impl Walk<'_> {
    /// What the agent has made is kept, of a stage that failed too: the next try begins behind it.
    pub(super) fn keep(&mut self, recipe: &Recipe, job: &JobFact) {
        let stage = self.plan.stages.iter().find(|stage| stage.name == job.stage);
        let (Some(made), Some(reference), Some(digest)) =
            (&job.snapshots, stage.and_then(|stage| stage.image.as_ref()), recipe.image)
        else {
            return;
        };
        self.stages.keep.push(Kept::Snapshots(Keep {
            stage: job.stage.clone(),
            builder: reference.repository().pinned(digest),
            below: job.snapshot,
            artifact: made.artifact,
            made: job.finished,
            layers: recipe.kept(&made.numbers, &job.prefixes),
        }));
    }

    /// The next try goes without; nothing of the user's ran yet.
    pub(super) fn without_snapshot(&mut self, job: &JobFact, message: &str) -> u32 {
        let message = format!("stage {} starts from its builder image, not from its snapshot: {message}", job.stage);
        self.stages.snapshot_failure = Some(message);
        job.attempt + 1
    }

    /// What has to be known of snapshots before the stages are started.
    pub(super) fn snapshot_questions(&self, startable: &[Startable]) -> Vec<Question> {
        let keys = startable.iter().flat_map(|next| self.snapshot_keys(next)).map(|(_, key)| key);
        keys.filter(|key| !self.pass.facts.snapshots.contains_key(key)).map(Question::Snapshot).collect()
    }

    /// What a stage starts from, and what its agent is to know of that.
    pub(super) fn start_of(&self, next: &Startable) -> (Option<Start>, SnapshotTask) {
        // What is made anew takes the place of what a node could not start from.
        let forced = self.progress.no_cache.is_some();
        if self.snapshots_fail() && !forced {
            return (None, SnapshotTask::default());
        }
        let start = self.newest(next);
        let task = SnapshotTask {
            start: start.as_ref().map_or(0, |start| start.step),
            source: start.as_ref().and_then(|start| start.source),
            ..self.plan.snapshots(next.stage)
        };
        (start, task)
    }

    /// What to look for before a stage is started: by the cut, the last one first.
    fn snapshot_keys(&self, next: &Startable) -> Vec<(usize, Key)> {
        if next.from == From::Builder || self.progress.no_cache.is_some() || self.snapshots_fail() {
            return Vec::new();
        }
        let key = |cut: usize| (cut, next.recipe.snapshot_key(cut, files_before(&next.from, cut)));
        self.plan.snapshots(next.stage).cuts.into_iter().rev().map(key).collect()
    }

    /// The snapshot that spares most. One that cannot be read is none: the builder image does as well.
    fn newest(&self, next: &Startable) -> Option<Start> {
        let max_age = self.plan.outline.snapshots.max_age;
        self.snapshot_keys(next).into_iter().find_map(|(step, key)| {
            let found = self.pass.facts.snapshots.get(&key)?.as_ref().ok()?.as_ref()?;
            // Of known files the agent needs to hear nothing else.
            let source = files_before(&next.from, step).or(found.source);
            let start = Start { image: found.image, step, source };
            // What a build without cache was asked to make anew does not come back.
            let forced = self.pass.status.last_handled_no_cache_time.as_ref();
            let replaced = forced.is_some_and(|forced| found.made < forced.0);
            (found.is_fresh(self.pass.now, max_age) && !replaced).then_some(start)
        })
    }

    /// Whether a node could not start from a snapshot lately: each try costs a Pod.
    fn snapshots_fail(&self) -> bool {
        let failure = self.pass.status.snapshot_failure.as_ref();
        let lately = failure.is_some_and(|failure| self.since(Some(failure.time.0)) < SNAPSHOT_PAUSE);
        let always = self.plan.outline.snapshots.policy == SnapshotPolicy::Always;
        (lately || self.stages.snapshot_failure.is_some()) && !always
    }
}

/// What the steps before a cut take, where an agent has told that.
fn files_before(from: &From, cut: usize) -> Option<Digest> {
    let From::Files(prefixes) = from else { return None };
    source_before(prefixes, cut)
}
