//! A resource's plan: what its spec resolves to now, held against what its status says of the last build. Source, Dockerfile
//! and images are looked up from here, with the caller's own logins.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use kube::{Api, Client};

use super::report::{self, Report, StageLine, State};
use crate::{
    api::v1alpha1::{GitReference, MinimalImage, MinimalImageSpec, StageState, StageStatus, Status},
    cli::{BuildArgs, InputArgs, PlanArgs},
    cmd::build::{self, Planned, World, planned},
    domain::{
        artifact::Artifact,
        plan::{SourceKind, StagePlan, inputs},
        recipe::{Key, Recipe},
        record::claimed,
        snapshot::Snapshot,
        source::config_map_digest,
        value::{Digest, Reference},
    },
    shell::{cache::Cache, cluster::Cluster, kubeconfig::connect, store::Store},
};

/// What is found out stage by stage.
struct Walk<'a> {
    world: &'a Arc<World>,
    planned: &'a Planned,
    resource: &'a MinimalImage,
    status: &'a Status,
    cache: Option<Cache>,
    artifacts: BTreeMap<String, Artifact>,
    lines: Vec<StageLine>,
}

/// Plans the resource that `args` name.
///
/// # Errors
/// When there is no such resource, or what it names cannot be looked up from here.
pub async fn report(args: PlanArgs) -> anyhow::Result<Report> {
    let name = args.input.context.clone().context("which MinimalImage? give its name")?.display().to_string();
    if args.input.file.is_some() || args.input.dockerfile.is_some() {
        bail!("--namespace, --context and --kubeconfig are for a resource in a cluster, not for a file");
    }
    let (client, own) = connect(args.cluster.kubeconfig.as_deref(), args.cluster.kube_context.as_deref()).await?;
    let namespace = args.cluster.namespace.unwrap_or(own);
    let resource = Api::<MinimalImage>::namespaced(client.clone(), &namespace).get_opt(&name).await;
    let resource = resource.with_context(|| format!("failed to read MinimalImage {namespace}/{name}"))?;
    let resource = resource.with_context(|| format!("there is no MinimalImage {name} in namespace {namespace}"))?;
    let nothing = Status::default();
    let status = resource.status.as_ref().unwrap_or(&nothing);
    let spec = reachable(&resource.spec, status)?;
    let draft = build::draft(Path::new(&format!("MinimalImage {namespace}/{name}")), &spec)?;
    let input = InputArgs { pull: true, context: None, ..args.input };
    let store = Store::open(input.store.clone())?;
    let outline = draft.outline().clone();
    let build = BuildArgs { input, ..BuildArgs::default() };
    let world = Arc::new(World::new(build, (outline, BTreeMap::new(), None), None, store));
    let mut planned = Box::pin(planned(&world, draft)).await?;
    if let Some(SourceKind::ConfigMap { name }) = world.outline.source.as_ref().map(|source| &source.kind) {
        planned.pins.revision = Some(config_map(client, &namespace, name).await?.to_string());
    }
    // What is in Secrets is not read here: as the last image has them.
    let certificates = status.image.as_ref().and_then(|image| image.certificates.as_deref());
    planned.pins.certificates = certificates.and_then(|digest| digest.parse().ok());
    // Without its artifacts it is not known what stages that copy from others would see.
    let cache = world.client().await.ok().map(|client| Cache::new(client, world.outline.cache.clone(), String::new()));
    let mut walk = Walk {
        world: &world,
        planned: &planned,
        resource: &resource,
        status,
        cache,
        artifacts: BTreeMap::new(),
        lines: Vec::new(),
    };
    for stage in &planned.plan.stages {
        walk.visit(stage).await;
    }
    walk.report()
}

/// The spec with a source that can be looked up without its Secret: at the revision that was built last.
fn reachable(spec: &MinimalImageSpec, status: &Status) -> anyhow::Result<MinimalImageSpec> {
    let mut spec = spec.clone();
    let Some(git) = spec.source.as_mut().and_then(|source| source.git.as_mut()) else { return Ok(spec) };
    if git.secret_ref.take().is_some() {
        let built = status.last_build.as_ref().and_then(|build| build.revision.clone());
        let built = built.context("its source wants a login, which is in a Secret, and it was never built")?;
        eprintln!("warning: the source wants a login: it is taken to be at {built}, as it was");
        git.reference = Some(GitReference { commit: Some(built), ..GitReference::default() });
    }
    Ok(spec)
}

