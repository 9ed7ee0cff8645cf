//! The preflight of an image before anything of it is pushed: the indexes of its layers, read where nobody has them yet, and the
//! verdict. A base's index is used only for who has just read the base's manifest with credentials of their own.

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture};

use super::{
    answers::{Answers, registry_trouble},
    publish::{Clients, Made},
};
use crate::{
    api::{conditions::Reason, v1alpha1::Preflight},
    domain::{
        artifact::LayerIndexBlob,
        decide::{Publication, PublicationLayer, Trouble},
        image::{BaseImage, base_layers},
        preflight::{
            Distribution, FileIndex, Findings, LayerIndex, Origin, Question, Severity, Start, check, refusal, unjudged,
        },
        value::{Descriptor, Digest, Repository},
    },
    shell::{
        layer_index::{IndexError, LONGEST, index_bytes, index_stream},
        registry::{Client, RegistryError},
    },
};

/// Layers that are read at the same time for one image.
const READS: usize = 2;
/// Bytes of a stored index.
const LARGEST_INDEX: u64 = 32 << 20;
/// Bytes of indexes of bases that are remembered.
const MOST_BYTES: usize = 64 << 20;

/// Indexes of layers as they are stored, by repository and digest: who has just read a manifest there may know what it names. They
/// follow from content; all may be forgotten at any time.
#[derive(Default)]
pub(super) struct Indexes(Mutex<BTreeMap<(Repository, Digest), Bytes>>);

impl Indexes {
    fn get(&self, layer: &(Repository, Digest)) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }

    fn put(&self, layer: (Repository, Digest), bytes: Bytes) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = held.values().map(Bytes::len).sum();
        if total + bytes.len() > MOST_BYTES {
            held.clear();
        }
        held.insert(layer, bytes);
    }
}

/// Where the bytes of a layer are.
enum Place<'a> {
    Here(Bytes),
    There { client: &'a Client, repository: &'a Repository, layer: Descriptor, index: Option<LayerIndexBlob> },
}

/// Why there is no index.
enum Unread {
    Trouble(Trouble),
    Malformed(String),
}

