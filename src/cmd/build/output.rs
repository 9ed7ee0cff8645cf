//! Where a finished image goes: the store, the disk, its registry.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};
use tokio::io::AsyncReadExt as _;

use super::world::{World, blocking};
use crate::{
    cli::Output,
    domain::{
        debug,
        image::{BaseLayer, Image, SourcedLayer},
        media_type,
        value::{Descriptor, Digest, Reference, Repository},
    },
    shell::{layout::StoredImage, registry::Client},
};

/// Layers that travel at the same time.
const TRANSFERS: usize = 4;
/// How much of a layer is sent at once.
const PIECE: usize = 1 << 20;
/// The name under which progress shows what is not about one stage.
const IMAGE: &str = "image";

/// A finished image.
pub struct Finished {
    /// Its bytes.
    pub image: Image,
    /// Where its base's layers are.
    pub base: Option<Repository>,
    /// Its own layers, all of them in the store.
    pub layers: Vec<SourcedLayer>,
    /// Its tags.
    pub tags: Vec<Reference>,
    /// Its debug image, and the layer of that which makes it.
    pub debug: Option<(Image, SourcedLayer)>,
}

impl Finished {
    /// The tags of the debug image.
    pub fn debug_tags(&self) -> Vec<Reference> {
        let tags = self.tags.iter().filter(|_| self.debug.is_some());
        tags.filter_map(|tag| debug::tag(tag).ok()).collect()
    }
}

impl World {
    /// Writes the image to the disk in every form that was asked for.
    pub async fn write_outputs(self: &Arc<Self>, finished: &Finished) -> anyhow::Result<()> {
        if self.args.output.is_empty() {
            return Ok(());
        }
        let base = base_layers(&finished.image);
        if let Some(repository) = &finished.base {
            self.fetch(IMAGE, repository, &base).await.context("failed to fetch the base's layers")?;
        }
        let layers: Vec<Descriptor> = base.into_iter().chain(finished.layers.iter().map(descriptor)).collect();
        let mut digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        digests.push(finished.image.config_digest);
        digests.sort();
        digests.dedup();
        let stored = StoredImage {
            manifest: finished.image.manifest.clone(),
            config: finished.image.config_digest,
            layers,
            names: finished.tags.iter().map(ToString::to_string).collect(),
            blobs: digests.into_iter().map(|digest| (digest, self.store.blob(digest))).collect(),
        };
        for output in self.args.output.clone() {
            let stored = stored.clone();
            blocking(move || write(&stored, &output)).await?;
        }
        Ok(())
    }

    /// Pushes everything that the registry lacks, the tags last.
    pub async fn push(&self, finished: &Finished) -> anyhow::Result<()> {
        let client = self.client().await?;
        self.progress.state(IMAGE, &format!("pushing to {}", self.outline.repository));
        let own: Vec<Descriptor> = finished.layers.iter().map(descriptor).collect();
        self.push_image(&client, &finished.image, finished.base.as_ref(), &own).await?;
        if let Some((image, layer)) = &finished.debug {
            // What is below it has just come there.
            self.push_image(&client, image, None, &[descriptor(layer)]).await?;
            for tag in finished.debug_tags() {
                client.push_manifest(&tag, media_type::MANIFEST, Bytes::from(image.manifest.clone())).await?;
            }
        }
        for tag in &finished.tags {
            client.push_manifest(tag, media_type::MANIFEST, Bytes::from(finished.image.manifest.clone())).await?;
        }
        Ok(())
    }

    /// Everything but the tags: the layers of `base`, `own` layers, config and manifest.
    async fn push_image(
        &self,
        client: &Client,
        image: &Image,
        base: Option<&Repository>,
        own: &[Descriptor],
    ) -> anyhow::Result<()> {
        let to = &self.outline.repository;
        let pinned = to.pinned(image.digest);
        if client.head_at_origin(&pinned).await?.is_none() {
            let own = own
                .iter()
                .map(|layer| -> BoxFuture<'_, anyhow::Result<()>> { Box::pin(self.upload(client, to, layer)) });
            let below = base_layers(image);
            let below = below.iter().filter_map(|layer| {
                let from = base?;
                let copied = async move { Ok(client.mount_or_copy(client, from, to, layer).await.map(|_| ())?) };
                Some(Box::pin(copied) as BoxFuture<'_, anyhow::Result<()>>)
            });
            let transfers: Vec<_> = own.chain(below).collect();
            futures::stream::iter(transfers).buffer_unordered(TRANSFERS).try_collect::<()>().await?;
            client.push_bytes(to, Bytes::from(image.config.clone())).await?;
            client.push_manifest(&pinned, media_type::MANIFEST, Bytes::from(image.manifest.clone())).await?;
        }
        Ok(())
    }

    async fn upload(&self, client: &Client, to: &Repository, layer: &Descriptor) -> anyhow::Result<()> {
        if client.has_blob(to, layer.digest).await? {
            return Ok(());
        }
        let path = self.store.blob(layer.digest);
        let mut file =
            tokio::fs::File::open(&path).await.with_context(|| format!("failed to read {}", path.display()))?;
        let mut upload = client.upload(to)?;
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece).await?;
            if count == 0 {
                break;
            }
            upload.write(piece.get(..count).unwrap_or_default()).await?;
        }
        upload.finish(layer.digest).await?;
        Ok(())
    }
}

fn write(image: &StoredImage, output: &Output) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("failed to write {}", path.display());
    match output {
        Output::Oci(path) => image.write_layout(path).with_context(|| failed(path)),
        Output::OciArchive(path) => image.write_archive(path).with_context(|| failed(path)),
        Output::DockerArchive(path) => image.write_docker_archive(path).with_context(|| failed(path)),
    }
}

fn base_layers(image: &Image) -> Vec<Descriptor> {
    image.base_layers.iter().map(BaseLayer::descriptor).collect()
}

fn descriptor(layer: &SourcedLayer) -> Descriptor {
    layer.layer.descriptor()
}
