//! The plan: a spec, parsed and checked once. It is the only place that refuses a spec; what follows can rely on it.

mod copies;
mod sources;
mod stages;

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;

use crate::api::v1alpha1::{ImageSpec, MinimalImageSpec, PodSecurity, Stage};

use super::{
    artifact::Artifact,
    recipe::{FORMAT, Output, Owner, Recipe, Step},
    value::{Digest, ImagePath, Platform, Reference, Repository},
};

pub use sources::{GitTarget, SourceKind, SourcePlan};

/// Name of the stage that stands for the source: it has no builder image.
pub const SOURCE_STAGE: &str = "source";
/// The user that stages run as under [`PodSecurity::Restricted`].
pub const RESTRICTED_USER: u32 = 65532;
/// Where a stage's user code works by default.
pub const WORKSPACE: &str = "/workspace";
/// Home directory of the user of a restricted stage.
pub const HOME: &str = "/home/build";
/// The directories that a restricted stage can write to.
pub const WRITABLE: [&str; 3] = [WORKSPACE, "/tmp", HOME];

/// A spec whose every value is parsed and whose references all lead somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where files come from.
    pub source: Option<SourcePlan>,
    /// What the image is for.
    pub platform: Platform,
    /// The stages that the image needs, each after those that it copies from.
    pub stages: Vec<StagePlan>,
    /// Names of stages that nothing needs.
    pub skipped: Vec<String>,
    /// The image that the final image starts from; none for scratch.
    pub base: Option<Reference>,
    /// The final image's layers on top of its base, lowest first.
    pub layers: Vec<LayerPlan>,
    /// What the final image's config says.
    pub image: ImageSpec,
    /// Where the image goes.
    pub repository: Repository,
    /// Tags with their variables not yet replaced.
    pub tags: Vec<String>,
    /// Where artifacts are kept.
    pub cache: Repository,
    /// Under which standard Pods run.
    pub pod_security: PodSecurity,
    /// How often tags and branches are looked at.
    pub interval: Duration,
}

/// One stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Its name; [`SOURCE_STAGE`] for the one without a builder image.
    pub name: String,
    /// Its builder image.
    pub image: Option<Reference>,
    /// What is done.
    pub steps: Vec<Step>,
    /// The layers that `Step::CopyArtifact` names by index: a stage's output.
    pub inputs: Vec<OutputReference>,
    /// What leaves it.
    pub outputs: Vec<Output>,
    /// How its Pod is set up; none for the source stage.
    pub settings: Option<Stage>,
    /// How long its Pod may take.
    pub timeout: Duration,
}

/// One output of one stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputReference {
    /// The stage's name.
    pub stage: String,
    /// Index into its outputs.
    pub output: usize,
}

/// One layer of the final image.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerPlan {
    /// A stage's artifact layer, as it is.
    Artifact(OutputReference),
    /// Files given in the spec.
    Files(Vec<PlannedFile>),
}

/// A file given in the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedFile {
    /// Path in the image.
    pub path: ImagePath,
    /// Its bytes.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub owner: Owner,
}

/// A part of the spec that cannot be: where it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as a path from `spec`.
    pub field: String,
    /// What is wrong, what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "spec.{}: {}", self.field, self.message)
    }
}

/// Collects problems, so that several are reported at once.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.0.push(Problem { field: field.into(), message: message.to_string() });
    }

    /// The value, or nothing and one problem more.
    fn take<T, E: fmt::Display>(&mut self, field: impl Into<String>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }
}

/// What a build resolved its names to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    /// The revision of the source.
    pub revision: Option<String>,
    /// Manifest digests of builder and base images, by reference.
    pub images: BTreeMap<Reference, Digest>,
}

impl Plan {
    /// Parses and checks `spec`.
    ///
    /// # Errors
    /// All problems at once, each with its field.
    pub fn new(spec: &MinimalImageSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let plan = build(spec, &mut problems);
        match plan {
            Some(plan) if problems.0.is_empty() => Ok(plan),
            _ => Err(problems.0),
        }
    }

    /// Every image that has to be resolved: builder images and the base, each once.
    #[must_use]
    pub fn images(&self) -> Vec<&Reference> {
        let mut images: Vec<_> = self.stages.iter().filter_map(|stage| stage.image.as_ref()).collect();
        images.extend(&self.base);
        images.sort();
        images.dedup();
        images
    }

    /// Whether a later look could find something newer: a branch, a tag, a ConfigMap.
    #[must_use]
    pub fn can_change(&self) -> bool {
        self.images().iter().any(|image| image.digest().is_none())
            || self.source.as_ref().is_some_and(|source| source.pinned_revision().is_none())
    }

