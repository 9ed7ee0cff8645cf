//! Snapshots in the cache repository: found by key, and put together as images that a node can start from.

use jiff::Timestamp;

use crate::{
    api::v1alpha1::Preflight,
    domain::{
        decide::{Publication, PublicationLayer, Trouble},
        image::{ImageConfig, SourcedLayer},
        recipe::Key,
        snapshot::{Keep, Snapshot},
        value::human_size,
    },
};

use super::{
    answers::{Answers, registry_trouble},
    publish::Clients,
};

impl Answers<'_> {
    pub(super) async fn snapshot(&self, key: &Key) -> Result<Option<Snapshot>, Trouble> {
        self.cache().await?.snapshot(key).await.map_err(|error| registry_trouble(&error))
    }

    /// Puts the layers of each snapshot on what their container was started from, pushes that, and signs for it. Gives what is
    /// to be told.
    pub(super) async fn put_snapshots(&self, keep: &Keep) -> Result<Vec<String>, Trouble> {
        let (pull, client) = futures::try_join!(self.pull_client(), self.cache_client())?;
        let repository = &self.outline.cache;
        let cache = self.cache().await?;
        let failed = |error| registry_trouble(&error);
        let (artifact, _) = cache.read(keep.artifact).await.map_err(failed)?;
        let builder = keep.builder.digest().map(|digest| (keep.builder.clone(), digest));
        let (base, pull) = match keep.below {
            Some(digest) => (Some((repository.pinned(digest), digest)), client.clone()),
            None => (builder, pull),
        };
        let clients = Clients { pull, cache: client.clone(), destination: client };
        // What is on top of another snapshot is as old as that.
        let below = match keep.below {
            Some(digest) => cache.snapshot_image(digest).await.map_err(failed)?.map(|(snapshot, _)| snapshot.made),
            None => None,
        };
        let made = keep.made.into_iter().chain(below).min().unwrap_or_else(Timestamp::now);
        let mut layers = Vec::new();
        let mut told = Vec::new();
        for (kept, layer) in keep.layers.iter().zip(artifact.layers) {
            let own = human_size(layer.size);
            layers.push(PublicationLayer::Artifact(SourcedLayer { layer, from: keep.stage.clone() }));
            let annotations = Snapshot::annotations(kept.source, made);
            let publication = Publication {
                composed: false,
                debug: None,
                certificates: None,
                has_base: true,
                base_name: String::new(),
                // Nobody starts it as it is.
                preflight: Preflight::Off,
                base: base.clone(),
                layers: layers.clone(),
                image: ImageConfig { annotations, ..ImageConfig::default() },
                platform: self.outline.platform.clone(),
                cache: repository.clone(),
                repository: repository.clone(),
                tags: Vec::new(),
                generation: 0,
            };
            let made = self.put_together(&clients, &publication).await?;
            self.push(&clients, &publication, &made).await?;
            let image = made.image;
            let size = image.manifest.len() as u64;
            for key in &kept.keys {
                cache.record(&self.world.signer, key, image.digest, size).await.map_err(failed)?;
            }
            let stage = &keep.stage;
            let steps = if kept.steps == 1 { "step".to_owned() } else { format!("{} steps", kept.steps) };
            told.push(format!("stage {stage}: the work of its first {steps} is kept, {own} more, as {}", image.digest));
        }
        self.forget(keep.artifact).await;
        Ok(told)
    }
}
