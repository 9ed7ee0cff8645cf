//! One pass over a MinimalImage: (resource, facts, settings, now) → what to ask, or what to do. Pure; the shell asks
//! and acts. All state is in the resource's status, the cluster's Jobs and the registry, so a pass can begin anywhere.

mod certificates;
mod finish;
mod front;
mod newer;
mod packages;
mod published;
mod snapshots;
mod stages;
mod start;
mod trigger;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::{
    conditions::Reason,
    v1alpha1::{MinimalImage, Preflight, Progress, Status},
};

use super::{
    artifact::{Artifact, OutputReport},
    caches::KeepCaches,
    debian::base::{PackageSet, PackagesBase},
    image::{BaseLayer, ImageConfig, RuntimeConfig, SourcedLayer},
    include::Included,
    job::StageRun,
    observed::JobFact,
    plan::{Draft, Pins, Plan},
    preflight::Distribution,
    recipe::{Key, TextFile},
    settings::Settings,
    snapshot::{Keep, Snapshot},
    value::{Digest, Platform, Reference, Repository},
};

/// What a pass results in.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// More must be known; each question answered, decide again.
    Ask(Vec<Question>),
    /// All that is to be done now.
    Act(Box<Outcome>),
}

/// Something that only a registry, a server or the queue can answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// The revision that the source is at.
    Revision,
    /// The server that the source's Secret may be sent to.
    CredentialHost,
    /// What an image reference points to.
    Image(Reference),
    /// The packages that a base is.
    Packages {
        /// What is asked for.
        base: Box<PackagesBase>,
        /// What the build in hand has found them to be: digest of their list.
        pinned: Option<Digest>,
        /// Whether what was found a moment ago is not enough: somebody asked for a look.
        anew: bool,
    },
    /// The certificates that the spec names.
    Certificates,
    /// The source's Dockerfile and what belongs to it, at a revision: paths below the source's directory.
    Files {
        /// The source's revision.
        revision: String,
        /// The paths.
        paths: Vec<String>,
    },
    /// What the config of an image, given by the digest of its manifest, says for what is built from it.
    Config(Reference),
    /// The artifact that the cache repository holds for a key.
    Record(Key),
    /// The base of packages that the cache repository holds for a key, or another one on the same registry that is believed.
    Base(Key),
    /// Whether this build may put the base for a key together.
    Compose(Key),
    /// The snapshot that the cache repository holds for a key.
    Snapshot(Key),
    /// Read an agent's artifact and sign it under a stage's keys.
    Adopt {
        /// Digest of the artifact's manifest.
        artifact: Digest,
        /// The stage's key in this build.
        key: Key,
        /// Further keys that it is to be found under.
        also: Vec<Key>,
    },
    /// Whether this build may start Pods now.
    Slot,
    /// Assemble and push the image.
    Publish(Box<Publication>),
}

/// An image to be assembled and pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The base and the digest that its reference pointed to; none for scratch.
    pub base: Option<(Reference, Digest)>,
    /// The layers on top, lowest first.
    pub layers: Vec<PublicationLayer>,
    /// Whether the lowest of them is made of packages.
    pub composed: bool,
    /// The layer that is put on top for the debug image; none without one.
    pub debug: Option<SourcedLayer>,
    /// Whether anything is below the layers that hold what is copied.
    pub has_base: bool,
    /// What people call what the image starts from.
    pub base_name: String,
    /// Certificates that it trusts beside those of its base, a PEM text.
    pub certificates: Option<String>,
    /// What is held against each other before the image is pushed.
    pub preflight: Preflight,
    /// What the config says.
    pub image: ImageConfig,
    /// What the image is for.
    pub platform: Platform,
    /// Where the artifact layers are.
    pub cache: Repository,
    /// Where the image goes.
    pub repository: Repository,
    /// Its names.
    pub tags: Vec<Reference>,
    /// The generation of the spec; a newer one in the cluster forbids the push.
    pub generation: i64,
}

