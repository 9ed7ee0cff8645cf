//! A file's plan: the same plan, pins and keys as of a build on this machine, held against the store.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow};

use super::report::{self, Report, StageLine, State};
use crate::{
    cli::{BuildArgs, InputArgs},
    cmd::{
        agent::Inputs,
        build::{self, Planned, World, listing, planned},
    },
    domain::{
        artifact::Artifact,
        changes::{StageInputs, changes},
        plan::{LayerPlan, Plan, StagePlan},
        recipe::Recipe,
        snapshot::Prefix,
        task::{Limits, Places},
        value::{Digest, Reference},
    },
    shell::collect::Room,
};

/// What is found out stage by stage.
struct Walk<'a> {
    world: &'a Arc<World>,
    planned: &'a Planned,
    artifacts: BTreeMap<String, Artifact>,
    lines: Vec<StageLine>,
}

/// Plans what `input` names.
///
/// # Errors
/// When it cannot be used, or what it names cannot be looked up.
pub async fn report(input: InputArgs) -> anyhow::Result<Report> {
    // A plan has nothing to say meanwhile but warnings.
    let (world, draft) = build::world(BuildArgs { input, ..BuildArgs::default() }, false)?;
    let _hold = world.store.in_use()?;
    let planned = planned(&world, draft).await?;
    let mut walk = Walk { world: &world, planned: &planned, artifacts: BTreeMap::new(), lines: Vec::new() };
    for stage in &planned.plan.stages {
        walk.visit(stage).await.with_context(|| format!("stage {}", stage.name))?;
    }
    walk.report().await
}

