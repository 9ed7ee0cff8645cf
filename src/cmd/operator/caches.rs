//! Caches of stages in the cache repository: what agents have sent is put under the names that the next build looks for.

use crate::domain::{
    artifact::of_layers,
    caches::KeepCaches,
    decide::Trouble,
    media_type,
    value::{Digest, human_size},
};

use super::answers::{Answers, registry_trouble};

impl Answers<'_> {
    /// Makes each layer an artifact of its own and signs for it. Gives what is to be told.
    pub(super) async fn put_caches(&self, keep: &KeepCaches) -> Result<Vec<String>, Trouble> {
        let (client, cache) = (self.cache_client().await?, self.cache().await?);
        let repository = &self.outline.cache;
        let failed = |error| registry_trouble(&error);
        let (artifact, _) = cache.read(keep.artifact).await.map_err(failed)?;
        let (mut bytes, mut recorded) = (0, Vec::new());
        for (key, layer) in keep.keys.iter().zip(artifact.layers) {
            bytes += layer.size;
            let (config, manifest) = of_layers(&[layer]);
            let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
            client.push_bytes(repository, config.into()).await.map_err(failed)?;
            let pushed = client.push_manifest(&repository.pinned(digest), media_type::MANIFEST, manifest.into()).await;
            pushed.map_err(failed)?;
            let earlier = cache.find(key).await.map_err(failed)?;
            cache.record(&self.world.signer, key, digest, size).await.map_err(failed)?;
            if let Some(earlier) = earlier.filter(|earlier| *earlier != digest) {
                self.forget(earlier).await;
            }
            recorded.push(digest);
        }
        if !recorded.contains(&keep.artifact) {
            self.forget(keep.artifact).await;
        }
        Ok(vec![format!("stage {}: its caches are kept for the next build, {}", keep.stage, human_size(bytes))])
    }
}
