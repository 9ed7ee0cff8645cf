//! Puts an image together in its registry: layers mounted or streamed, then config, manifest, and the tags last.

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, try_join_all},
};

use crate::{
    api::conditions::Reason,
    domain::{
        artifact::OutputReport,
        debug,
        decide::{Publication, PublicationLayer, Published, Trouble},
        files_layer,
        image::{self, AssembleError, BaseImage, BaseLayer, Image, SourcedLayer},
        include, media_type,
        preflight::FileIndex,
        value::{Descriptor, Reference, Repository},
    },
    shell::registry::{Client, RegistryError},
};

use super::answers::{Answers, registry_trouble};

/// Layers that travel at the same time.
const TRANSFERS: usize = 4;

/// The clients for the three places that an image has to do with.
pub(super) struct Clients {
    pub(super) pull: Client,
    pub(super) cache: Client,
    pub(super) destination: Client,
}

/// An image before it is pushed.
pub(super) struct Made {
    pub(super) image: Image,
    /// Its layers on top of the base; those made here with their bytes.
    pub(super) layers: Vec<(SourcedLayer, Option<Bytes>)>,
    /// What the layer of the spec's own files holds.
    pub(super) files: Option<OutputReport>,
    /// The debug image, and the layer that makes it.
    pub(super) debug: Option<(Image, SourcedLayer)>,
}

impl Answers<'_> {
    pub(super) async fn publish(&self, publication: &Publication) -> Result<Published, Trouble> {
        let (pull, cache, destination) =
            futures::try_join!(self.pull_client(), self.cache_client(), self.destination_client())?;
        let clients = Clients { pull, cache, destination };
        let made = self.put_together(&clients, publication).await?;
        let (warnings, distribution) = self.preflight(&clients, publication, &made).await?;
        self.push(&clients, publication, &made).await?;
        self.tag(&clients, publication, &made).await?;
        let Made { image, layers, files, debug } = made;
        Ok(Published {
            digest: image.digest,
            base_layers: image.base_layers,
            base_created: image.base_created,
            layers: layers.into_iter().map(|(layer, _)| layer).collect(),
            files,
            distribution,
            warnings,
            debug: debug.map(|(image, _)| image.digest),
        })
    }

    /// What the image is made of; nothing is pushed.
    pub(super) async fn put_together(&self, clients: &Clients, publication: &Publication) -> Result<Made, Trouble> {
        let base = self.base(clients, publication).await?;
        let below = self.files_below(clients, publication, base.as_ref()).await?;
        let (layers, files) = own_layers(publication, &below)?;
        let sourced: Vec<SourcedLayer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let invalid = |error: AssembleError| Trouble { reason: Reason::RegistryInvalid, message: error.to_string() };
        let (base, config, platform) = (base.as_ref(), &publication.image, &publication.platform);
        let image = image::assemble(base, &sourced, config, platform).map_err(invalid)?;
        let debug = publication.debug.as_ref().map(|tools| {
            let debug = debug::image(base, (&image, &sourced), tools, config, platform)?;
            Ok((debug, tools.clone()))
        });
        let debug = debug.transpose().map_err(invalid)?;
        Ok(Made { image, layers, files, debug })
    }

    async fn base(&self, clients: &Clients, publication: &Publication) -> Result<Option<BaseImage>, Trouble> {
        let Some((reference, digest)) = &publication.base else { return Ok(None) };
        let pinned = reference.repository().pinned(*digest);
        let found = clients.pull.resolve(&pinned, &publication.platform).await;
        let Some(found) = found.map_err(|error| registry_trouble(&error))? else {
            let message = format!("the base image {pinned} is no longer in its registry");
            return Err(Trouble { reason: Reason::ImageNotFound, message });
        };
        Ok(Some(BaseImage {
            reference: reference.clone(),
            digest: *digest,
            manifest: found.manifest.bytes.to_vec(),
            config: found.config.to_vec(),
        }))
    }

    /// Everything but the tags.
    pub(super) async fn push(&self, clients: &Clients, publication: &Publication, made: &Made) -> Result<(), Trouble> {
        self.transfer(clients, publication, made).await.map_err(|error| registry_trouble(&error))
    }

    async fn transfer(&self, clients: &Clients, publication: &Publication, made: &Made) -> Result<(), RegistryError> {
        let Made { image, layers, debug, .. } = made;
        self.transfer_image((clients, publication), image, &image.base_layers, layers).await?;
        if let Some((debug, layer)) = debug {
            // What is below it has just come there.
            self.transfer_image((clients, publication), debug, &[], &[(layer.clone(), None)]).await?;
        }
        Ok(())
    }

    /// When the registry has the manifest, it has all that it names.
    async fn transfer_image(
        &self,
        (clients, publication): (&Clients, &Publication),
        image: &Image,
        base_layers: &[BaseLayer],
        layers: &[(SourcedLayer, Option<Bytes>)],
    ) -> Result<(), RegistryError> {
        let to = &publication.repository;
        let pinned = to.pinned(image.digest);
        if clients.destination.head_at_origin(&pinned).await?.is_some() {
            return Ok(());
        }
        let base = publication.base.as_ref().map(|(reference, _)| reference.repository().clone());
        let from_base = base_layers.iter().filter_map(|layer| Some((&clients.pull, base.clone()?, layer.descriptor())));
        let from_cache = layers
            .iter()
            .filter(|(_, bytes)| bytes.is_none())
            .map(|(layer, _)| (&clients.cache, publication.cache.clone(), layer.layer.descriptor()));
        let transfers = from_base.chain(from_cache).map(|(client, from, descriptor)| {
            transfer(clients.destination.clone(), client.clone(), from, to.clone(), descriptor)
        });
        let transfers: Vec<BoxFuture<_>> = transfers.collect();
        let transfers = futures::stream::iter(transfers).buffer_unordered(TRANSFERS).try_collect::<()>();
        let made = layers.iter().filter_map(|(_, bytes)| bytes.clone()).chain([Bytes::from(image.config.clone())]);
        let made = try_join_all(made.map(|bytes| clients.destination.push_bytes(to, bytes)));
        futures::try_join!(transfers, made)?;
        let manifest = Bytes::from(image.manifest.clone());
        clients.destination.push_manifest(&pinned, media_type::MANIFEST, manifest).await.map(|_| ())
    }

    /// The tags, if the spec is still the one that was built: a late result must not take the name of a newer one.
    async fn tag(&self, clients: &Clients, publication: &Publication, made: &Made) -> Result<(), Trouble> {
        let current = self.world.cluster.generation(self.image).await;
        let current =
            current.map_err(|error| Trouble { reason: Reason::BuildInterrupted, message: error.to_string() })?;
        if current != Some(publication.generation) {
            let message = "the spec changed while its image was being pushed; no tag was written".to_owned();
            return Err(Trouble { reason: Reason::BuildInterrupted, message });
        }
        let push = async |tag: Reference, image: &Image| {
            let manifest = Bytes::from(image.manifest.clone());
            clients.destination.push_manifest(&tag, media_type::MANIFEST, manifest).await
        };
        // Whoever sees the image's tag finds its debug image.
        if let Some((image, _)) = &made.debug {
            let tags = publication.tags.iter().filter_map(|tag| debug::tag(tag).ok());
            try_join_all(tags.map(|tag| push(tag, image))).await.map_err(|error| registry_trouble(&error))?;
        }
        let tags = publication.tags.iter().map(|tag| push(tag.clone(), &made.image));
        try_join_all(tags).await.map(|_| ()).map_err(|error| registry_trouble(&error))
    }
}

