//! `build`: the operator's work on this machine: the same plan, stages in sandboxes, the same image.

mod backend;
mod images;
mod inputs;
mod login;
mod output;
mod packages;
mod planned;
mod preflight;
mod progress;
mod resource;
mod stage;
mod summary;
mod world;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

pub(super) use inputs::listing;
pub(super) use login::keychain;
use output::Finished;
pub(super) use planned::{Planned, planned};
use stage::{Done, StageJob};
use summary::Summary;
pub(super) use summary::columns;
pub(super) use world::World;
use world::blocking;

use crate::{
    api::v1alpha1::MinimalImageSpec,
    cli::BuildArgs,
    domain::{
        artifact::{Artifact, OutputReport},
        debug, files_layer,
        image::{self, BaseImage, Image, SourcedLayer},
        include,
        plan::{BASE_STAGE, Draft, LayerPlan, Pins, Plan, Problem, SourceKind, StagePlan},
        preflight::FileIndex,
    },
    shell::{
        sandbox::{Request, Session},
        signals::Termination,
        store::{BuiltImage, Resolved, Store},
    },
};

/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Builds, writes and prints what was asked for; gives the exit code.
///
/// # Errors
/// When the file cannot be used, a stage fails, or a registry or the disk does not do its part.
pub async fn run(args: BuildArgs) -> anyhow::Result<u8> {
    let mut termination = Termination::new().context("failed to listen for signals")?;
    let (world, draft) = world(args, true)?;
    let mut work = std::pin::pin!(build(&world, draft));
    let result = tokio::select! {
        result = &mut work => Some(result),
        () = termination.requested() => {
            world.stop.cancel();
            // It ends now, after what it started has ended; a second signal does not wait for that.
            tokio::select! { _ = &mut work => {}, () = termination.requested() => {} }
            None
        }
    };
    // What ended early could not clean up after itself.
    clean(&world).await?;
    let Some(summary) = result.transpose()? else { return Ok(INTERRUPTED) };
    summary.print(&world.args)?;
    Ok(0)
}

/// What is built and where; without `secrets` no stage can be run.
pub(super) fn world(mut args: BuildArgs, secrets: bool) -> anyhow::Result<(Arc<World>, Draft)> {
    let context = match &args.input.context {
        Some(path) => {
            let found = path.canonicalize().with_context(|| format!("failed to find {}", path.display()))?;
            anyhow::ensure!(found.is_dir(), "{} is not a directory", path.display());
            Some(found)
        }
        None => None,
    };
    let (file, mut spec) = resource::spec(&mut args.input)?;
    if let Some(preflight) = args.preflight {
        spec.preflight = preflight;
    }
    // It is made for its registry alone.
    spec.image.debug &= args.push;
    let nowhere = args.input.dockerfile.is_some() && args.input.tag.is_empty();
    anyhow::ensure!(!(args.push && nowhere), "--push needs --tag REGISTRY/NAME:TAG, which says where to");
    let hidden = context.is_some() && spec.source.as_ref().is_some_and(|source| source.inline.is_some());
    let nameless = if context.is_some() { resource::with_context(&mut spec) } else { Vec::new() };
    let draft = draft(&file, &spec)?;
    if let (None, Some(SourceKind::ConfigMap { name })) =
        (&context, draft.outline().source.as_ref().map(|source| &source.kind))
    {
        bail!(
            "its source is the ConfigMap {name}, which only a cluster has: give a directory with its files as CONTEXT"
        );
    }
    let secrets = if secrets { resource::secrets(&args.input, spec.dockerfile.as_ref())? } else { BTreeMap::new() };
    let store = Store::open(args.input.store.clone())?;
    let certificates = resource::certificates(&args.input, &spec)?;
    let world = World::new(args, (draft.outline().clone(), secrets, certificates), context, store);
    if hidden {
        let words =
            "the files of spec.source.inline are not used: CONTEXT takes their place; leave it out to build them";
        world.progress.warn(words);
    }
    for tag in nameless {
        world.progress.warn(&format!("the tag {tag} is left out: CONTEXT is files, not a commit"));
    }
    Ok((Arc::new(world), draft))
}

/// The spec's draft; `file` is for the message that it cannot be used.
pub(super) fn draft(file: &Path, spec: &MinimalImageSpec) -> anyhow::Result<Draft> {
    Draft::new(spec).map_err(|problems| refused(file, &problems))
}