impl Walk<'_> {
    async fn visit(&mut self, stage: &StagePlan) -> anyhow::Result<()> {
        let (state, steps_in_snapshot, reasons) =
            match self.planned.plan.recipe(stage, &self.planned.pins, &self.artifacts) {
                Some(recipe) => self.complete(stage, recipe).await?,
                None => self.incomplete(stage).await?,
            };
        let builder = stage.image.as_ref();
        self.lines.push(StageLine {
            name: stage.name.clone(),
            state,
            steps_in_snapshot,
            builder: builder.map(ToString::to_string),
            builder_digest: builder.and_then(|reference| self.digest(reference)),
            reasons,
        });
        Ok(())
    }

    /// A stage whose key can be told.
    async fn complete(&mut self, stage: &StagePlan, recipe: Recipe) -> anyhow::Result<(State, usize, Vec<String>)> {
        if let Some(artifact) = self.quick(&recipe) {
            self.artifacts.insert(stage.name.clone(), artifact);
            return Ok((State::Cached, 0, Vec::new()));
        }
        let cuts = self.planned.plan.snapshots(stage).cuts;
        let (now, root, prefixes) = self.look(recipe, &cuts).await?;
        if let Some(artifact) = self.world.store.known(&now.recipe.exact_key(now.source)) {
            self.artifacts.insert(stage.name.clone(), artifact);
            return Ok((State::Cached, 0, Vec::new()));
        }
        let spared = self.world.newest_snapshot(&now.recipe, &cuts, &prefixes).map_or(0, |(cut, _)| cut);
        Ok((State::Run, spared, self.reasons(stage, now, root).await?))
    }

    /// A stage that copies from one that would run: held against what it was last made from, its inputs taken as they were.
    async fn incomplete(&self, stage: &StagePlan) -> anyhow::Result<(State, usize, Vec<String>)> {
        let would_run = |name: &&String| !self.artifacts.contains_key(*name);
        let mut from: Vec<String> = stage.inputs.iter().map(|i| &i.stage).filter(would_run).cloned().collect();
        from.dedup();
        let waits = format!("it copies from {}, which would run", from.join(", "));
        let Some(last) = self.world.last_inputs(&stage.name) else {
            return Ok((State::Run, 0, vec![never()]));
        };
        let alone = StagePlan { inputs: Vec::new(), ..stage.clone() };
        let recipe = self.planned.plan.recipe(&alone, &self.planned.pins, &self.artifacts);
        let recipe = recipe.context("its builder image was not resolved")?;
        let recipe = Recipe { inputs: last.recipe.inputs.clone(), ..recipe };
        if last.recipe.inputs.len() == stage.inputs.len() && self.quick(&recipe).is_some() {
            return Ok((State::MayRun, 0, vec![waits]));
        }
        let (now, root, _) = self.look(recipe, &[]).await?;
        if now.recipe.inputs.len() == stage.inputs.len()
            && self.world.store.known(&now.recipe.exact_key(now.source)).is_some()
        {
            return Ok((State::MayRun, 0, vec![waits]));
        }
        let mut reasons = self.reasons(stage, now, root).await?;
        reasons.push(waits);
        Ok((State::Run, 0, reasons))
    }

    /// The artifact under the key that needs no look at files: there is none where the source is a directory.
    fn quick(&self, recipe: &Recipe) -> Option<Artifact> {
        if recipe.uses_source() && self.world.context.is_some() {
            return None;
        }
        let identity = self.world.outline.source_identity(&self.planned.pins);
        self.world.store.known(&recipe.quick_key(identity.as_deref()))
    }

    /// The recipe with what it sees of the source, where that is, and what the steps before each of `cuts` see.
    async fn look(
        &self,
        recipe: Recipe,
        cuts: &[usize],
    ) -> anyhow::Result<(StageInputs, Option<PathBuf>, Vec<Prefix>)> {
        let revision = self.planned.pins.revision.clone().filter(|_| recipe.uses_source());
        let task = self.world.source_task(revision.as_deref()).filter(|_| recipe.uses_source());
        let Some(task) = task else {
            return Ok((StageInputs { recipe, revision, source: None, files: None }, None, Vec::new()));
        };
        let root = self.world.source(&task).await.map_err(|failure| anyhow!(failure.message))?;
        let work = self.world.store.run_directory()?;
        let room = Room { directory: work.path().to_owned(), limits: Limits::default() };
        let seen = Inputs::prepare(&recipe, &Places::default(), &root, room)
            .await
            .map_err(|failure| anyhow!(failure.message))?;
        let prefixes = seen.prefixes(cuts);
        Ok((StageInputs { recipe, revision, source: seen.digest(), files: None }, Some(root), prefixes))
    }

    async fn reasons(&self, stage: &StagePlan, now: StageInputs, root: Option<PathBuf>) -> anyhow::Result<Vec<String>> {
        let Some(last) = self.world.last_inputs(&stage.name) else { return Ok(vec![never()]) };
        let files = match root.filter(|_| last.files.is_some() && last.source != now.source) {
            Some(root) => listing(&now.recipe, &root).await?,
            None => last.files.clone(),
        };
        let names: Vec<String> = stage.inputs.iter().map(|input| input.stage.clone()).collect();
        let found = changes(&last, &StageInputs { files, ..now }, &names);
        // Pruned, or made by a build that was told not to look.
        Ok(if found.is_empty() { vec!["its artifact is no longer in the store".to_owned()] } else { found })
    }

    fn digest(&self, reference: &Reference) -> Option<Digest> {
        self.planned.pins.images.get(reference).copied()
    }

    async fn report(mut self) -> anyhow::Result<Report> {
        let Plan { base, skipped, .. } = &self.planned.plan;
        self.lines.extend(skipped.iter().map(|name| StageLine::skipped(name)));
        let (image, image_reason, image_changes) = self.image().await?;
        let tags = self.world.outline.expanded_tags(&self.planned.pins, 0, self.world.now);
        let tags =
            tags.map_err(|problems| anyhow!("{}", problems.iter().map(ToString::to_string).collect::<String>()))?;
        let digest = |stage: &str, output: usize| Some(self.artifacts.get(stage)?.layers.get(output)?.digest);
        Ok(Report {
            base: self.planned.plan.base_name(),
            base_digest: base.as_ref().and_then(|base| self.digest(base)),
            layers: report::layers(&self.planned.plan, digest),
            destination: tags.iter().map(ToString::to_string).collect(),
            stages: self.lines,
            image,
            image_reason,
            image_changes,
        })
    }

    /// The image's digest where all stages' artifacts are there, and what the list of built images says of it.
    async fn image(&self) -> anyhow::Result<(Option<Digest>, String, bool)> {
        let Planned { plan, images, .. } = self.planned;
        let needed = |layer: &LayerPlan| match layer {
            LayerPlan::Artifact(from) => self.artifacts.contains_key(&from.stage),
            LayerPlan::Files(_) | LayerPlan::Include(_) => true,
        };
        if !plan.layers.iter().all(needed) {
            return Ok((None, "would be put together anew".to_owned(), true));
        }
        let artifacts = self.artifacts.iter().map(|(name, artifact)| (name.as_str(), artifact)).collect();
        let digest = build::assemble(self.world, plan, &artifacts, images).await?.image.digest;
        let repository = self.world.outline.repository.to_string();
        let built = self.world.store.images();
        let last = built.iter().filter(|image| image.repository == repository).max_by_key(|image| image.created);
        Ok(match last {
            Some(last) if last.digest == digest => (Some(digest), "as built last".to_owned(), false),
            Some(last) => (Some(digest), format!("last built was {}", last.digest), true),
            None => (Some(digest), "not built here yet".to_owned(), true),
        })
    }
}

fn never() -> String {
    "not built here before".to_owned()
}
