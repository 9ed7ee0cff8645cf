//! What is built: the plan of the file, or of the Dockerfile that it names, once that and its images' configs are read.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, anyhow};

use super::{resource::FLAGS, world::World};
use crate::{
    domain::{
        git::GitRef,
        image::RuntimeConfig,
        plan::{DockerfileError, DockerfilePlan, Draft, GitTarget, Pins, Plan, SourceKind},
        value::Reference,
    },
    shell::{
        source::{self, read_file},
        store::Resolved,
    },
};

/// A plan with all its names resolved.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What it is built with.
    pub pins: Pins,
    /// What its images are, by reference.
    pub images: BTreeMap<String, Resolved>,
}

/// Completes and resolves `draft`.
///
/// # Errors
/// When the source or an image cannot be had, or the Dockerfile cannot be built.
pub async fn planned(world: &Arc<World>, draft: Draft) -> anyhow::Result<Planned> {
    let packages = async {
        match draft.packages() {
            Some(base) => world.packages(base).await.map(Some),
            None => Ok(None),
        }
    };
    let (planned, set) = futures::future::try_join(without_packages(world, &draft), packages).await?;
    let Some(set) = set else { return Ok(planned) };
    let pins = Pins { packages: Some(set.digest()), ..planned.pins };
    Ok(Planned { pins, plan: planned.plan.with_packages(&set), ..planned })
}

/// The same but for the packages of the image.
async fn without_packages(world: &Arc<World>, draft: &Draft) -> anyhow::Result<Planned> {
    let draft = match draft {
        Draft::Complete(plan) => {
            let references = world.images.get_or_init(|| plan.images());
            let place = |image: &Reference| plan.place_of(image);
            let found = resolved(world, references, &place);
            let (revision, found) = futures::future::try_join(revision(world), found).await?;
            return Ok(Planned::new(plan.as_ref().clone(), revision, found));
        }
        Draft::Dockerfile(draft) => draft,
    };
    let revision = revision(world).await?;
    let texts = texts(world, draft, revision.as_deref()).await?;
    let told = |error| in_flags(world, &error);
    let open = draft.open(&texts).map_err(told)?;
    let references = world.images.get_or_init(|| open.images());
    let found = resolved(world, references, &|image| open.place_of(image)).await?;
    let mut configs = BTreeMap::new();
    for (reference, image) in &found {
        configs.insert(reference.clone(), RuntimeConfig::parse(&world.blob(image.config)?));
    }
    Ok(Planned::new(open.plan(&configs).map_err(told)?, revision, found))
}

/// A Dockerfile on the command line has flags for what the spec says otherwise.
fn in_flags(world: &World, error: &DockerfileError) -> anyhow::Error {
    let text = error.to_string();
    if world.args.input.dockerfile.is_none() {
        return anyhow!(text);
    }
    anyhow!(FLAGS.iter().fold(text, |text, (field, flag)| text.replace(field, flag)))
}

impl Planned {
    fn new(plan: Plan, revision: Option<String>, found: Vec<(Reference, Resolved)>) -> Self {
        let images = found.iter().map(|(reference, found)| (reference.clone(), found.manifest)).collect();
        let resolved = found.into_iter().map(|(reference, found)| (reference.to_string(), found)).collect();
        Self { plan, pins: Pins { revision, images, ..Pins::default() }, images: resolved }
    }
}

/// What `references` point to; `place` says where one is named.
async fn resolved(
    world: &World,
    references: &[Reference],
    place: &dyn Fn(&Reference) -> String,
) -> anyhow::Result<Vec<(Reference, Resolved)>> {
    let resolve = async |reference: &Reference| {
        let found = world.resolve(reference).await;
        let found = found.with_context(|| format!("{}: failed to resolve {reference}", place(reference)))?;
        anyhow::Ok((reference.clone(), found))
    };
    futures::future::try_join_all(references.iter().map(resolve)).await
}

async fn revision(world: &World) -> anyhow::Result<Option<String>> {
    let Some(source) = world.outline.source.as_ref().filter(|_| world.context.is_none()) else { return Ok(None) };
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

/// The Dockerfile and what belongs to it. One named on the command line may be outside of the context.
async fn texts(
    world: &Arc<World>,
    draft: &DockerfilePlan,
    revision: Option<&str>,
) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let paths = draft.paths();
    let Some(task) = world.source_task(revision).filter(|_| !paths.is_empty()) else { return Ok(BTreeMap::new()) };
    let root = world.source(&task).await.map_err(|failure| anyhow!(failure.message))?;
    let read = |path: String| {
        let beside = world.args.input.dockerfile.as_ref().filter(|file| path.starts_with(&*file.to_string_lossy()));
        let content = match beside {
            Some(_) => read_file(Path::new("/"), &std::path::absolute(&path)?.to_string_lossy()),
            None => read_file(&root, &path),
        };
        let text = content?.map(String::from_utf8).transpose().with_context(|| format!("{path} is not UTF-8 text"))?;
        anyhow::Ok((path, text))
    };
    paths.into_iter().map(read).collect()
}
