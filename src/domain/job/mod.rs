//! A stage as a Job: one Pod, the agent and the build container side by side. Infallible and pure.

mod pod;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::batch::v1::{Job, JobSpec},
    api::core::v1::PodTemplateSpec,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{
    artifact::Layer,
    plan::StagePlan,
    recipe::{Key, Recipe},
    remote::Remote,
    settings::Settings,
    snapshot::{SnapshotTask, Start},
    task::{AGENT_CONTAINER, BUILD_CONTAINER, SourceTask, StageTask},
    value::{Digest, Repository},
};

/// On Jobs and Pods: the stage's name.
pub const STAGE_LABEL: &str = "minimalimage.dev/stage";
/// On Jobs and Pods: the UID of the MinimalImage, by which they are found.
pub const OWNER_LABEL: &str = "minimalimage.dev/owner-uid";
/// On Jobs and Pods: the name of the MinimalImage, shortened if it must be.
pub const IMAGE_LABEL: &str = "minimalimage.dev/image";
/// On Jobs and Pods: who made them.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "minimalimage");
/// On Jobs: the stage's key in full.
pub const KEY_ANNOTATION: &str = "minimalimage.dev/key";
/// On Jobs: the snapshot that the build container starts from, as [`Start`] writes it.
pub const SNAPSHOT_ANNOTATION: &str = "minimalimage.dev/snapshot";
/// On Jobs: the generation of the spec that its Pod was made for.
pub const GENERATION_ANNOTATION: &str = "minimalimage.dev/generation";
/// On Jobs: which try it is, from 0.
pub const ATTEMPT_ANNOTATION: &str = "minimalimage.dev/attempt";

/// After this many seconds a finished Job is collected even when the operator is gone for good.
const TTL_SECONDS: i32 = 7 * 24 * 3600;
/// A label's value and a Job's name have at most this many characters (RFC 1123 label).
const LABEL_LENGTH: usize = 63;

/// The MinimalImage that a Job belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOwner {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

/// One try of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRun {
    /// The stage.
    pub stage: StagePlan,
    /// Its key.
    pub key: Key,
    /// Which try it is, from 0.
    pub attempt: u32,
    /// The generation of the spec.
    pub generation: i64,
    /// What the agent does.
    pub task: StageTask,
    /// What the build container starts from; none is the builder image.
    pub start: Option<Start>,
}

/// The Secrets and accounts that the Pod refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// For the source, mounted in the agent.
    pub source_secret: Option<String>,
    /// For the cache repository, mounted in the agent.
    pub cache_secret: Option<String>,
    /// For pulling the builder image, used by the kubelet.
    pub pull_secrets: Vec<String>,
    /// The Pod's account; its token is not mounted.
    pub service_account: Option<String>,
    /// The ConfigMap that is the source.
    pub source_config_map: Option<String>,
}

/// Everything that a run of `stage` needs to know, for its agent.
#[must_use]
pub fn task(
    stage: &StagePlan,
    recipe: Recipe,
    source: Option<SourceTask>,
    inputs: Vec<Layer>,
    (cache, no_cache): (&Repository, bool),
    settings: &Settings,
) -> StageTask {
    StageTask {
        source: recipe.remote.as_ref().map(Remote::task).or_else(|| source.filter(|_| recipe.uses_source())),
        recipe,
        inputs,
        cache: cache.clone(),
        public_key: settings.public_key.clone(),
        no_cache,
        network: settings.network.clone(),
        limits: settings.limits.clone(),
        places: stage.places.clone(),
        package_urls: stage.packages.as_ref().map(|(_, urls)| urls.clone()).unwrap_or_default(),
        inject_ca: stage.settings.as_ref().is_some_and(|stage| stage.ca_certificates),
        snapshots: SnapshotTask::default(),
        caches: Vec::new(),
    }
}

/// The Job for `run`.
#[must_use]
pub fn render(owner: &JobOwner, run: &StageRun, refs: &References, settings: &Settings) -> Job {
    let labels = BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (OWNER_LABEL.to_owned(), owner.uid.clone()),
        (IMAGE_LABEL.to_owned(), shortened(&owner.name, LABEL_LENGTH)),
        (STAGE_LABEL.to_owned(), run.stage.name.clone()),
    ]);
    let mut annotations = BTreeMap::from([
        (KEY_ANNOTATION.to_owned(), run.key.to_string()),
        (ATTEMPT_ANNOTATION.to_owned(), run.attempt.to_string()),
        (GENERATION_ANNOTATION.to_owned(), run.generation.to_string()),
    ]);
    annotations.extend(run.start.as_ref().map(|start| (SNAPSHOT_ANNOTATION.to_owned(), start.to_string())));
    let context = pod::Context { owner, stage: &run.stage, run, refs, settings };
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(owner, &run.stage.name, &run.key, run.attempt)),
            namespace: Some(owner.namespace.clone()),
            labels: Some(labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "minimalimage.dev/v1alpha1".into(),
                kind: "MinimalImage".into(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(default_container(&run.stage)),
                    ..ObjectMeta::default()
                }),
                spec: Some(context.spec()),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Whose log `kubectl logs` shows: what people look for is what their commands said.
fn default_container(stage: &StagePlan) -> BTreeMap<String, String> {
    let container = if stage.image.is_some() { BUILD_CONTAINER } else { AGENT_CONTAINER };
    BTreeMap::from([("kubectl.kubernetes.io/default-container".to_owned(), container.to_owned())])
}

/// `<resource>-<stage>-<hash>-<attempt>`, the first two shortened if they must be. The hash is over owner and key:
/// resource `a` with stage `b-c` must not meet `a-b` with stage `c`.
#[must_use]
pub fn job_name(owner: &JobOwner, stage: &str, key: &Key, attempt: u32) -> String {
    let hash = Digest::of(format!("{} {key}", owner.uid).as_bytes()).short(8);
    let suffix = format!("-{hash}-{attempt}");
    let name = format!("{}-{stage}", owner.name).replace('.', "-");
    format!("{}{suffix}", shortened(&name, LABEL_LENGTH - suffix.len()))
}

/// `text` in at most `length` characters; what is cut off is replaced by a hash of the whole.
fn shortened(text: &str, length: usize) -> String {
    if text.len() <= length {
        return text.to_owned();
    }
    let head: String = text.chars().take(length.saturating_sub(9)).collect();
    format!("{head}-{}", Digest::of(text.as_bytes()).short(8))
}

#[cfg(test)]
mod tests;