/// A layer of a [`Publication`].
#[derive(Debug, Clone, PartialEq)]
pub enum PublicationLayer {
    /// A layer in the cache repository.
    Artifact(SourcedLayer),
    /// Files to be packed.
    Files(Vec<TextFile>),
    /// What is put onto the base without packages.
    Include(Included),
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Layers of the base, lowest first.
    pub base_layers: Vec<BaseLayer>,
    /// When the base was made, by its own config.
    pub base_created: Option<String>,
    /// The layers on top.
    pub layers: Vec<SourcedLayer>,
    /// What the layer of the spec's own files holds.
    pub files: Option<OutputReport>,
    /// What the base says that it is.
    pub distribution: Distribution,
    /// What the preflight found doubtful.
    pub warnings: Vec<String>,
    /// Digest of the debug image's manifest.
    pub debug: Option<Digest>,
}

/// What an image reference points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the reference pointed to: an image or an index.
    pub digest: Digest,
    /// The manifest for the platform.
    pub manifest_digest: Digest,
    /// Uncompressed bytes, as the compressed layers state them.
    pub size: u64,
    /// Bytes of the compressed layers.
    pub compressed_size: u64,
}

/// Why something outside could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kind of failure.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

impl Trouble {
    /// The same with where the image is named in front, unless the login for it is what is missing.
    fn about_image(&self, place: &str) -> Self {
        match self.reason {
            Reason::ReferenceNotFound | Reason::SecretAccessDenied => self.clone(),
            reason => Self { reason, message: format!("{place}: {}", self.message) },
        }
    }
}

/// Whether a build may start Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// It may.
    Granted,
    /// It waits; the text says for what.
    Queued(String),
}

/// What is known beside the resource.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The resource's Jobs.
    pub jobs: Vec<JobFact>,
    /// To [`Question::Revision`].
    pub revision: Option<Result<String, Trouble>>,
    /// To [`Question::CredentialHost`].
    pub credential_host: Option<Result<Option<String>, Trouble>>,
    /// To [`Question::Image`].
    pub images: BTreeMap<Reference, Result<ResolvedImage, Trouble>>,
    /// To [`Question::Packages`].
    pub packages: Option<Result<Arc<PackageSet>, Trouble>>,
    /// To [`Question::Certificates`]: a PEM text.
    pub certificates: Option<Result<String, Trouble>>,
    /// To [`Question::Files`]: text by path; none where there is no such file.
    pub files: Option<Result<BTreeMap<String, Option<String>>, Trouble>>,
    /// To [`Question::Config`].
    pub configs: BTreeMap<Reference, Result<RuntimeConfig, Trouble>>,
    /// To [`Question::Record`] and [`Question::Base`].
    pub records: BTreeMap<Key, Result<Option<Artifact>, Trouble>>,
    /// To [`Question::Compose`].
    pub compose: BTreeMap<Key, Slot>,
    /// To [`Question::Snapshot`].
    pub snapshots: BTreeMap<Key, Result<Option<Snapshot>, Trouble>>,
    /// To [`Question::Adopt`], by the first of its keys.
    pub adopted: BTreeMap<Key, Result<Artifact, Trouble>>,
    /// To [`Question::Slot`].
    pub slot: Option<Slot>,
    /// To [`Question::Publish`].
    pub published: Option<Result<Published, Trouble>>,
    /// Why the API server did not take a Job that this pass wanted to start.
    pub refused: Option<Trouble>,
}

/// What an agent has sent beside its artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Of the stage's first steps.
    Snapshots(Keep),
    /// Of its caches.
    Caches(KeepCaches),
}

impl Kept {
    /// The artifact that has the layers.
    #[must_use]
    pub fn artifact(&self) -> Digest {
        match self {
            Self::Snapshots(keep) => keep.artifact,
            Self::Caches(keep) => keep.artifact,
        }
    }

    /// What Events of it say.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Snapshots(_) => Reason::SnapshotKept,
            Self::Caches(_) => Reason::CachesKept,
        }
    }
}

/// All that a pass does.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The status to write, if it differs.
    pub status: Status,
    /// Stages to start.
    pub start: Vec<StageRun>,
    /// Jobs to delete.
    pub delete: Vec<JobFact>,
    /// What agents have sent beside artifacts. Nothing waits for it to be kept, and that may be done twice.
    pub keep: Vec<Kept>,
    /// Events to record.
    pub events: Vec<Note>,
    /// When to look again without a cause.
    pub requeue: Option<Duration>,
    /// What place the build has among those that run.
    pub place: Place,
}