fn refused(file: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(|problem| format!("  {problem}")).collect();
    anyhow::anyhow!("unable to use {}:\n{}", file.display(), lines.join("\n"))
}

/// What a cluster has and this machine lacks.
fn check(world: &World, plan: &Plan) -> anyhow::Result<()> {
    let here = images::this_machine();
    let platform = &world.outline.platform;
    if here.rank(platform).is_none() && plan.stages.iter().any(|stage| stage.image.is_some()) {
        bail!("its stages run on {platform}, and this machine is {here}");
    }
    let variables = plan.stages.iter().filter_map(|stage| stage.settings.as_ref()).flat_map(|stage| &stage.env);
    let missing: Vec<&str> = variables
        .filter(|variable| variable.value_from.is_some() && world.variable(&variable.name).is_none())
        .map(|variable| variable.name.as_str())
        .collect();
    if !missing.is_empty() {
        bail!(
            "the values of these variables are in Secrets or ConfigMaps, which only a cluster has: set them in the \
             environment: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

async fn build(world: &Arc<World>, draft: Draft) -> anyhow::Result<Summary> {
    let store = world.store.clone();
    let _hold = blocking(move || store.in_use()).await?;
    clean(world).await?;
    let Planned { plan, pins, images } = until_stopped(world, Box::pin(planned(world, draft))).await?;
    check(world, &plan).context("unable to build this here")?;
    plan.warnings.iter().for_each(|warning| world.progress.warn(warning));
    let tags = world.outline.expanded_tags(&pins, 0, world.now).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("; "))
    })?;
    let done = stages(world, &plan, &pins).await?;
    world.remember(&done, &pins).await;
    let artifacts: BTreeMap<&str, &Artifact> = done.iter().map(|done| (done.stage.as_str(), &done.artifact)).collect();
    let Assembled { image, layers, reports, debug } =
        until_stopped(world, assemble(world, &plan, &artifacts, &images)).await?;
    world.store.write(&image.config)?;
    world.store.write(&image.manifest)?;
    let base = plan.base.as_ref().map(|base| base.repository().clone());
    let finished = Finished { image, base, layers, tags, debug };
    until_stopped(world, world.preflight(&plan, &finished)).await?;
    let summary = Summary::new((world, &plan), &finished, &reports, &images, &done);
    for tag in &finished.tags {
        world.store.add_image(&BuiltImage {
            repository: world.outline.repository.to_string(),
            tag: tag.tag().unwrap_or_default().to_owned(),
            digest: finished.image.digest,
            created: world.now.as_second(),
            size: summary.size,
            compressed_size: summary.compressed_size,
            base: summary.base.clone(),
        })?;
    }
    world.write_outputs(&finished).await?;
    if world.args.push {
        until_stopped(world, world.push(&finished)).await.context("failed to push")?;
    }
    for rest in done.into_iter().filter_map(|done| done.rest) {
        let _ = rest.await;
    }
    Ok(summary)
}

/// Work that nothing is lost by ending anywhere.
async fn until_stopped<T>(world: &World, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        result = work => result,
        () = world.stop.cancelled() => bail!("the build was stopped"),
    }
}

/// Removes what builds left that were killed.
async fn clean(world: &World) -> anyhow::Result<()> {
    let paths = world.store.abandoned();
    if !paths.is_empty() {
        Session::start(&Request::Remove { paths }).await?.finish().await.context("failed to remove leftovers")?;
        drop(world.store.abandoned());
    }
    Ok(())
}

/// Runs all stages, each as soon as what it copies from is there.
async fn stages(world: &Arc<World>, plan: &Plan, pins: &Pins) -> anyhow::Result<Vec<Done>> {
    let mut waiting: Vec<StagePlan> = plan.stages.clone();
    let mut artifacts: BTreeMap<String, Artifact> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    loop {
        let mut later = Vec::new();
        for stage in waiting {
            let inputs =
                stage.inputs.iter().map(|input| artifacts.get(&input.stage)?.layers.get(input.output).cloned());
            match (plan.recipe(&stage, pins, &artifacts), inputs.collect()) {
                (Some(recipe), Some(inputs)) => {
                    let (world, pins) = (Arc::clone(world), pins.clone());
                    let snapshots = plan.snapshots(&stage);
                    let caches = plan.cache_keys(&stage, "");
                    running.spawn(StageJob { world, stage, recipe, inputs, pins, snapshots, caches }.run());
                }
                _ => later.push(stage),
            }
        }
        waiting = later;
        let Some(ended) = running.join_next().await else { break };
        match ended.context("a stage's task ended early")? {
            Ok(stage) => {
                artifacts.insert(stage.stage.clone(), stage.artifact.clone());
                done.push(stage);
            }
            Err(error) => {
                // The others end in order, and leave nothing.
                world.stop.cancel();
                while running.join_next().await.is_some() {}
                return Err(error);
            }
        }
    }
    anyhow::ensure!(waiting.is_empty(), "stages are left whose inputs never came");
    Ok(done)
}