impl Answers<'_> {
    /// What is doubtful of the image, and what its base is; that it cannot start is trouble.
    pub(super) async fn preflight(
        &self,
        clients: &Clients,
        publication: &Publication,
        made: &Made,
    ) -> Result<(Vec<String>, Distribution), Trouble> {
        let nothing = |warning: Option<String>| Ok((warning.into_iter().collect(), Distribution::default()));
        if publication.preflight == Preflight::Off {
            return nothing(None);
        }
        let _turn = self.world.preflights.wait(&self.id.namespace).await;
        let (below, own) = places(clients, publication, made);
        let read = async {
            let base = self.with_layers(FileIndex::default(), below).await?;
            let distribution = Distribution::of(&base);
            Ok((self.with_layers(base, own).await?, distribution))
        };
        let (files, distribution) = match tokio::time::timeout(LONGEST, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(Unread::Trouble(trouble))) => return Err(trouble),
            Ok(Err(Unread::Malformed(problem))) => return nothing(Some(unjudged(&problem))),
            Err(_) => return nothing(Some(unjudged(&format!("reading its layers took over {LONGEST:?}")))),
        };
        let Some(findings) = judged(files, publication, made).await else {
            return nothing(Some(unjudged("the check ended early")));
        };
        match refusal(&findings, publication.preflight) {
            Some(message) => Err(Trouble { reason: Reason::PreflightRefused, message }),
            None => Ok((findings.sentences(Severity::Warning).collect(), distribution)),
        }
    }

    /// What the base has, where something is put onto it that depends on that.
    pub(super) async fn files_below(
        &self,
        clients: &Clients,
        publication: &Publication,
        base: Option<&BaseImage>,
    ) -> Result<FileIndex, Trouble> {
        let files = FileIndex::default();
        let includes = publication.layers.iter().any(|layer| matches!(layer, PublicationLayer::Include(_)));
        if !includes {
            return Ok(files);
        }
        let trouble = |reason, problem: &str| Trouble {
            reason,
            message: format!("spec.image.include and certificates need to know what the base has: {problem}"),
        };
        let layers = base.map_or(Ok(Vec::new()), base_layers);
        let layers = layers.map_err(|error| trouble(Reason::RegistryInvalid, &error.to_string()))?;
        let below = layers.iter().filter_map(|layer| {
            let (repository, layer) = (base?.reference.repository(), layer.descriptor());
            Some(Place::There { client: &clients.pull, repository, layer, index: None })
        });
        let packages = match publication.layers.first() {
            // Its files get into the image by what is read here: an agent's word of them is not enough.
            Some(PublicationLayer::Artifact(sourced)) if publication.composed => Some(Place::There {
                client: &clients.cache,
                repository: &publication.cache,
                layer: sourced.layer.descriptor(),
                index: None,
            }),
            _ => None,
        };
        let places = below.chain(packages).map(|place| (place, Origin::Base)).collect();
        let _turn = self.world.preflights.wait(&self.id.namespace).await;
        match tokio::time::timeout(LONGEST, self.with_layers(files, places)).await {
            Ok(Ok(files)) => Ok(files),
            Ok(Err(Unread::Trouble(trouble))) => Err(trouble),
            Ok(Err(Unread::Malformed(problem))) => Err(trouble(Reason::RegistryInvalid, &problem)),
            Err(_) => Err(trouble(Reason::RegistryUnavailable, &format!("reading it took over {LONGEST:?}"))),
        }
    }

    /// `files` with layers on top, each of which is read while the one below it is put there.
    async fn with_layers(&self, files: FileIndex, places: Vec<(Place<'_>, Origin)>) -> Result<FileIndex, Unread> {
        let reads = places
            .into_iter()
            .map(|(place, origin)| async move { Ok((self.layer_index(place).await?, origin)) }.boxed());
        let reads: Vec<BoxFuture<'_, Result<(LayerIndex, Origin), Unread>>> = reads.collect();
        let mut reads = futures::stream::iter(reads).buffered(READS);
        let mut files = files;
        while let Some((index, origin)) = reads.try_next().await? {
            let with = tokio::task::spawn_blocking(move || files.with(index, origin));
            files = with.await.map_err(|error| Unread::Malformed(error.to_string()))?;
        }
        Ok(files)
    }

    async fn layer_index(&self, place: Place<'_>) -> Result<LayerIndex, Unread> {
        let trouble = |error| Unread::Trouble(registry_trouble(&error));
        let (client, repository, layer, index) = match place {
            Place::Here(bytes) => {
                return index_bytes(Cursor::new(bytes)).map_err(|error| Unread::Malformed(error.to_string()));
            }
            Place::There { client, repository, layer, index } => (client, repository, layer, index),
        };
        let name = (repository.clone(), layer.digest);
        if let Some(bytes) = self.world.indexes.get(&name)
            && let Some(index) = parsed(bytes).await
        {
            return Ok(index);
        }
        if let Some(blob) = index.filter(|blob| blob.size <= LARGEST_INDEX) {
            match client.blob_bytes(repository, blob.digest, blob.size).await {
                Ok(bytes) => {
                    if let Some(index) = parsed(bytes).await {
                        return Ok(index);
                    }
                }
                // The layer itself tells the same.
                Err(RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(trouble(error)),
            }
        }
        let blob = client.blob(repository, layer.digest, layer.size).await.map_err(trouble)?;
        match index_stream(blob.into_stream()).await {
            Ok(index) => {
                self.world.indexes.put(name, Bytes::from(index.clone().into_bytes()));
                Ok(index)
            }
            Err(IndexError::Source(error)) => Err(trouble(error)),
            Err(error @ IndexError::Malformed(_)) => Err(Unread::Malformed(format!("{}: {error}", layer.digest))),
        }
    }
}

/// The layers of an image's base, and those on top of them, lowest first.
type Places<'a> = (Vec<(Place<'a>, Origin)>, Vec<(Place<'a>, Origin)>);

fn places<'a>(clients: &'a Clients, publication: &'a Publication, made: &'a Made) -> Places<'a> {
    let base = publication.base.as_ref().map(|(reference, _)| reference.repository());
    let below = made.image.base_layers.iter().filter_map(|layer| {
        let layer = layer.descriptor();
        Some((Place::There { client: &clients.pull, repository: base?, layer, index: None }, Origin::Base))
    });
    let own = made.layers.iter().enumerate().map(|(number, (sourced, bytes))| {
        let origin = if number == 0 && publication.composed { Origin::Base } else { Origin::Artifact };
        let place = match bytes {
            Some(bytes) => Place::Here(bytes.clone()),
            None => Place::There {
                client: &clients.cache,
                repository: &publication.cache,
                layer: sourced.layer.descriptor(),
                index: sourced.layer.index,
            },
        };
        (place, origin)
    });
    (below.collect(), own.collect())
}

/// Beside everything else: it may be large.
async fn parsed(bytes: Bytes) -> Option<LayerIndex> {
    tokio::task::spawn_blocking(move || LayerIndex::parse(&bytes)).await.ok().flatten()
}

/// Beside everything else: an image may have many files. None when it did not come to an end.
async fn judged(files: FileIndex, publication: &Publication, made: &Made) -> Option<Findings> {
    let start = Start::parse(&made.image.config);
    let base = publication.base_name.clone();
    let (platform, mode) = (publication.platform.clone(), publication.preflight);
    let work = move || check(&Question { files: &files, start: &start, platform: &platform, base: &base, mode });
    tokio::task::spawn_blocking(work).await.ok()
}