/// A build's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It may have Pods.
    Running,
    /// It waits for its turn.
    Waiting,
    /// It needs none.
    None,
}

/// An Event to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether it is of type Warning.
    pub warning: bool,
    /// Its reason.
    pub reason: Reason,
    /// Its message.
    pub message: String,
}

/// What every part of a pass needs to see.
struct Pass<'a> {
    image: &'a MinimalImage,
    status: &'a Status,
    facts: &'a Facts,
    settings: &'a Settings,
    now: Timestamp,
    generation: i64,
}

/// Decides what a pass over `image` does.
#[must_use]
pub fn decide(image: &MinimalImage, facts: &Facts, settings: &Settings, now: Timestamp) -> Decision {
    let empty = Status { observed_generation: -1, ..Status::default() };
    let generation = image.metadata.generation.unwrap_or_default();
    let pass = Pass { image, status: image.status.as_ref().unwrap_or(&empty), facts, settings, now, generation };
    pass.decide().unwrap_or_else(Decision::Ask)
}

/// Either a result or questions that come before it.
type Asked<T> = Result<T, Vec<Question>>;

impl Pass<'_> {
    fn decide(&self) -> Asked<Decision> {
        let draft = match Draft::new(&self.image.spec) {
            Ok(draft) => draft,
            Err(problems) => {
                let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return Ok(self.refuse(&message));
            }
        };
        let outline = draft.outline();
        if self.image.spec.suspend {
            return Ok(self.suspended());
        }
        let Some(progress) = self.trigger(outline) else {
            return Ok(self.idle(outline));
        };
        if let Some(wait) = self.wait_for_retry(&progress) {
            return Ok(wait);
        }
        if progress.poll && !outline.can_change {
            return self.nothing_new(outline);
        }
        let progress = if progress.resolved && !self.has_moved(&draft, &progress)? {
            progress
        } else {
            match self.resolve(&draft, progress)? {
                Err((progress, trouble)) => {
                    let progress = self.found_broken(progress, &trouble);
                    return Ok(self.trouble(outline, progress, &trouble));
                }
                Ok(resolved) => match self.worth_building(&draft, resolved) {
                    None => return self.nothing_new(outline),
                    Some(progress) => progress,
                },
            }
        };
        match self.complete(&draft, &progress)? {
            Err(trouble) => Ok(self.trouble(outline, progress, &trouble)),
            Ok(plan) => self.build(&plan, progress),
        }
    }

    /// Pins what the plan names: what the references point to now. Trouble comes with how far it got.
    fn resolve(&self, draft: &Draft, mut progress: Progress) -> Asked<Result<Progress, (Progress, Trouble)>> {
        if let Some(source) = &draft.outline().source {
            match (source.pinned_revision(), &self.facts.revision) {
                (Some(revision), _) => progress.revision = Some(revision),
                (None, Some(Ok(revision))) => progress.revision = Some(revision.clone()),
                (None, Some(Err(trouble))) => return Ok(Err((progress, trouble.clone()))),
                (None, None) => return Err(self.first_questions(draft, &progress)),
            }
        }
        let images = match self.images(draft, progress.revision.as_deref())? {
            Ok(images) => images,
            Err(trouble) => return Ok(Err((progress, trouble))),
        };
        progress.images.clear();
        let mut questions = Vec::new();
        for (reference, place) in images {
            match self.facts.images.get(&reference) {
                Some(Ok(image)) => progress.images.push(trigger::pinned(&reference, image)),
                Some(Err(trouble)) => return Ok(Err((progress, trouble.about_image(&place)))),
                None => questions.push(Question::Image(reference)),
            }
        }
        if !questions.is_empty() {
            return Err(questions);
        }
        match self.packages(draft, &progress)? {
            Ok(set) => progress.packages = set.map(|set| set.digest().to_string()),
            Err(trouble) => return Ok(Err((progress, trouble))),
        }
        match self.certificates()? {
            Ok(text) => progress.certificates = text.map(|text| Digest::of(text.as_bytes()).to_string()),
            Err(trouble) => return Ok(Err((progress, trouble))),
        }
        progress.resolved = true;
        Ok(Ok(progress))
    }

    /// The revision, and with it what can be asked at the same time.
    fn first_questions(&self, draft: &Draft, progress: &Progress) -> Vec<Question> {
        let mut questions = vec![Question::Revision];
        if let Draft::Complete(plan) = draft {
            let open = plan.images().into_iter().filter(|image| !self.facts.images.contains_key(image));
            questions.extend(open.map(Question::Image));
        }
        questions.extend(self.packages(draft, progress).err().into_iter().flatten());
        questions.extend(self.certificates().err().into_iter().flatten());
        questions
    }

    /// Brings the stages forward; when all artifacts are there, the image.
    fn build(&self, plan: &Plan, progress: Progress) -> Asked<Decision> {
        let outline = &plan.outline;
        let pins = pins_of(&progress);
        let stages = self.stages(plan, &progress, &pins)?;
        if let Some(failure) = &stages.failure {
            return Ok(self.failed(outline, &progress, &stages, failure));
        }
        if let Some(trouble) = &stages.trouble {
            return Ok(self.trouble_amid(outline, progress, &stages, trouble));
        }
        if !stages.complete {
            return Ok(self.building(progress, stages));
        }
        let tags = match outline.expanded_tags(&pins, progress.generation, self.start_of(&progress)) {
            Ok(tags) => tags,
            Err(problems) => {
                let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return Ok(self.refuse(&message));
            }
        };
        let certificates = match self.certificates()? {
            Ok(text) => text.map(str::to_owned),
            Err(trouble) => return Ok(self.trouble_amid(outline, progress, &stages, &trouble)),
        };
        let digest = certificates.as_ref().map(|text| Digest::of(text.as_bytes()).to_string());
        // Those that are there now are what the image gets.
        let progress = Progress { certificates: digest, ..progress };
        if self.facts.published.is_none() && self.status.progress.as_ref() != Some(&progress) {
            // What the tags are made of must be known before the first of them is pushed: a restart goes on with it.
            return Ok(self.pushing(progress, &stages));
        }
        let newer = self.newer(plan.base.as_ref());
        match &self.facts.published {
            None => match stages.publication(plan, &progress, tags, certificates) {
                Some(publication) => {
                    let publish = Question::Publish(Box::new(publication));
                    Err(std::iter::once(publish).chain(newer.err().into_iter().flatten()).collect())
                }
                None => Ok(self.trouble_amid(outline, progress, &stages, &incomplete())),
            },
            Some(Ok(published)) => Ok(self.succeeded(plan, &progress, &stages, published, (&tags, newer?))),
            Some(Err(trouble)) => Ok(self.trouble_amid(outline, progress, &stages, trouble)),
        }
    }

    fn start_of(&self, progress: &Progress) -> Timestamp {
        progress.start_time.as_ref().map_or(self.now, |time| time.0)
    }

    fn annotation(&self, name: &str) -> Option<&String> {
        self.image.annotations().get(name)
    }
}

