//! Builder and base images on this machine: what references point to, and the layers of builders, unpacked.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture};
use serde::Deserialize;

use super::world::{World, blocking};
use crate::{
    cli::RootFileSystem,
    domain::{
        artifact::Layer,
        image::RuntimeConfig,
        value::{Descriptor, Digest, Platform, Reference, Repository},
    },
    shell::{
        registry::{Client, RegistryError},
        sandbox::{Flat, PackedLayer, Request, Session, Unpack},
        store::Resolved,
    },
};

/// So many seconds a tag is not looked up again: one build after the other.
const FRESH: i64 = 60;
/// Layers that are fetched at the same time.
const TRANSFERS: usize = 4;

/// What a stage needs of its builder image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Names of its unpacked layers, lowest first.
    pub chains: Vec<String>,
    /// Whether all layers are in the only one of them.
    pub flat: bool,
    /// Variables of its config.
    pub env: Vec<String>,
    /// User of its config.
    pub user: String,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

impl World {
    /// What `reference` points to: as remembered where it is pinned or was just looked up, else by its registry.
    pub async fn resolve(&self, reference: &Reference) -> anyhow::Result<Resolved> {
        let known = self.store.resolved(reference, &self.outline.platform);
        let usable = |known: &&Resolved| {
            let fresh = !self.args.input.pull && (0..FRESH).contains(&self.now.as_second().saturating_sub(known.time));
            reference.digest().is_some() || fresh
        };
        if let Some(known) = known.as_ref().filter(usable) {
            return Ok(known.clone());
        }
        match self.look_up(reference).await {
            Ok(found) => Ok(found),
            Err(error) => match (error.downcast_ref(), known) {
                (Some(RegistryError::Unavailable { .. }), Some(known)) => {
                    self.progress.warn(&format!("{error:#}: {reference} is taken as it was, {}", known.digest));
                    Ok(known)
                }
                _ => Err(error),
            },
        }
    }

    async fn look_up(&self, reference: &Reference) -> anyhow::Result<Resolved> {
        let client = self.client().await?;
        let found = client.resolve(reference, &self.outline.platform).await?;
        let found = found.ok_or_else(|| anyhow!("{reference} does not exist in its registry: check name and tag"))?;
        let size = client.unpacked_size(reference.repository(), &found).await?;
        let resolved = Resolved {
            digest: found.reference_digest,
            manifest: self.store.write(&found.manifest.bytes)?,
            config: self.store.write(&found.config)?,
            size,
            compressed_size: found.compressed_size,
            time: self.now.as_second(),
        };
        self.store.put_resolved(reference, &self.outline.platform, &resolved)?;
        Ok(resolved)
    }

    /// The layers of an image that was resolved.
    pub fn layers(&self, image: &Resolved) -> anyhow::Result<Vec<Descriptor>> {
        let manifest: Manifest =
            serde_json::from_slice(&self.blob(image.manifest)?).context("its manifest is broken")?;
        Ok(manifest.layers)
    }

    /// A blob that must be in the store.
    pub fn blob(&self, digest: Digest) -> anyhow::Result<Bytes> {
        Ok(self.store.read(digest)?.ok_or_else(|| anyhow!("{digest} is no longer in the store"))?.into())
    }

    /// The builder image and the layers of a snapshot on top of it, all of them unpacked.
    pub async fn builder(
        self: &Arc<Self>,
        stage: &str,
        reference: &Reference,
        snapshot: &[Layer],
    ) -> anyhow::Result<Builder> {
        let image = self.resolve(reference).await?;
        let RuntimeConfig { env, user, .. } = RuntimeConfig::parse(&self.blob(image.config)?);
        let mut layers = self.layers(&image)?;
        layers.extend(snapshot.iter().map(Layer::descriptor));
        let env = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let stacked = Builder { chains: chains(&layers), flat: false, env, user };
        // One for all layers: its name is the uppermost one's, which stands for all below it too.
        let top = stacked.chains.last().map(|top| flat_name(top));
        let flat = Builder { chains: top.into_iter().collect(), flat: true, ..stacked.clone() };
        let builder = match self.args.rootfs {
            RootFileSystem::Copy => flat,
            RootFileSystem::Auto if self.is_unpacked(&stacked) => stacked,
            RootFileSystem::Auto if !self.has_overlays().await? => flat,
            RootFileSystem::Auto | RootFileSystem::Overlay => stacked,
        };
        if !self.is_unpacked(&builder) {
            let pulled = self.pull(stage, reference, &layers, &builder).await;
            pulled.with_context(|| format!("failed to pull {reference}"))?;
        }
        Ok(builder)
    }

