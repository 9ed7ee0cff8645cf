//! The spec read: what it says by itself, and all that is wrong with it.

use std::time::Duration;

use crate::{
    api::v1alpha1::{DockerfileSpec, ImageSpec, MinimalImageSpec, PodSecurity},
    domain::{
        debug,
        image::ImageConfig,
        recipe::{Owner, TextFile},
        snapshot::Keeping,
        value::{ImagePath, Repository},
    },
};

use super::{
    DockerfilePlan, Draft, Outline, Plan, Problems, SourcePlan,
    base::{self, Start},
    sources, stages,
};

pub(super) fn draft(spec: &MinimalImageSpec, problems: &mut Problems) -> Option<Draft> {
    let source = spec.source.as_ref().and_then(|source| sources::plan(source, problems));
    let platform = spec.platforms.first().map_or("linux/amd64", String::as_str).parse();
    let platform = problems.take("platforms[0]", platform);
    let interval = duration(problems, "interval", &spec.interval);
    let base = base::plan(&spec.image, platform.as_ref(), problems);
    let repository = repository(&spec.destination.repository, problems);
    let cache = match &spec.cache {
        Some(cache) => problems.take("cache.repository", cache.repository.parse()),
        None => repository.as_ref().map(|repository| repository.with_suffix("-cache")),
    };
    check_tags(spec, (source.as_ref(), repository.as_ref()), problems);
    let clash = debug::clash(spec.destination.tags.iter().map(String::as_str)).filter(|_| spec.image.debug);
    if let Some((index, message)) = clash {
        problems.add(format!("destination.tags[{index}]"), message);
    }
    check_image(&spec.image, problems);
    let default = if spec.dockerfile.is_some() { PodSecurity::Baseline } else { PodSecurity::Restricted };
    let pod_security = spec.pod_security.unwrap_or(default);
    let front = front(spec, pod_security, base, problems);
    let moves = source.as_ref().is_some_and(|source| source.pinned_revision().is_none());
    let outline = Outline {
        source,
        platform: platform?,
        repository: repository?,
        tags: spec.destination.tags.clone(),
        cache: cache?,
        pod_security,
        snapshots: keeping(spec, problems)?,
        preflight: spec.preflight,
        debug: spec.image.debug,
        interval: interval?,
        can_change: moves || !spec.image.certificates.is_empty(),
        is_watched: false,
    };
    Some(front?.with(outline))
}

/// The part of a draft that differs between the two ways to give stages.
enum Front {
    Stages { graph: stages::Graph, base: Box<Start>, image: ImageConfig },
    Dockerfile { spec: Box<DockerfileSpec>, base: Box<Start>, image: ImageConfig, files: Vec<TextFile> },
}

impl Front {
    fn with(self, outline: Outline) -> Draft {
        match self {
            Self::Stages { graph: stages::Graph { stages, skipped, layers }, base, image } => {
                let Start { image: base, packages, .. } = *base;
                let mut plan = Plan { outline, stages, skipped, base, packages, layers, image, warnings: Vec::new() };
                let moves = plan.packages.as_ref().is_some_and(|packages| !packages.frozen);
                plan.outline.can_change |= moves || plan.images().iter().any(|image| image.digest().is_none());
                plan.outline.is_watched =
                    plan.base.as_ref().is_some_and(|base| base.tag().is_some() && base.digest().is_some());
                Draft::Complete(Box::new(plan))
            }
            // Which images a Dockerfile names is not known yet; a look that finds nothing new costs little.
            Self::Dockerfile { spec, base, image, files } => {
                let packages = base.packages;
                let outline = Outline { can_change: true, ..outline };
                Draft::Dockerfile(Box::new(DockerfilePlan { outline, spec: *spec, image, files, packages }))
            }
        }
    }
}

fn front(spec: &MinimalImageSpec, security: PodSecurity, base: Start, problems: &mut Problems) -> Option<Front> {
    let image = ImageConfig::from(&spec.image);
    let has_base = base.has_base();
    let Some(dockerfile) = &spec.dockerfile else {
        let graph = stages::plan(spec, security, &base, problems)?;
        let image = base.below(image);
        return Some(Front::Stages { graph, base: Box::new(base), image });
    };
    if !spec.stages.is_empty() {
        problems.add("dockerfile", "give either stages or dockerfile, not both");
    }
    if spec.source.is_none() && dockerfile.inline.is_none() {
        problems.add("dockerfile", "there is no spec.source that could hold it: give a source, or dockerfile.inline");
    }
    let own =
        ImageConfig { labels: image.labels.clone(), annotations: image.annotations.clone(), ..Default::default() };
    let included = !spec.image.include.is_empty() || !spec.image.certificates.is_empty();
    if image != own || has_base || included || !spec.image.copy.is_empty() {
        problems.add(
            "image",
            "with dockerfile only labels, annotations, files and debug can be given; the rest comes from the Dockerfile",
        );
    }
    if let Some(timeout) = &dockerfile.pod.timeout {
        duration(problems, "dockerfile.pod.timeout", timeout);
    }
    let files = stages::planned_files(&spec.image.files, problems);
    Some(Front::Dockerfile { spec: Box::new(dockerfile.clone()), image, files, base: Box::new(base) })
}