/// No artifact of ours is so: another one has its place in the cache repository.
fn incomplete() -> Trouble {
    let message = "an artifact in the cache repository lacks a layer that its stage has: annotate the resource with \
                   minimalimage.dev/noCacheRequestedAt to make it anew"
        .to_owned();
    Trouble { reason: Reason::ArtifactInvalid, message }
}

/// The pins of a build in hand, by the references of its plan.
fn image_pins(progress: &Progress) -> BTreeMap<Reference, Digest> {
    let parse = |image: &crate::api::v1alpha1::PinnedImage| {
        Some((image.reference.parse().ok()?, image.manifest_digest.parse().ok()?))
    };
    progress.images.iter().filter_map(parse).collect()
}

/// What `progress` pinned `reference` to.
fn pinned_digest(progress: &Progress, reference: &Reference) -> Option<Digest> {
    let name = reference.to_string();
    progress.images.iter().find(|image| image.reference == name)?.digest.parse().ok()
}

/// The revision and images that a plan is built with.
fn pins_of(progress: &Progress) -> Pins {
    let parsed = |digest: &Option<String>| digest.as_ref().and_then(|digest| digest.parse().ok());
    let (packages, certificates) = (parsed(&progress.packages), parsed(&progress.certificates));
    Pins { revision: progress.revision.clone(), images: image_pins(progress), packages, certificates }
}

#[cfg(test)]
mod tests;
