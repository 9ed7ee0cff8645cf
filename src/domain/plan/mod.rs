//! The plan: a spec, parsed and checked once. It is the only place that refuses a spec; what follows can rely on it.

mod base;
mod copies;
mod dockerfile;
mod draft;
mod sources;
mod stages;

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::v1alpha1::{MinimalImageSpec, PodSecurity, Preflight, Stage};

use draft::{draft, duration, mode, owner};
use stages::{DEFAULT_TIMEOUT, empty_stage, source_stage};

use super::{
    artifact::Artifact,
    debian::base::{Composition, PackageSet, PackagesBase},
    debug,
    image::ImageConfig,
    include::Included,
    recipe::{FORMAT, Output, Recipe, Step, TextFile, reads_source},
    remote::Remote,
    snapshot::Keeping,
    task::Places,
    value::{Digest, Platform, Reference, Repository},
};

pub use dockerfile::{DockerfileError, DockerfilePlan, OpenDockerfile, refusals};
pub use sources::{GitTarget, SourceKind, SourcePlan};
pub use stages::SOURCE_DATE_EPOCH;

/// Name of the stage that stands for the source: it has no builder image.
pub const SOURCE_STAGE: &str = "source";
/// Name of the stage that puts a base of packages together: it has no builder image either.
pub const BASE_STAGE: &str = "base-packages";
/// Name of the stage that puts the layer of the debug image together.
pub const DEBUG_STAGE: &str = "debug-tools";
/// The user that stages run as under [`PodSecurity::Restricted`].
pub const RESTRICTED_USER: u32 = 65532;
/// Where a stage's user code works by default.
pub const WORKSPACE: &str = "/workspace";
/// Home directory of the user of a restricted stage.
pub const HOME: &str = "/home/build";
/// What to do for a stage that takes too long.
pub const TIMEOUT_ADVICE: &str = "raise spec.stages[].timeout, or spec.dockerfile.pod.timeout";
/// The directories that a restricted stage can write to.
pub const WRITABLE: [&str; 3] = [WORKSPACE, "/tmp", HOME];

/// What a spec says by itself, before a Dockerfile is read: enough to look things up, to wait and to refuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// Where files come from.
    pub source: Option<SourcePlan>,
    /// What the image is for.
    pub platform: Platform,
    /// Where the image goes.
    pub repository: Repository,
    /// Tags with their variables not yet replaced.
    pub tags: Vec<String>,
    /// Where artifacts are kept.
    pub cache: Repository,
    /// Under which standard Pods run.
    pub pod_security: PodSecurity,
    /// What is kept of the stages of a Dockerfile.
    pub snapshots: Keeping,
    /// What happens when the image's program could not start.
    pub preflight: Preflight,
    /// Whether there is a debug image beside it.
    pub debug: bool,
    /// How often tags and branches are looked at.
    pub interval: Duration,
    /// Whether a later look could find something newer: a branch, a tag, a ConfigMap.
    pub can_change: bool,
    /// Whether its base is pinned by digest and has a tag beside, so that a later look could find that to have moved.
    pub is_watched: bool,
}

/// A spec whose every value is parsed and whose references all lead somewhere. Nothing in it tells whether its stages were
/// given by `spec.stages` or by a Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the spec says by itself.
    pub outline: Outline,
    /// The stages that the image needs, each after those that it copies from.
    pub stages: Vec<StagePlan>,
    /// Names of stages that nothing needs.
    pub skipped: Vec<String>,
    /// The image that the final image starts from; none for scratch and packages.
    pub base: Option<Reference>,
    /// The packages that it starts from, or that are put onto its base: the lowest of its layers is put together from them, and
    /// the one that makes its debug image.
    pub packages: Option<PackagesBase>,
    /// The final image's layers on top of its base, lowest first.
    pub layers: Vec<LayerPlan>,
    /// What the final image's config says.
    pub image: ImageConfig,
    /// What is doubtful and built all the same, for people.
    pub warnings: Vec<String>,
}

/// What can be planned of a spec without reading anything else.
#[derive(Debug, Clone, PartialEq)]
pub enum Draft {
    /// All of it.
    Complete(Box<Plan>),
    /// The stages are in a Dockerfile.
    Dockerfile(Box<DockerfilePlan>),
}

/// One stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Its name; [`SOURCE_STAGE`] for the one that gives files of the source.
    pub name: String,
    /// Its builder image.
    pub image: Option<Reference>,
    /// What it gives its outputs from in place of the source, where it has no builder image.
    pub remote: Option<Remote>,
    /// The packages that its agent puts together, and where each of them is; its only output is the layer.
    pub packages: Option<(Composition, Vec<String>)>,
    /// What is done.
    pub steps: Vec<Step>,
    /// The layers that `Step::CopyArtifact` names by index: a stage's output.
    pub inputs: Vec<OutputReference>,
    /// What leaves it.
    pub outputs: Vec<Output>,
    /// What of the source its copies do not see, as patterns of a `.dockerignore` in their order.
    pub ignore: Vec<String>,
    /// Who its steps run as, and with what of the container they may do as they like.
    pub account: Account,
    /// How its Pod is set up; none for the source stage.
    pub settings: Option<Stage>,
    /// How long its Pod may take.
    pub timeout: Duration,
    /// Where it is written, if in a Dockerfile.
    pub places: Places,
    /// Names of its caches in the cache repository, in the order in which `RunMount::Cache` counts them.
    pub caches: Vec<String>,
}