/// Brings one layer into `to`.
fn transfer(
    destination: Client,
    source: Client,
    from: Repository,
    to: Repository,
    layer: Descriptor,
) -> BoxFuture<'static, Result<(), RegistryError>> {
    async move {
        let transfer = destination.mount_or_copy(&source, &from, &to, &layer).await?;
        tracing::info!(layer = %layer.digest, bytes = layer.size, ?transfer, "layer");
        Ok(())
    }
    .boxed()
}

/// The layers on top of the base; those made here with their bytes.
type OwnLayers = (Vec<(SourcedLayer, Option<Bytes>)>, Option<OutputReport>);

fn own_layers(publication: &Publication, below: &FileIndex) -> Result<OwnLayers, Trouble> {
    let invalid = |field: &str, error: &dyn std::error::Error| Trouble {
        reason: Reason::InvalidSpec,
        message: format!("spec.{field}: {error}"),
    };
    let mut report = None;
    let mut layers = Vec::new();
    for layer in &publication.layers {
        match layer {
            PublicationLayer::Artifact(layer) => layers.push((layer.clone(), None)),
            PublicationLayer::Files(files) => {
                let packed = files_layer::pack_files(files, publication.has_base);
                let packed = packed.map_err(|error| invalid("image.files", &error))?;
                let layer = SourcedLayer { layer: packed.layer, from: "files".into() };
                layers.push((layer, Some(Bytes::from(packed.bytes))));
                report = Some(packed.report);
            }
            PublicationLayer::Include(wanted) => {
                let packed = include::layer(*wanted, publication.certificates.as_deref(), below, publication.has_base);
                if let Some(packed) = packed.map_err(|error| invalid(error.field(), &error))? {
                    let layer = SourcedLayer { layer: packed.layer, from: "include".into() };
                    layers.push((layer, Some(Bytes::from(packed.bytes))));
                }
            }
        }
    }
    Ok((layers, report))
}