fn keeping(spec: &MinimalImageSpec, problems: &mut Problems) -> Option<Keeping> {
    let Some(given) = spec.dockerfile.as_ref().and_then(|dockerfile| dockerfile.snapshots.as_ref()) else {
        return Some(Keeping::default());
    };
    let max_age = duration(problems, "dockerfile.snapshots.maxAge", &given.max_age)?;
    Some(Keeping { policy: given.policy, max_age })
}

fn repository(text: &str, problems: &mut Problems) -> Option<Repository> {
    let name = text.rsplit('/').next().unwrap_or_default();
    if text.contains('/') && name.contains([':', '@']) {
        let message = "give the repository without a tag or digest; tags belong in destination.tags";
        problems.add("destination.repository", message);
        return None;
    }
    problems.take("destination.repository", text.parse())
}

fn check_tags(
    spec: &MinimalImageSpec,
    (source, repository): (Option<&SourcePlan>, Option<&Repository>),
    problems: &mut Problems,
) {
    for (index, tag) in spec.destination.tags.iter().enumerate() {
        let field = format!("destination.tags[{index}]");
        let mut rest = tag.as_str();
        while let Some((_, after)) = rest.split_once("$(") {
            let Some((name, after)) = after.split_once(')') else {
                problems.add(&field, format!("$({after} has no end, expected $(NAME)"));
                break;
            };
            match name {
                "commit" | "commitShort" if !source.is_some_and(SourcePlan::is_git) => {
                    problems.add(&field, format!("$({name}) needs a git source"));
                }
                "commit" | "commitShort" | "timestamp" | "generation" => {}
                _ => problems.add(
                    &field,
                    format!("$({name}) is unknown, expected $(commit), $(commitShort), $(timestamp) or $(generation)"),
                ),
            }
            rest = after;
        }
        // Values that are as long as they get.
        let known = [("$(commit)", 40), ("$(commitShort)", 12), ("$(timestamp)", 16), ("$(generation)", 10)];
        let example = known.iter().fold(tag.clone(), |tag, (name, length)| tag.replace(name, &"0".repeat(*length)));
        if let Some(repository) = repository.filter(|_| !example.contains("$(")) {
            let tag = problems.take(&field, repository.tagged(&example));
            if let Some(tag) = tag.filter(|_| spec.image.debug) {
                let named = |error| format!("its debug image's tag: {error}; shorten it, or leave image.debug out");
                problems.take(field, debug::tag(&tag).map_err(named));
            }
        }
    }
}

fn check_image(image: &ImageSpec, problems: &mut Problems) {
    if let Some(directory) = &image.working_dir {
        problems.take("image.workingDir", directory.parse::<ImagePath>());
    }
    for (index, volume) in image.volumes.iter().enumerate() {
        problems.take(format!("image.volumes[{index}]"), volume.parse::<ImagePath>());
    }
}

pub(super) fn duration(problems: &mut Problems, field: &str, text: &str) -> Option<Duration> {
    let parsed = text
        .parse::<kube::core::Duration>()
        .map_err(|_| format!("`{text}` is no duration, expected for example 10m or 1h30m"));
    let duration = Duration::from(problems.take(field, parsed)?);
    if duration < Duration::from_secs(1) {
        problems.add(field, format!("`{text}` is too short, expected at least 1s"));
        return None;
    }
    Some(duration)
}

/// Permission bits from their octal text.
pub(super) fn mode(problems: &mut Problems, field: String, text: Option<&str>) -> Option<u32> {
    let parsed = u32::from_str_radix(text?, 8).map_err(|_| "expected octal permission bits, for example \"0755\"");
    problems.take(field, parsed)
}

/// Numeric owner from `uid[:gid]`; the group is the user's number when it is left out, as in COPY --chown.
pub(super) fn owner(problems: &mut Problems, field: String, text: Option<&str>) -> Owner {
    let Some(text) = text else { return Owner::default() };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Owner { uid, gid },
        _ => {
            problems.add(field, format!("`{text}` is no numeric owner, expected for example \"65532:65532\""));
            Owner::default()
        }
    }
}
