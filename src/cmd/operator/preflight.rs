//! The preflight of an image before anything of it is pushed: the indexes of its layers, read where nobody has them yet, and the
//! verdict. A base's index is used only for who has just read the base's manifest with credentials of their own.

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::{Mutex, PoisonError},
    time::Duration,
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
        image::{BaseImage, BaseLayer, base_layers},
        preflight::{
            Distribution, FileIndex, Findings, LayerIndex, Origin, Question, Severity, Start, check, refusal, unjudged,
        },
        value::{Descriptor, Digest, Repository},
    },
    shell::{
        layer_index::{IndexError, index_bytes, index_stream},
        registry::{Client, RegistryError},
    },
};

/// So long it may take to read what is not known yet; then there is no verdict.
const LONGEST: Duration = Duration::from_mins(10);
/// Layers that are read at the same time for one image.
const READS: usize = 4;
/// Bytes of a stored index.
const LARGEST_INDEX: u64 = 32 << 20;
/// Bytes of indexes of bases that are remembered.
const MOST_BYTES: usize = 64 << 20;

/// Indexes of layers by their digest, as they are stored. They follow from content; all may be forgotten at any time.
#[derive(Default)]
pub(super) struct Indexes(Mutex<BTreeMap<Digest, Bytes>>);

impl Indexes {
    fn get(&self, layer: Digest) -> Option<LayerIndex> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&layer).cloned();
        bytes.and_then(|bytes| LayerIndex::parse(&bytes))
    }

    fn put(&self, layer: Digest, index: LayerIndex) {
        let bytes = Bytes::from(index.into_bytes());
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
        let _permit = self.world.preflights.acquire().await;
        let reads =
            places(clients, publication, made).into_iter().map(|(place, origin)| self.index_with(place, origin));
        let reads: Vec<BoxFuture<'_, _>> = reads.collect();
        let indexes = futures::stream::iter(reads).buffered(READS).try_collect();
        let indexes: Vec<(LayerIndex, Origin)> = match tokio::time::timeout(LONGEST, indexes).await {
            Ok(Ok(indexes)) => indexes,
            Ok(Err(Unread::Trouble(trouble))) => return Err(trouble),
            Ok(Err(Unread::Malformed(problem))) => return nothing(Some(unjudged(&problem))),
            Err(_) => return nothing(Some(unjudged(&format!("reading its layers took over {LONGEST:?}")))),
        };
        let (findings, distribution) = judged(indexes, publication, made).await;
        match refusal(&findings) {
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
        let mut files = FileIndex::default();
        let includes = publication.layers.iter().any(|layer| matches!(layer, PublicationLayer::Include(_)));
        if !includes {
            return Ok(files);
        }
        let invalid = |problem: String| Trouble { reason: Reason::RegistryInvalid, message: problem };
        let layers = base.map_or(Ok(Vec::new()), base_layers).map_err(|error| invalid(error.to_string()))?;
        let below = layers.into_iter().filter_map(|BaseLayer { media_type, digest, size }| {
            let layer = Descriptor { media_type, digest, size };
            Some(Place::There { client: &clients.pull, repository: base?.reference.repository(), layer, index: None })
        });
        let packages = match publication.layers.first() {
            Some(PublicationLayer::Artifact(sourced)) if publication.composed => Some(Place::There {
                client: &clients.cache,
                repository: &publication.cache,
                layer: sourced.layer.descriptor(),
                index: sourced.layer.index,
            }),
            _ => None,
        };
        let _permit = self.world.preflights.acquire().await;
        for place in below.chain(packages) {
            let read = tokio::time::timeout(LONGEST, self.layer_index(place)).await;
            files = match read.unwrap_or_else(|_| Err(Unread::Malformed(format!("it took over {LONGEST:?}")))) {
                Ok(index) => files.with(index, Origin::Base),
                Err(Unread::Trouble(trouble)) => return Err(trouble),
                Err(Unread::Malformed(problem)) => {
                    return Err(invalid(format!("spec.image.include needs to know what the base has: {problem}")));
                }
            };
        }
        Ok(files)
    }

    fn index_with<'a>(
        &'a self,
        place: Place<'a>,
        origin: Origin,
    ) -> BoxFuture<'a, Result<(LayerIndex, Origin), Unread>> {
        async move { Ok((self.layer_index(place).await?, origin)) }.boxed()
    }

    async fn layer_index(&self, place: Place<'_>) -> Result<LayerIndex, Unread> {
        let trouble = |error| Unread::Trouble(registry_trouble(&error));
        let (client, repository, layer, index) = match place {
            Place::Here(bytes) => {
                return index_bytes(Cursor::new(bytes)).map_err(|error| Unread::Malformed(error.to_string()));
            }
            Place::There { client, repository, layer, index } => (client, repository, layer, index),
        };
        if let Some(index) = self.world.indexes.get(layer.digest) {
            return Ok(index);
        }
        if let Some(blob) = index.filter(|blob| blob.size <= LARGEST_INDEX) {
            match client.blob_bytes(repository, blob.digest, blob.size).await {
                Ok(bytes) => {
                    if let Some(index) = LayerIndex::parse(&bytes) {
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
                self.world.indexes.put(layer.digest, index.clone());
                Ok(index)
            }
            Err(IndexError::Source(error)) => Err(trouble(error)),
            Err(error @ IndexError::Malformed(_)) => Err(Unread::Malformed(format!("{}: {error}", layer.digest))),
        }
    }
}

/// All layers of the image, lowest first.
fn places<'a>(clients: &'a Clients, publication: &'a Publication, made: &'a Made) -> Vec<(Place<'a>, Origin)> {
    let base = publication.base.as_ref().map(|(reference, _)| reference.repository());
    let below = made.image.base_layers.iter().filter_map(|layer| {
        let layer = Descriptor { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
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
    below.chain(own).collect()
}

/// Beside everything else: an image may have many files.
async fn judged(
    indexes: Vec<(LayerIndex, Origin)>,
    publication: &Publication,
    made: &Made,
) -> (Findings, Distribution) {
    let start = Start::parse(&made.image.config);
    let base = publication.base_name.clone();
    let (platform, mode) = (publication.platform.clone(), publication.preflight);
    let work = move || {
        let files = indexes.into_iter().fold(FileIndex::default(), |files, (index, origin)| files.with(index, origin));
        let findings = check(&Question { files: &files, start: &start, platform: &platform, base: &base, mode });
        (findings, Distribution::of(&files))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}
