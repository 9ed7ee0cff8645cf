//! Caches of stages in the cache repository: what agents have sent is put under the names that the next build looks for.

use kube::ResourceExt as _;

use crate::{
    api::{conditions::Reason, v1alpha1::MinimalImage},
    domain::{
        artifact::{ArtifactConfig, manifest},
        caches::KeepCaches,
        decide::{Note, Trouble},
        media_type,
        plan::Draft,
        value::{Digest, human_size},
    },
    shell::queue::ImageId,
};

use super::answers::{Answers, World, registry_trouble};

impl Answers<'_> {
    /// Makes each layer an artifact of its own and signs for it. Gives what is to be told.
    async fn put_caches(&self, keep: &KeepCaches) -> Result<String, Trouble> {
        let (client, cache) = (self.cache_client().await?, self.cache().await?);
        let repository = &self.outline.cache;
        let failed = |error| registry_trouble(&error);
        let (artifact, _) = cache.read(keep.artifact).await.map_err(failed)?;
        let mut bytes = 0;
        for (key, layer) in keep.keys.iter().zip(artifact.layers) {
            bytes += layer.size;
            let layers = [layer];
            let config = ArtifactConfig::plain(&layers).to_bytes();
            let manifest = manifest(&config, &layers);
            let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
            client.push_bytes(repository, config.into()).await.map_err(failed)?;
            let pushed = client.push_manifest(&repository.pinned(digest), media_type::MANIFEST, manifest.into()).await;
            pushed.map_err(failed)?;
            cache.record(&self.world.signer, key, digest, size).await.map_err(failed)?;
        }
        Ok(format!("stage {}: its caches are kept for the next build, {}", keep.stage, human_size(bytes)))
    }
}

/// Keeps caches, once. A build does not wait for it, and one that fails costs the next build its time only.
pub(super) async fn keep(world: &World, image: &MinimalImage, id: ImageId, keep: KeepCaches) {
    let name = (image.uid().unwrap_or_default(), keep.artifact);
    if world.kept.get(&name).is_some() {
        return;
    }
    world.kept.put(name, ());
    let Ok(_permit) = world.keepers.acquire().await else { return };
    let Ok(draft) = Draft::new(&image.spec) else { return };
    let answers = Answers { world, image, outline: draft.outline(), id };
    match answers.put_caches(&keep).await {
        Ok(message) => {
            world.cluster.record(image, &Note { warning: false, reason: Reason::CachesKept, message }).await;
        }
        Err(trouble) => tracing::warn!(stage = keep.stage, message = trouble.message, "caches are not kept"),
    }
}
