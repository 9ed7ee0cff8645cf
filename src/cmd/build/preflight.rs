//! The preflight of an image before it is written or pushed: the indexes of its layers, from the store, the registry or the layers
//! themselves, and the verdict.

use std::{fs::File, sync::Arc};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture};

use super::{
    output::Finished,
    world::{World, blocking},
};
use crate::{
    api::v1alpha1::Preflight,
    domain::{
        artifact::{Layer, LayerIndexBlob},
        image::{BaseImage, base_layers},
        plan::Plan,
        preflight::{FileIndex, LayerIndex, Origin, Question, Severity, Start, check, refusal, unjudged},
        value::{Descriptor, Digest, Repository},
    },
    shell::layer_index::{IndexError, index_bytes, index_stream},
};

/// Layers that are read at the same time.
const READS: usize = 2;
const ADVICE: &str = "build it all the same with --preflight warn";

impl World {
    /// Says what is doubtful of the image.
    ///
    /// # Errors
    /// When it could not start, or what it is made of cannot be read.
    pub async fn preflight(self: &Arc<Self>, plan: &Plan, finished: &Finished) -> anyhow::Result<()> {
        let mode = self.outline.preflight;
        if mode == Preflight::Off {
            return Ok(());
        }
        let base = finished.base.as_ref();
        let below = finished
            .image
            .base_layers
            .iter()
            .filter_map(|layer| Some(Box::pin(self.base_index(base?, layer.descriptor())) as BoxFuture<'_, _>));
        let own = finished.layers.iter().enumerate().map(|(number, sourced)| {
            let origin = if number == 0 && plan.composed() { Origin::Base } else { Origin::Artifact };
            Box::pin(self.own_index(&sourced.layer, origin)) as BoxFuture<'_, _>
        });
        let reads: Vec<BoxFuture<'_, anyhow::Result<Option<(LayerIndex, Origin)>>>> = below.chain(own).collect();
        let indexes: Vec<_> = futures::stream::iter(reads).buffered(READS).try_collect().await?;
        // Of a layer that cannot be looked at it was said so.
        let Some(indexes) = indexes.into_iter().collect::<Option<Vec<_>>>() else { return Ok(()) };
        let start = Start::parse(&finished.image.config);
        let (platform, base) = (self.outline.platform.clone(), plan.base_name());
        let findings = blocking(move || {
            let files =
                indexes.into_iter().fold(FileIndex::default(), |files, (index, origin)| files.with(index, origin));
            anyhow::Ok(check(&Question { files: &files, start: &start, platform: &platform, base: &base, mode }))
        });
        let findings = findings.await?;
        findings.sentences(Severity::Warning).for_each(|sentence| self.progress.warn(&sentence));
        if let Some(refusal) = refusal(&findings, mode) {
            bail!("{refusal}\n{ADVICE}");
        }
        Ok(())
    }

    /// What the base has, where something is put onto it that depends on that.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn files_below(
        &self,
        plan: &Plan,
        base: Option<&BaseImage>,
        packages: Option<&Layer>,
    ) -> anyhow::Result<FileIndex> {
        let mut files = FileIndex::default();
        if !plan.includes() {
            return Ok(files);
        }
        let unknown = "spec.image.include needs to know what the base has";
        if let Some(base) = base {
            for layer in base_layers(base)? {
                let index = self.base_index(base.reference.repository(), layer.descriptor()).await?;
                let (index, origin) = index.context(unknown)?;
                files = files.with(index, origin);
            }
        }
        if let Some(layer) = packages {
            let index = self.stored_index(layer.digest).await?.context(unknown)?;
            files = files.with(index, Origin::Base);
        }
        Ok(files)
    }

    async fn base_index(
        &self,
        repository: &Repository,
        layer: Descriptor,
    ) -> anyhow::Result<Option<(LayerIndex, Origin)>> {
        if let Some(index) = self.known_index(self.store.layer_index(layer.digest)) {
            return Ok(Some((index, Origin::Base)));
        }
        let indexed = if self.store.has(layer.digest) {
            self.stored_index(layer.digest).await?
        } else {
            let blob = self.client().await?.blob(repository, layer.digest, layer.size).await?;
            match index_stream(blob.into_stream()).await {
                Ok(index) => Some(index),
                Err(IndexError::Source(error)) => return Err(error).context("failed to read the base's layers"),
                Err(error @ IndexError::Malformed(_)) => self.untold(&error.to_string()),
            }
        };
        if let Some(index) = &indexed {
            let bytes = index.clone().into_bytes();
            let blob = LayerIndexBlob { digest: self.store.write(&bytes)?, size: bytes.len() as u64 };
            self.store.put_layer_index(layer.digest, blob)?;
        }
        Ok(indexed.map(|index| (index, Origin::Base)))
    }

    async fn own_index(&self, layer: &Layer, origin: Origin) -> anyhow::Result<Option<(LayerIndex, Origin)>> {
        let index = match self.known_index(layer.index) {
            Some(index) => Some(index),
            None => self.stored_index(layer.digest).await?,
        };
        Ok(index.map(|index| (index, origin)))
    }

    fn known_index(&self, blob: Option<LayerIndexBlob>) -> Option<LayerIndex> {
        LayerIndex::parse(&self.store.read(blob?.digest).ok()??)
    }

    /// From a layer that is in the store.
    async fn stored_index(&self, layer: Digest) -> anyhow::Result<Option<LayerIndex>> {
        let path = self.store.blob(layer);
        let file = File::open(&path).with_context(|| format!("failed to read {}", path.display()))?;
        match blocking(move || index_bytes(file)).await {
            Ok(index) => Ok(Some(index)),
            Err(error) => Ok(self.untold(&format!("{layer}: {error:#}"))),
        }
    }

    fn untold(&self, problem: &str) -> Option<LayerIndex> {
        self.progress.warn(&unjudged(problem));
        None
    }
}
