//! Bases that several resources have in common: put together once on a registry, mounted by the others with their own credentials.
//! A Pod of another namespace is believed only where the operator's settings say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kube::runtime::reflector::ObjectRef;

use super::answers::{Answers, registry_trouble};
use crate::{
    api::v1alpha1::{MinimalImage, StageState, StageStatus},
    domain::{
        artifact::{Artifact, ArtifactConfig, Layer, manifest},
        decide::{Slot, Trouble},
        media_type,
        plan::{BASE_STAGE, DEBUG_STAGE, Draft},
        recipe::Key,
        value::Repository,
    },
    shell::{cache::Cache, queue::ImageId, registry::RegistryError},
};

/// Repositories of others that are asked for one base.
const ASKED: usize = 3;
/// So long it takes at most until a status tells of a base that is being put together.
const UNTOLD: Duration = Duration::from_secs(10);

/// Who puts which base together, on which registry.
#[derive(Default)]
pub(super) struct Composing(Mutex<BTreeMap<Place, (ImageId, Instant)>>);

/// The namespace where namespaces do not share, the registry, and the base.
type Place = (Option<String>, String, Key);

impl Answers<'_> {
    /// The base that the own cache repository holds for `key`, or that another one on the same registry does.
    pub(super) async fn shared(&self, key: &Key) -> Result<Option<Artifact>, Trouble> {
        let own = self.cache().await?;
        if let Some(artifact) = own.lookup(key).await.map_err(|error| registry_trouble(&error))? {
            return Ok(Some(artifact));
        }
        for repository in self.others(key).into_iter().take(ASKED) {
            match self.bring(&own, &repository, key).await {
                Ok(Some(artifact)) => return Ok(Some(artifact)),
                // Not there any longer, or not for these credentials: as if nobody had it.
                Ok(None) => {}
                Err(error) => tracing::info!(%repository, %error, "a base of another repository cannot be used"),
            }
        }
        Ok(None)
    }

    /// Cache repositories on this registry in which another resource has such a base, by its status.
    fn others(&self, key: &Key) -> BTreeSet<Repository> {
        let (key, own) = (key.to_string(), &self.outline.cache);
        let believed = self.circle();
        let has = |image: &MinimalImage| {
            (believed.is_none() || image.metadata.namespace == believed)
                && base_of(image, &key).is_some_and(|stage| stage.artifact_digest.is_some())
        };
        let images = self.world.images.state();
        let drafts = images.iter().filter(|image| has(image)).filter_map(|image| Draft::new(&image.spec).ok());
        let caches = drafts.map(|draft| draft.outline().cache.clone());
        caches.filter(|cache| cache.registry() == own.registry() && cache != own).collect()
    }

    fn resource(&self, id: &ImageId) -> Option<Arc<MinimalImage>> {
        self.world.images.get(&ObjectRef::new(&id.name).within(&id.namespace))
    }

    /// The namespace whose bases are believed; none where all of them are.
    fn circle(&self) -> Option<String> {
        (!self.world.settings.share_bases).then(|| self.id.namespace.clone())
    }

    /// Brings the base for `key` of `from` into the own cache repository.
    async fn bring(&self, own: &Cache, from: &Repository, key: &Key) -> Result<Option<Artifact>, RegistryError> {
        let Ok(client) = self.cache_client().await else { return Ok(None) };
        let other = Cache::new(client.clone(), from.clone(), self.world.settings.public_key.clone());
        let Some(artifact) = other.lookup(key).await? else { return Ok(None) };
        let to = &self.outline.cache;
        for blob in artifact.layers.iter().flat_map(Layer::descriptors) {
            client.mount_or_copy(&client, from, to, &blob).await?;
        }
        let config = ArtifactConfig { outputs: artifact.outputs.clone() }.to_bytes();
        let manifest = manifest(&config, &artifact.layers);
        client.push_bytes(to, Bytes::from(config)).await?;
        let size = manifest.len() as u64;
        let pinned = to.pinned(artifact.digest);
        client.push_manifest(&pinned, media_type::MANIFEST, Bytes::from(manifest)).await?;
        own.record(&self.world.signer, key, artifact.digest, size).await?;
        Ok(Some(artifact))
    }

    /// Whether this resource may put the base for `key` together: one at a time does on each registry.
    pub(super) fn compose(&self, key: &Key) -> Slot {
        let place = (self.circle(), self.outline.cache.registry().to_owned(), *key);
        let mut composing = self.world.composing.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((other, since)) = composing.get(&place)
            && *other != self.id
            && (since.elapsed() < UNTOLD
                || self.resource(other).is_some_and(|image| is_composing(&image, &key.to_string())))
        {
            // Names of other namespaces are nobody's business.
            let whose = if other.namespace == self.id.namespace {
                other.name.as_str()
            } else {
                "an image of another namespace"
            };
            return Slot::Queued(format!("the same base is being put together for {whose}"));
        }
        composing.retain(|_, (_, since)| since.elapsed() < Duration::from_hours(2));
        composing.insert(place, (self.id.clone(), Instant::now()));
        Slot::Granted
    }
}

/// Whether the status of the resource says that its base is under way.
fn is_composing(image: &MinimalImage, key: &str) -> bool {
    // A build that ended leaves its stages in status as they were.
    let is_building = image.status.as_ref().is_some_and(|status| status.progress.is_some());
    let under_way = [StageState::Waiting, StageState::Running];
    is_building
        && base_of(image, key).is_some_and(|stage| under_way.contains(&stage.state) && stage.artifact_digest.is_none())
}

/// The stage of packages that has the key.
fn base_of<'a>(image: &'a MinimalImage, key: &str) -> Option<&'a StageStatus> {
    let mut stages = image.status.as_ref()?.stages.iter();
    stages.find(|stage| [BASE_STAGE, DEBUG_STAGE].contains(&stage.name.as_str()) && stage.key.as_deref() == Some(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_build_in_hand_is_putting_a_base_together() {
        let image = |progress: serde_json::Value, state: &str| -> MinimalImage {
            let stage = json!({"name": BASE_STAGE, "state": state, "key": "k"});
            serde_json::from_value(json!({
                "apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage", "metadata": {"name": "app"},
                "spec": {"destination": {"repository": "registry.example.com/app"}},
                "status": {"stages": [stage], "progress": progress}
            }))
            .unwrap()
        };
        assert!(is_composing(&image(json!({}), "Running"), "k"));
        assert!(!is_composing(&image(json!({}), "Running"), "another"));
        assert!(!is_composing(&image(json!({}), "Built"), "k"));
        assert!(!is_composing(&image(json!(null), "Running"), "k"), "another stage failed meanwhile");
    }
}