    /// The recipe of `stage`, once its builder is pinned and the artifacts that it copies from are there.
    #[must_use]
    pub fn recipe(&self, stage: &StagePlan, pins: &Pins, artifacts: &BTreeMap<String, Artifact>) -> Option<Recipe> {
        let inputs = stage
            .inputs
            .iter()
            .map(|input| Some(artifacts.get(&input.stage)?.layers.get(input.output)?.diff_id))
            .collect::<Option<Vec<_>>>()?;
        let image = match &stage.image {
            Some(reference) => Some(*pins.images.get(reference)?),
            None => None,
        };
        let user = (self.pod_security == PodSecurity::Restricted).then_some(RESTRICTED_USER);
        let mut env_from: Vec<String> = stage
            .settings
            .iter()
            .flat_map(|settings| &settings.env)
            .filter(|variable| variable.value_from.is_some())
            .map(|variable| variable.name.clone())
            .collect();
        env_from.sort();
        Some(Recipe {
            format: FORMAT,
            platform: self.platform.clone(),
            image,
            user: stage.image.is_some().then_some(user).flatten(),
            env_from,
            inputs,
            steps: stage.steps.clone(),
            outputs: stage.outputs.clone(),
        })
    }

    /// The tags with their variables replaced.
    ///
    /// # Errors
    /// When a tag that results is no legal tag.
    pub fn expanded_tags(
        &self,
        pins: &Pins,
        generation: i64,
        start: Timestamp,
    ) -> Result<Vec<Reference>, Vec<Problem>> {
        let mut problems = Problems::default();
        let commit = pins.revision.clone().unwrap_or_default();
        let short: String = commit.chars().take(12).collect();
        let timestamp = start.strftime("%Y%m%dT%H%M%SZ").to_string();
        let tags = self.tags.iter().enumerate().filter_map(|(index, tag)| {
            let tag = tag
                .replace("$(commit)", &commit)
                .replace("$(commitShort)", &short)
                .replace("$(timestamp)", &timestamp)
                .replace("$(generation)", &generation.to_string());
            problems.take(format!("destination.tags[{index}]"), self.repository.tagged(&tag))
        });
        let tags = tags.collect();
        if problems.0.is_empty() { Ok(tags) } else { Err(problems.0) }
    }

    /// A hash over all that decides the image's bytes and names: equal inputs need no build.
    #[must_use]
    pub fn inputs(&self, spec: &MinimalImageSpec, pins: &Pins) -> Digest {
        // The whole spec but what says when and how much is remembered: a field that is forgotten here costs at most a
        // look into the cache.
        let mut spec = serde_json::to_value(spec).unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            for field in ["interval", "suspend", "successfulHistoryLimit", "failedHistoryLimit"] {
                spec.remove(field);
            }
        }
        Digest::of(format!("{spec} {:?} {:?}", pins.revision, pins.images).as_bytes())
    }
}

fn build(spec: &MinimalImageSpec, problems: &mut Problems) -> Option<Plan> {
    let source = spec.source.as_ref().and_then(|source| sources::plan(source, problems));
    let platform = spec.platforms.first().map_or("linux/amd64", String::as_str).parse();
    let platform = problems.take("platforms[0]", platform);
    let interval = duration(problems, "interval", &spec.interval);
    let base = spec.image.base.image.as_ref().map(|base| base.reference.parse::<Reference>());
    let base = base.map(|base| problems.take("image.base.image.reference", base));
    let repository = problems.take("destination.repository", spec.destination.repository.parse::<Repository>());
    let cache = match &spec.cache {
        Some(cache) => problems.take("cache.repository", cache.repository.parse()),
        None => repository.as_ref().map(|repository| repository.with_suffix("-cache")),
    };
    check_tags(spec, source.as_ref(), problems);
    check_image(&spec.image, problems);
    let graph = stages::plan(spec, base.is_some(), problems)?;
    Some(Plan {
        source,
        platform: platform?,
        stages: graph.stages,
        skipped: graph.skipped,
        base: match base {
            Some(base) => Some(base?),
            None => None,
        },
        layers: graph.layers,
        image: spec.image.clone(),
        repository: repository?,
        tags: spec.destination.tags.clone(),
        cache: cache?,
        pod_security: spec.pod_security,
        interval: interval?,
    })
}

fn check_tags(spec: &MinimalImageSpec, source: Option<&SourcePlan>, problems: &mut Problems) {
    for (index, tag) in spec.destination.tags.iter().enumerate() {
        let field = format!("destination.tags[{index}]");
        let mut rest = tag.as_str();
        while let Some((_, after)) = rest.split_once("$(") {
            let (name, after) = after.split_once(')').unwrap_or((after, ""));
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

fn duration(problems: &mut Problems, field: &str, text: &str) -> Option<Duration> {
    let parsed = text.parse::<kube::core::Duration>().map_err(|error| format!("`{text}` is no duration: {error}"));
    let duration = Duration::from(problems.take(field, parsed)?);
    if duration < Duration::from_secs(1) {
        problems.add(field, format!("`{text}` is too short, expected at least 1s"));
        return None;
    }
    Some(duration)
}

/// Permission bits from their octal text.
fn mode(problems: &mut Problems, field: String, text: Option<&str>) -> Option<u32> {
    let parsed = u32::from_str_radix(text?, 8).map_err(|_| "expected octal permission bits, for example \"0755\"");
    problems.take(field, parsed)
}

/// Numeric owner from `uid[:gid]`; the group is the user's number when it is left out, as in COPY --chown.
fn owner(problems: &mut Problems, field: String, text: Option<&str>) -> Owner {
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

#[cfg(test)]
mod tests;