/// An image put together, with what its own layers hold.
pub(super) struct Assembled {
    /// The image.
    pub image: Image,
    /// Its own layers, in the store.
    pub layers: Vec<SourcedLayer>,
    /// What they hold.
    pub reports: Vec<OutputReport>,
    /// The debug image, and the layer that makes it.
    pub debug: Option<(Image, SourcedLayer)>,
}

/// Puts the image together.
pub(super) async fn assemble(
    world: &World,
    plan: &Plan,
    artifacts: &BTreeMap<&str, &Artifact>,
    images: &BTreeMap<String, Resolved>,
) -> anyhow::Result<Assembled> {
    let base = base(world, plan, images)?;
    let packages = artifacts.get(BASE_STAGE).and_then(|artifact| artifact.layers.first()).filter(|_| plan.composed());
    let below = world.files_below(plan, base.as_ref(), packages).await?;
    let (layers, reports) = layers(world, plan, artifacts, &below)?;
    let (base, platform) = (base.as_ref(), &world.outline.platform);
    let image = image::assemble(base, &layers, &plan.image, platform)?;
    let debug = match plan.debug() {
        Some(from) => {
            let tools = artifacts.get(from.stage.as_str()).and_then(|artifact| artifact.layers.get(from.output));
            let tools = debug::tools(tools.context("an artifact lacks a layer")?.clone());
            Some((debug::image(base, (&image, &layers), &tools, &plan.image, platform)?, tools))
        }
        None => None,
    };
    Ok(Assembled { image, layers, reports, debug })
}

/// The image's own layers, in the store, and what they hold.
fn layers(
    world: &World,
    plan: &Plan,
    artifacts: &BTreeMap<&str, &Artifact>,
    below: &FileIndex,
) -> anyhow::Result<(Vec<SourcedLayer>, Vec<OutputReport>)> {
    let (mut layers, mut reports) = (Vec::new(), Vec::new());
    for layer in &plan.layers {
        let (layer, report, from) = match layer {
            LayerPlan::Artifact(from) => {
                let artifact = artifacts.get(from.stage.as_str()).context("a stage has no artifact")?;
                let found = artifact.layers.get(from.output).zip(artifact.outputs.get(from.output));
                let (layer, report) = found.context("an artifact lacks a layer")?;
                (layer.clone(), report.clone(), from.origin())
            }
            LayerPlan::Files(files) => {
                let packed = files_layer::pack_files(files, plan.has_base()).context("spec.image.files")?;
                world.store.write(&packed.bytes)?;
                (packed.layer, packed.report, "files".to_owned())
            }
            LayerPlan::Include(wanted) => {
                let packed = include::layer(*wanted, world.certificates.as_deref(), below, plan.has_base());
                let packed = packed.map_err(|error| anyhow::anyhow!("spec.{}: {error}", error.field()))?;
                let Some(packed) = packed else { continue };
                world.store.write(&packed.bytes)?;
                (packed.layer, packed.report, "include".to_owned())
            }
        };
        layers.push(SourcedLayer { layer, from });
        reports.push(report);
    }
    Ok((layers, reports))
}

fn base(world: &World, plan: &Plan, images: &BTreeMap<String, Resolved>) -> anyhow::Result<Option<BaseImage>> {
    let Some(reference) = &plan.base else { return Ok(None) };
    let image = images.get(&reference.to_string()).context("the base was not resolved")?;
    Ok(Some(BaseImage {
        reference: reference.clone(),
        digest: image.digest,
        manifest: world.blob(image.manifest)?.to_vec(),
        config: world.blob(image.config)?.to_vec(),
    }))
}