    /// Whether the store's file system and this user can have overlays.
    async fn has_overlays(&self) -> anyhow::Result<bool> {
        self.overlays.get_or_try_init(|| self.try_overlays()).await.copied()
    }

    async fn try_overlays(&self) -> anyhow::Result<bool> {
        let directory = self.store.run_directory()?;
        let probe = Request::Probe { directory: directory.path().to_owned() };
        let Err(error) = Session::start(&probe).await?.finish().await else { return Ok(true) };
        self.progress.warn(&format!("each stage gets a copy of its builder image, which takes time and room: {error}"));
        Ok(false)
    }

    fn is_unpacked(&self, builder: &Builder) -> bool {
        let chains = self.store.chains();
        builder.chains.iter().all(|chain| chains.join(chain).exists())
    }

    async fn pull(
        self: &Arc<Self>,
        stage: &str,
        reference: &Reference,
        layers: &[Descriptor],
        builder: &Builder,
    ) -> anyhow::Result<()> {
        // Images share layers, and what one build unpacks another one need not.
        let store = self.store.clone();
        let _hold = blocking(move || store.lock("pull")).await?;
        if self.is_unpacked(builder) {
            return Ok(());
        }
        let chains = self.store.chains();
        let names = self::chains(layers);
        // All in one, what is missing begins behind the largest part that was unpacked before.
        let mut unpacked = names.iter().map(|name| flat_name(name)).enumerate().filter(|_| builder.flat);
        let below = unpacked.rfind(|(_, name)| chains.join(name).exists());
        let (first, below) = below.map_or((0, None), |(place, name)| (place + 1, Some(name)));
        let (layers, names) = (layers.get(first..).unwrap_or_default(), names.get(first..).unwrap_or_default());
        let missing = layers.iter().zip(names).filter(|(_, chain)| builder.flat || !chains.join(chain).exists());
        let missing: Vec<Descriptor> = missing.map(|(layer, _)| layer.clone()).collect();
        let fetched = self.fetch(stage, reference.repository(), &missing).await?;
        self.progress.state(stage, "unpacking");
        let scratch = self.store.run_directory()?;
        let packed = layers.iter().zip(names);
        let packed = packed
            .map(|(layer, chain)| PackedLayer { blob: self.store.blob(layer.digest), chain: chain.clone() })
            .collect();
        let flat = builder.chains.first().filter(|_| builder.flat);
        let flat = flat.map(|name| Flat { name: name.clone(), below });
        let unpack = Unpack { chains, scratch: scratch.path().to_owned(), layers: packed, flat };
        Session::start(&Request::Unpack(unpack)).await?.finish().await?;
        // Unpacked they are enough, and twice as much is too much.
        for digest in fetched {
            let _ = std::fs::remove_file(self.store.blob(digest));
        }
        Ok(())
    }

    /// Brings blobs of a repository into the store; gives those that were not there.
    pub async fn fetch(
        &self,
        stage: &str,
        repository: &Repository,
        layers: &[Descriptor],
    ) -> anyhow::Result<Vec<Digest>> {
        let missing: Vec<&Descriptor> = layers.iter().filter(|layer| !self.store.has(layer.digest)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let total = missing.iter().map(|layer| layer.size).sum();
        let counter = self.progress.transfer(stage, "pulling", total);
        let transfers = missing.iter().map(|layer| self.fetch_one(&client, repository, layer, &counter).boxed());
        let transfers: Vec<BoxFuture<'_, _>> = transfers.collect();
        futures::stream::iter(transfers).buffer_unordered(TRANSFERS).try_collect::<()>().await?;
        Ok(missing.iter().map(|layer| layer.digest).collect())
    }

    async fn fetch_one(
        &self,
        client: &Client,
        repository: &Repository,
        layer: &Descriptor,
        counter: &super::progress::Transfer<'_>,
    ) -> anyhow::Result<()> {
        let mut blob = client.blob(repository, layer.digest, layer.size).await?;
        let mut writer = self.store.writer()?;
        while let Some(piece) = blob.next().await? {
            counter.add(piece.len() as u64);
            writer = blocking(move || writer.write(&piece).map(|()| writer)).await?;
        }
        blocking(move || writer.finish()).await?;
        Ok(())
    }
}

/// The name of the directory that has a layer and all below it in one.
fn flat_name(chain: &str) -> String {
    format!("{chain}-flat")
}

/// Names of unpacked layers, each of which stands for that layer over those before it.
fn chains(layers: &[Descriptor]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for layer in layers {
        let below = chains.last().map(String::as_str).unwrap_or_default();
        chains.push(Digest::of(format!("{below} {}", layer.digest).as_bytes()).short(32));
    }
    chains
}

/// The registry's platform names for this machine.
#[must_use]
pub fn this_machine() -> Platform {
    Platform::linux(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    })
}