impl StagePlan {
    /// Whether it takes anything from the source by itself.
    #[must_use]
    pub fn uses_source(&self) -> bool {
        reads_source(self.image.is_some(), self.remote.is_some() || self.packages.is_some(), &self.steps)
    }
}

/// Who a build container runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// [`RESTRICTED_USER`], who can write to [`WRITABLE`] alone: what the `restricted` standard lets pass.
    Restricted,
    /// The builder image's own user, with a volume at [`WORKSPACE`].
    Image,
    /// Root in the container, as Docker builds: no volume hides anything of the builder image.
    Root,
}

impl Account {
    /// What to do where a command's words say that it may not write.
    #[must_use]
    pub fn denied(self, words: &str) -> Option<&'static str> {
        let advice = "it runs as user 65532, who can write below /workspace, /tmp and /home/build: write there, or set \
                      spec.podSecurity: Baseline";
        (self == Self::Restricted && words.contains("ermission denied")).then_some(advice)
    }

    /// The user that the container is started as; none leaves it to the builder image.
    #[must_use]
    pub fn user(self) -> Option<u32> {
        match self {
            Self::Restricted => Some(RESTRICTED_USER),
            Self::Image => None,
            Self::Root => Some(0),
        }
    }

    /// What to do where a namespace's Pod Security level refuses it.
    #[must_use]
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::Restricted => None,
            Self::Image => Some(
                "spec.podSecurity is Baseline: let the namespace enforce baseline, or set spec.podSecurity: Restricted",
            ),
            Self::Root => Some(
                "stages of a Dockerfile run as root in their container: let the namespace enforce baseline, or set \
                 spec.podSecurity: Restricted",
            ),
        }
    }
}

/// One output of one stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputReference {
    /// The stage's name.
    pub stage: String,
    /// Index into its outputs.
    pub output: usize,
}

impl OutputReference {
    /// What a layer made of it is said to come from.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.stage == BASE_STAGE { "base".to_owned() } else { self.stage.clone() }
    }
}

/// One layer of the final image.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerPlan {
    /// A stage's artifact layer, as it is.
    Artifact(OutputReference),
    /// Files given in the spec.
    Files(Vec<TextFile>),
    /// What is put onto the base without packages.
    Include(Included),
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
    /// Digest of the list of the base's packages.
    pub packages: Option<Digest>,
    /// Digest of the certificates that the image trusts beside those of its base.
    pub certificates: Option<Digest>,
}

impl Draft {
    /// Parses and checks `spec`.
    ///
    /// # Errors
    /// All problems at once, each with its field.
    pub fn new(spec: &MinimalImageSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let draft = draft(spec, &mut problems);
        match draft {
            Some(draft) if problems.0.is_empty() => Ok(draft),
            _ => Err(problems.0),
        }
    }

    /// The plan of a spec that needs no Dockerfile.
    #[must_use]
    pub fn complete(self) -> Option<Plan> {
        match self {
            Self::Complete(plan) => Some(*plan),
            Self::Dockerfile(_) => None,
        }
    }

    /// The packages that the image or its debug image has.
    #[must_use]
    pub fn packages(&self) -> Option<&PackagesBase> {
        match self {
            Self::Complete(plan) => plan.packages.as_ref(),
            Self::Dockerfile(plan) => plan.packages.as_ref(),
        }
    }

    /// What the spec says by itself.
    #[must_use]
    pub fn outline(&self) -> &Outline {
        match self {
            Self::Complete(plan) => &plan.outline,
            Self::Dockerfile(plan) => &plan.outline,
        }
    }
}

impl Outline {
    /// When to look again at what can change or move; none where nothing can.
    #[must_use]
    pub fn poll(&self) -> Option<Duration> {
        (self.can_change || self.is_watched).then_some(self.interval)
    }

    /// What the steps see of the source, for keys; none without a source.
    #[must_use]
    pub fn source_identity(&self, pins: &Pins) -> Option<String> {
        Some(self.source.as_ref()?.identity(pins.revision.as_deref()?))
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
            let field = format!("destination.tags[{index}]");
            let tag = problems.take(&field, self.repository.tagged(&tag))?;
            if self.debug {
                problems.take(field, debug::tag(&tag))?;
            }
            Some(tag)
        });
        let tags: Vec<Reference> = tags.collect();
        if let Some((index, message)) = debug::clash(tags.iter().filter_map(Reference::tag)).filter(|_| self.debug) {
            problems.add(format!("destination.tags[{index}]"), message);
        }
        if problems.0.is_empty() { Ok(tags) } else { Err(problems.0) }
    }
}

