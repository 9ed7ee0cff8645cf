//! `build`: the operator's work on this machine: the same plan, stages in sandboxes, the same image.

mod backend;
mod images;
mod login;
mod output;
mod progress;
mod stage;
mod summary;
mod world;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;

pub(super) use login::keychain;
use output::Finished;
use stage::{Done, StageJob};
use summary::Summary;
pub(super) use summary::columns;
use world::{World, blocking};

use crate::{
    api::v1alpha1::{InlineSource, MinimalImageSpec, Source},
    cli::BuildArgs,
    domain::{
        artifact::{Artifact, OutputReport},
        files_layer,
        git::GitRef,
        image::{self, BaseImage, SourcedLayer},
        plan::{Draft, GitTarget, LayerPlan, Pins, Plan, Problem, SourceKind, StagePlan},
        resource_file,
    },
    shell::{
        sandbox::{Request, Session},
        signals::Termination,
        source,
        store::{BuiltImage, Resolved, Store},
    },
};

/// The file that is built when none is named.
const FILE: &str = "minimalimage.yaml";
/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Builds, writes and prints what was asked for; gives the exit code.
///
/// # Errors
/// When the file cannot be used, a stage fails, or a registry or the disk does not do its part.
pub async fn run(args: BuildArgs) -> anyhow::Result<u8> {
    let mut termination = Termination::new().context("failed to listen for signals")?;
    let world = Arc::new(world(args)?);
    let mut work = std::pin::pin!(build(&world));
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

fn world(args: BuildArgs) -> anyhow::Result<World> {
    let context = match &args.context {
        Some(path) => {
            let found = path.canonicalize().with_context(|| format!("failed to find {}", path.display()))?;
            anyhow::ensure!(found.is_dir(), "{} is not a directory", path.display());
            Some(found)
        }
        None => None,
    };
    let file = file(&args);
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let resource = resource_file::parse(&text).with_context(|| format!("unable to use {}", file.display()))?;
    let mut spec = resource.spec;
    let nameless = if context.is_some() { with_context(&mut spec) } else { Vec::new() };
    let draft = Draft::new(&spec).map_err(|problems| refused(&file, &problems))?;
    let plan = draft.complete().context("Dockerfiles are built on a cluster only, for now")?;
    check(&plan, context.is_some()).with_context(|| format!("unable to build {} here", file.display()))?;
    let store = Store::open(args.store.clone())?;
    let world = World::new(args, plan, context, store);
    for tag in nameless {
        world.progress.warn(&format!("the tag {tag} is left out: CONTEXT is files, not a commit"));
    }
    Ok(world)
}

fn file(args: &BuildArgs) -> PathBuf {
    let in_context = || args.context.as_ref().map(|context| context.join(FILE)).filter(|path| path.exists());
    args.file.clone().or_else(in_context).unwrap_or_else(|| FILE.into())
}

/// A directory takes the place of any source. Gives the tags that are left out: nobody can say of a directory which
/// commit it is, files may have been changed since.
fn with_context(spec: &mut MinimalImageSpec) -> Vec<String> {
    let inline = InlineSource { files: Vec::new() };
    spec.source = Some(Source { inline: Some(inline), ..Source::default() });
    let of_a_commit = |tag: &mut String| tag.contains("$(commit)") || tag.contains("$(commitShort)");
    spec.destination.tags.extract_if(.., of_a_commit).collect()
}

fn refused(file: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(|problem| format!("  {problem}")).collect();
    anyhow::anyhow!("unable to use {}:\n{}", file.display(), lines.join("\n"))
}

/// What a cluster has and this machine lacks.
fn check(plan: &Plan, has_context: bool) -> anyhow::Result<()> {
    if let (false, Some(SourceKind::ConfigMap { name })) =
        (has_context, plan.outline.source.as_ref().map(|source| &source.kind))
    {
        bail!(
            "its source is the ConfigMap {name}, which only a cluster has: give a directory with its files as CONTEXT"
        );
    }
    let here = images::this_machine();
    if here.rank(&plan.outline.platform).is_none() && plan.stages.iter().any(|stage| stage.image.is_some()) {
        bail!("its stages run on {}, and this machine is {here}", plan.outline.platform);
    }
    let variables = plan.stages.iter().filter_map(|stage| stage.settings.as_ref()).flat_map(|stage| &stage.env);
    let missing: Vec<&str> = variables
        .filter(|variable| variable.value_from.is_some() && std::env::var_os(&variable.name).is_none())
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

async fn build(world: &Arc<World>) -> anyhow::Result<Summary> {
    let store = world.store.clone();
    let _hold = blocking(move || store.in_use()).await?;
    clean(world).await?;
    let (pins, images) = until_stopped(world, pins(world)).await?;
    let tags = world.plan.outline.expanded_tags(&pins, 0, world.now).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("; "))
    })?;
    let done = stages(world, &pins).await?;
    let artifacts: BTreeMap<&str, &Artifact> = done.iter().map(|done| (done.stage.as_str(), &done.artifact)).collect();
    let (layers, reports) = layers(world, &artifacts)?;
    let base = base(world, &images)?;
    let image = image::assemble(base.as_ref(), &layers, &world.plan.image, &world.plan.outline.platform)?;
    world.store.write(&image.config)?;
    world.store.write(&image.manifest)?;
    let finished = Finished { image, layers, tags };
    let summary = Summary::new(world, &finished, &reports, &images, &done);
    for tag in &finished.tags {
        world.store.add_image(&BuiltImage {
            repository: world.plan.outline.repository.to_string(),
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

/// Resolves the source and all images.
async fn pins(world: &World) -> anyhow::Result<(Pins, BTreeMap<String, Resolved>)> {
    let resolve = async |reference: &crate::domain::value::Reference| {
        let found = world.resolve(reference).await.with_context(|| format!("failed to resolve {reference}"))?;
        anyhow::Ok((reference.clone(), found))
    };
    let references = world.plan.images();
    let found = futures::future::try_join_all(references.iter().map(resolve));
    let (revision, found) = futures::future::try_join(revision(world), found).await?;
    let images = found.iter().map(|(reference, found)| (reference.clone(), found.digest)).collect();
    let resolved = found.into_iter().map(|(reference, found)| (reference.to_string(), found)).collect();
    Ok((Pins { revision, images }, resolved))
}

async fn revision(world: &World) -> anyhow::Result<Option<String>> {
    let Some(source) = world.plan.outline.source.as_ref().filter(|_| world.context.is_none()) else { return Ok(None) };
    let SourceKind::Git { url, target, .. } = &source.kind else { return Ok(source.pinned_revision()) };
    let reference = match target {
        GitTarget::Commit(commit) => return Ok(Some(commit.clone())),
        GitTarget::Head => GitRef::Head,
        GitTarget::Branch(name) => GitRef::Branch(name.parse()?),
        GitTarget::Tag(name) => GitRef::Tag(name.parse()?),
    };
    let commit = source::resolve(&world.http().await?, url, &reference, None).await;
    Ok(Some(commit.with_context(|| format!("failed to look up {url}"))?.to_string()))
}

/// Runs all stages, each as soon as what it copies from is there.
async fn stages(world: &Arc<World>, pins: &Pins) -> anyhow::Result<Vec<Done>> {
    let mut waiting: Vec<StagePlan> = world.plan.stages.clone();
    let mut artifacts: BTreeMap<String, Artifact> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    loop {
        let mut later = Vec::new();
        for stage in waiting {
            let inputs =
                stage.inputs.iter().map(|input| artifacts.get(&input.stage)?.layers.get(input.output).cloned());
            match (world.plan.recipe(&stage, pins, &artifacts), inputs.collect()) {
                (Some(recipe), Some(inputs)) => {
                    let (world, pins) = (Arc::clone(world), pins.clone());
                    running.spawn(StageJob { world, stage, recipe, inputs, pins }.run());
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

/// The image's own layers, in the store, and what they hold.
fn layers(
    world: &World,
    artifacts: &BTreeMap<&str, &Artifact>,
) -> anyhow::Result<(Vec<SourcedLayer>, Vec<OutputReport>)> {
    let (mut layers, mut reports) = (Vec::new(), Vec::new());
    for layer in &world.plan.layers {
        let (layer, report, from) = match layer {
            LayerPlan::Artifact(from) => {
                let artifact = artifacts.get(from.stage.as_str()).context("a stage has no artifact")?;
                let found = artifact.layers.get(from.output).zip(artifact.outputs.get(from.output));
                let (layer, report) = found.context("an artifact lacks a layer")?;
                (layer.clone(), report.clone(), from.stage.clone())
            }
            LayerPlan::Files(files) => {
                let packed = files_layer::pack_files(files, world.plan.base.is_some()).context("spec.image.files")?;
                world.store.write(&packed.bytes)?;
                (packed.layer, packed.report, "files".to_owned())
            }
        };
        layers.push(SourcedLayer { layer, from });
        reports.push(report);
    }
    Ok((layers, reports))
}

fn base(world: &World, images: &BTreeMap<String, Resolved>) -> anyhow::Result<Option<BaseImage>> {
    let Some(reference) = &world.plan.base else { return Ok(None) };
    let image = images.get(&reference.to_string()).context("the base was not resolved")?;
    Ok(Some(BaseImage {
        reference: reference.clone(),
        digest: image.digest,
        manifest: world.blob(image.manifest)?.to_vec(),
        config: world.blob(image.config)?.to_vec(),
    }))
}