async fn config_map(client: Client, namespace: &str, name: &str) -> anyhow::Result<Digest> {
    let data = Cluster::new(client).config_map(namespace, name).await;
    Ok(config_map_digest(&data.with_context(|| format!("failed to read ConfigMap {namespace}/{name}"))?))
}

impl Walk<'_> {
    async fn visit(&mut self, stage: &StagePlan) {
        let last = self.status.stages.iter().find(|last| last.name == stage.name);
        let recipe = self.planned.plan.recipe(stage, &self.planned.pins, &self.artifacts);
        let (state, reasons) = match &recipe {
            Some(recipe) => self.complete(stage, recipe, last).await,
            None => {
                let mut reasons = self.reasons(stage, last);
                let state = if reasons.is_empty() { State::MayRun } else { State::Run };
                reasons.extend(self.source_moved(stage));
                let unknown = stage.inputs.iter().find(|input| !self.artifacts.contains_key(&input.stage));
                let waits = |stage| format!("it copies from {stage}, whose artifact is not known");
                reasons.extend(unknown.map(|input| waits(&input.stage)));
                (state, reasons)
            }
        };
        let steps_in_snapshot = match &recipe {
            Some(recipe) if matches!(state, State::Run | State::MayRun) => self.in_snapshot(stage, recipe).await,
            _ => 0,
        };
        let builder = stage.image.as_ref();
        self.lines.push(StageLine {
            name: stage.name.clone(),
            state,
            steps_in_snapshot,
            builder: builder.map(ToString::to_string),
            builder_digest: builder.and_then(|reference| self.planned.pins.images.get(reference).copied()),
            reasons,
        });
    }

    async fn complete(
        &mut self,
        stage: &StagePlan,
        recipe: &Recipe,
        last: Option<&StageStatus>,
    ) -> (State, Vec<String>) {
        let identity = self.world.outline.source_identity(&self.planned.pins);
        let key = recipe.quick_key(identity.as_deref());
        let requested = key.requested(self.status.last_handled_no_cache_requested_at.as_deref());
        let is_last = |last: &&StageStatus| [key, requested].iter().any(|key| last.key == Some(key.to_string()));
        if let Some(last) = last.filter(is_last) {
            return self.unchanged(stage, last).await;
        }
        if self.has_record(&key).await {
            return (State::Cached, vec!["the cache repository has a record of this very work".to_owned()]);
        }
        let mut reasons = self.reasons(stage, last);
        let moved = self.source_moved(stage);
        if reasons.is_empty()
            && let Some(moved) = moved
        {
            // The Pod of a source that is known by its revision alone starts, and may find that its files are the same.
            return (State::MayRun, vec![format!("{moved}; whether its files are others is not known from here")]);
        }
        reasons.extend(moved);
        if reasons.is_empty() {
            let from: Vec<_> = stage.inputs.iter().map(|input| input.stage.as_str()).collect();
            let from =
                if from.is_empty() { String::new() } else { format!(", or what it copies from {}", from.join(", ")) };
            reasons.push(format!("what it does changed{from}"));
        }
        (State::Run, reasons)
    }

    /// A stage with the key that status has.
    async fn unchanged(&mut self, stage: &StagePlan, last: &StageStatus) -> (State, Vec<String>) {
        match last.state {
            StageState::Cached | StageState::Built => {}
            StageState::Failed => {
                let message = last.message.clone().unwrap_or_default();
                return (State::Run, vec![format!("it failed: {message}")]);
            }
            StageState::Pending | StageState::Waiting | StageState::Running | StageState::Skipped => {
                return (State::Run, vec!["it is not done yet".to_owned()]);
            }
        }
        let digest = last.artifact_digest.as_ref().and_then(|digest| digest.parse().ok());
        if let (Some(cache), Some(digest)) = (&self.cache, digest)
            && let Ok((artifact, _)) = cache.read(digest).await
        {
            self.artifacts.insert(stage.name.clone(), artifact);
            return (State::Cached, Vec::new());
        }
        (State::Cached, vec!["by status; its artifact cannot be read from here".to_owned()])
    }

    /// How many of the first steps a snapshot has done, of those that copy nothing from the source: what it holds is not known
    /// from here.
    async fn in_snapshot(&self, stage: &StagePlan, recipe: &Recipe) -> usize {
        let cuts = self.planned.plan.snapshots(stage).cuts.into_iter().rev();
        for cut in cuts.filter(|cut| !recipe.takes_source_before(*cut)) {
            let found = self.snapshot(&recipe.snapshot_key(cut, None)).await;
            if found.is_some_and(|snapshot| snapshot.is_fresh(self.world.now, self.world.outline.snapshots.max_age)) {
                return cut;
            }
        }
        0
    }

    /// Who signed for it only the operator can tell.
    async fn snapshot(&self, key: &Key) -> Option<Snapshot> {
        let record = self.world.outline.cache.tagged(&key.tag()).ok()?;
        let record = self.world.client().await.ok()?.manifest(&record).await.ok()??;
        let image = claimed(&record.bytes)?.artifact;
        Some(self.cache.as_ref()?.snapshot_image(image).await.ok()??.0)
    }

    async fn has_record(&self, key: &Key) -> bool {
        let Ok(record) = self.world.outline.cache.tagged(&key.tag()) else { return false };
        match self.world.client().await {
            Ok(client) => client.head_at_origin(&record).await.is_ok_and(|found| found.is_some()),
            Err(_) => false,
        }
    }

    /// What of a stage is not as status has it.
    fn reasons(&self, stage: &StagePlan, last: Option<&StageStatus>) -> Vec<String> {
        let Some(last) = last.filter(|last| last.state != StageState::Skipped) else {
            return vec!["never built".to_owned()];
        };
        let mut found = Vec::new();
        let image = stage.image.as_ref().and_then(|reference| self.pinned(reference));
        if image.is_some() && image != last.image {
            found.push("builder image moved".to_owned());
        }
        let built = self.status.last_build.as_ref();
        let generation = self.resource.metadata.generation.unwrap_or_default();
        if let Some(build) = built.filter(|build| build.generation != generation) {
            found.push(format!("the spec is at generation {generation}, was at {}", build.generation));
        }
        found
    }

    /// Whether what a stage may read of the source is at another revision than it was.
    fn source_moved(&self, stage: &StagePlan) -> Option<String> {
        let now = self.planned.pins.revision.as_ref().filter(|_| stage.uses_source())?;
        let then = self.status.last_build.as_ref()?.revision.as_ref().filter(|then| *then != now)?;
        Some(format!("source is at {}, was at {}", short(now), short(then)))
    }

    /// A reference as status writes it.
    fn pinned(&self, reference: &Reference) -> Option<String> {
        let image = self.planned.images.get(&reference.to_string())?;
        Some(format!("{}@{}", reference.repository(), image.digest))
    }

    fn report(mut self) -> anyhow::Result<Report> {
        let plan = &self.planned.plan;
        self.lines.extend(plan.skipped.iter().map(|name| StageLine::skipped(name)));
        let now = self.world.now;
        let generation = self.resource.metadata.generation.unwrap_or_default();
        let tags = self.world.outline.expanded_tags(&self.planned.pins, generation, now);
        let tags =
            tags.map_err(|problems| anyhow!("{}", problems.iter().map(ToString::to_string).collect::<String>()))?;
        let last = self.status.last_build.as_ref();
        let same = inputs(&self.resource.spec, &self.planned.pins).to_string();
        let done = last.is_some_and(|last| last.succeeded && last.inputs == same);
        let built = self.status.image.as_ref().and_then(|image| image.digest.parse().ok());
        let base = plan.base.as_ref();
        let moved = base.and_then(|base| self.pinned(base))
            != self.status.base.as_ref().and_then(|base| base.reference.clone());
        let reason = match (done, last) {
            (true, _) => "as built last",
            (false, None) => "not built yet",
            (false, Some(_)) if base.is_some() && moved => "would be put together anew: base image moved",
            (false, Some(_)) => "would be put together anew",
        };
        let digest = |stage: &str, output: usize| Some(self.artifacts.get(stage)?.layers.get(output)?.digest);
        Ok(Report {
            base: plan.base_name(),
            base_digest: base.and_then(|base| self.planned.pins.images.get(base).copied()),
            layers: report::layers(plan, digest),
            destination: tags.iter().map(ToString::to_string).collect(),
            stages: self.lines,
            image: built.filter(|_| done),
            image_reason: reason.to_owned(),
            image_changes: !done,
        })
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