impl Plan {
    /// What names `image` first, to be put in front of what is wrong with it.
    #[must_use]
    pub fn place_of(&self, image: &Reference) -> String {
        match self.stages.iter().find(|stage| stage.image.as_ref() == Some(image)) {
            Some(stage) => format!("spec.stages[{}].image", stage.name),
            None => "spec.image.base.image".to_owned(),
        }
    }

    /// Whether anything is below the layers that hold what is copied.
    #[must_use]
    pub fn has_base(&self) -> bool {
        self.base.is_some() || self.packages.as_ref().is_some_and(PackagesBase::is_whole)
    }

    /// Whether the lowest layer on top of the base image is made of packages.
    #[must_use]
    pub fn composed(&self) -> bool {
        matches!(self.layers.first(), Some(LayerPlan::Artifact(from)) if from.stage == BASE_STAGE)
    }

    /// The layer that makes the debug image of the image; none where that is not wanted.
    #[must_use]
    pub fn debug(&self) -> Option<OutputReference> {
        let wanted = self.packages.as_ref().is_some_and(|base| base.debug);
        wanted.then(|| OutputReference { stage: DEBUG_STAGE.to_owned(), output: 0 })
    }

    /// Whether something is put onto the base that depends on what that has.
    #[must_use]
    pub fn includes(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, LayerPlan::Include(_)))
    }

    /// What people call what the image starts from.
    #[must_use]
    pub fn base_name(&self) -> String {
        match (&self.base, &self.packages) {
            (Some(image), _) => image.to_string(),
            (None, Some(packages)) => packages.name.clone(),
            (None, None) => "scratch".to_owned(),
        }
    }

    /// The plan with the stages that put its base and its debug image's layer together of `set`.
    #[must_use]
    pub fn with_packages(mut self, set: &PackageSet) -> Self {
        let Some(base) = &self.packages else { return self };
        let stages = base.compositions(set).into_iter().zip([BASE_STAGE, DEBUG_STAGE]);
        let stages = stages.filter_map(|(packages, name)| {
            let outputs = vec![Output::changes()];
            let empty = empty_stage(name.to_owned(), Account::Restricted);
            Some(StagePlan { packages: Some(packages?), outputs, ..empty })
        });
        self.stages.splice(..0, stages.collect::<Vec<_>>());
        self
    }

    /// Every image that has to be resolved: builder images and the base, each once.
    #[must_use]
    pub fn images(&self) -> Vec<Reference> {
        let mut images: Vec<_> = self.stages.iter().filter_map(|stage| stage.image.clone()).collect();
        images.extend(self.base.clone());
        images.sort();
        images.dedup();
        images
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
        let mut env_from: Vec<String> = stage
            .settings
            .iter()
            .flat_map(|settings| &settings.env)
            .filter(|variable| variable.value_from.is_some())
            .map(|variable| variable.name.clone())
            .collect();
        env_from.sort();
        let claims = stage.settings.iter().flat_map(Stage::claims);
        Some(Recipe {
            format: FORMAT,
            platform: self.outline.platform.clone(),
            image,
            user: stage.image.is_some().then(|| stage.account.user()).flatten(),
            env_from,
            mounts: claims.map(|(cache, _)| cache.path.clone()).collect(),
            remote: stage.remote.clone(),
            packages: stage.packages.as_ref().map(|(composition, _)| composition.clone()),
            ignore: stage.ignore.clone(),
            inputs,
            steps: stage.steps.clone(),
            outputs: stage.outputs.clone(),
        })
    }
}

/// A hash over all that decides the image's bytes and names: equal inputs need no build.
#[must_use]
pub fn inputs(spec: &MinimalImageSpec, pins: &Pins) -> Digest {
    // The whole spec but what says when and how much is remembered: a field that is forgotten here costs at most a
    // look into the cache.
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        for field in ["interval", "suspend", "successfulHistoryLimit", "failedHistoryLimit"] {
            spec.remove(field);
        }
        // The default, which earlier versions did not know.
        if spec.get("preflight").is_some_and(|preflight| preflight == "Enforce") {
            spec.remove("preflight");
        }
        if let Some(dockerfile) = spec.get_mut("dockerfile").and_then(serde_json::Value::as_object_mut) {
            dockerfile.remove("snapshots");
        }
    }
    let more: String = pins.packages.iter().chain(&pins.certificates).map(|digest| format!(" {digest}")).collect();
    Digest::of(format!("{spec} {:?} {:?}{more}", pins.revision, pins.images).as_bytes())
}

#[cfg(test)]
mod tests;
