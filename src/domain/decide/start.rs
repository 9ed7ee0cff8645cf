//! Starts what can be started.

use crate::{
    api::{conditions::Reason, v1alpha1::StageState},
    domain::{
        artifact::Layer,
        job::{self, StageRun},
        plan::OutputReference,
        task::{SourceTask, StageTask},
    },
};

use super::{
    Asked, Question, Slot, Trouble,
    stages::{Startable, Walk},
};

/// A task travels in one environment variable, which Linux bounds at 128 KiB (MAX_ARG_STRLEN).
const TASK_BYTES: usize = 120 * 1024;
impl Walk<'_> {
    /// Starts what can be started, once the queue lets this build in.
    pub(super) fn start(&mut self) -> Asked<()> {
        let facts = self.pass.facts;
        let has_secret = self.plan.outline.source.as_ref().and_then(|source| source.secret()).is_some();
        let needs_host = has_secret && self.startable.iter().any(|next| next.recipe.uses_source());
        let mut questions = self.snapshot_questions(&self.startable);
        if facts.slot.is_none() {
            questions.push(Question::Slot);
        }
        if needs_host && facts.credential_host.is_none() {
            questions.push(Question::CredentialHost);
        }
        let bases = self.startable.iter().filter(|next| next.stage.packages.is_some()).map(|next| next.key);
        questions.extend(bases.filter(|key| !facts.compose.contains_key(key)).map(Question::Compose));
        if !questions.is_empty() {
            return Err(questions);
        }
        if let Some(Slot::Queued(message)) = &facts.slot {
            self.stages.waits.push((Reason::Queued, message.clone()));
            return Ok(());
        }
        if let Some(Err(trouble)) = &facts.credential_host {
            self.stages.trouble = Some(trouble.clone());
            return Ok(());
        }
        for next in std::mem::take(&mut self.startable) {
            let name = &next.stage.name;
            if let Some(Slot::Queued(message)) = facts.compose.get(&next.key) {
                self.wait_for_base(name, message);
                continue;
            }
            let run = self.run(&next);
            if serde_json::to_vec(&run.task).map_or(0, |task| task.len()) > TASK_BYTES {
                let message = format!(
                    "stage {name} with its script and inline files is over {TASK_BYTES} bytes: move them to the source"
                );
                self.stages.trouble = Some(Trouble { reason: Reason::InvalidSpec, message });
                return Ok(());
            }
            if let Some(status) = self.stages.status.iter_mut().find(|status| status.name == *name) {
                status.state = StageState::Waiting;
                status.message = Some("its Job is being created".into());
            }
            self.stages.start.push(run);
            self.stages.live = true;
        }
        Ok(())
    }

    /// What another image has made soon need not be made here. No watch tells of it.
    fn wait_for_base(&mut self, name: &str, message: &str) {
        if let Some(status) = self.stages.status.iter_mut().find(|status| status.name == name) {
            status.message = Some(message.to_owned());
        }
        self.stages.waits.push((Reason::Queued, format!("stage {name}: {message}")));
        self.stages.look_again = true;
    }

    fn run(&self, next: &Startable) -> StageRun {
        let revision = self.pins.revision.as_deref().unwrap_or_default();
        let host = self.pass.facts.credential_host.as_ref().and_then(|host| host.as_ref().ok()?.as_deref());
        let source = self.plan.outline.source.as_ref().and_then(|source| {
            Some(SourceTask { origin: source.origin(revision, host)?, directory: source.directory.clone() })
        });
        let inputs = next.stage.inputs.iter().filter_map(|input| self.layer(input).cloned()).collect();
        let cache = (&self.plan.outline.cache, self.progress.no_cache.is_some());
        let task = job::task(next.stage, next.recipe.clone(), source, inputs, cache, self.pass.settings);
        let (start, snapshots) = self.start_of(next);
        let caches = self.cache_keys(next.stage);
        let task = StageTask { snapshots, caches, ..task };
        StageRun {
            stage: next.stage.clone(),
            key: next.key,
            attempt: next.attempt,
            generation: self.progress.generation,
            task,
            start,
        }
    }

    fn layer(&self, from: &OutputReference) -> Option<&Layer> {
        self.stages.artifacts.get(&from.stage)?.layers.get(from.output)
    }
}
