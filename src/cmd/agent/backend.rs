//! What the agent needs of the world: a source, and the repository of artifacts.

use std::{future::Future, path::Path};

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{
    domain::{
        artifact::Layer,
        debian::base::Composition,
        recipe::Key,
        snapshot::Prefix,
        task::{AgentFailure, SourceTask},
        value::Digest,
    },
    shell::debian,
};

/// The compressed bytes of a layer as they come. What they are is checked by whoever reads them.
pub type LayerStream = BoxStream<'static, Result<Bytes, AgentFailure>>;

/// Why an upload did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadError {
    /// The session is lost, from the start another one may succeed; the failure counts if none does.
    Lost(AgentFailure),
    /// Trying again is useless.
    Final(AgentFailure),
}

/// One blob on its way, of unknown size and digest until its end.
pub trait LayerUpload: Send {
    /// Takes more bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), UploadError>> + Send;
    /// Commits the blob, which has this digest and size.
    fn finish(self, digest: Digest, size: u64) -> impl Future<Output = Result<(), UploadError>> + Send;
}

/// Sources and the cache repository, real or in memory.
pub trait Backend: Send + Sync {
    /// See [`LayerUpload`].
    type Upload: LayerUpload;

    /// Fills the existing, empty directory `into` with the source (its `directory` is the top); gives when its revision was
    /// made, in seconds since 1970, where that is known.
    fn fetch_source(
        &self,
        source: &SourceTask,
        into: &Path,
    ) -> impl Future<Output = Result<Option<i64>, AgentFailure>> + Send;
    /// Puts a base together of packages that are at `urls`, with room in the existing directory `work`.
    fn compose(
        &self,
        composition: &Composition,
        urls: &[String],
        work: &Path,
    ) -> impl Future<Output = Result<debian::Base, AgentFailure>> + Send;
    /// The artifact that a signed record names for `key`.
    fn lookup(&self, key: Key) -> impl Future<Output = Result<Option<Digest>, AgentFailure>> + Send;
    /// The first step to run, once what the steps before each cut take from the source is known: the build container starts from
    /// an image that has those before it. Only asked for when the steps have to run.
    fn start(&self, prefixes: &[Prefix]) -> impl Future<Output = Result<usize, AgentFailure>> + Send;
    /// What a cache held after the last build that sent it; none where that cannot be read, too.
    fn cache(&self, key: Key) -> impl Future<Output = Option<Layer>> + Send;
    /// Begins to read a layer.
    fn open_layer(&self, layer: &Layer) -> impl Future<Output = Result<LayerStream, AgentFailure>> + Send;
    /// Begins to write a layer.
    fn begin_upload(&self) -> impl Future<Output = Result<Self::Upload, UploadError>> + Send;
    /// Writes a small blob, with retries of its own.
    fn push_blob(&self, bytes: Bytes) -> impl Future<Output = Result<(), AgentFailure>> + Send;
    /// Writes a manifest by its digest, with retries of its own.
    fn push_manifest(&self, bytes: Bytes) -> impl Future<Output = Result<(), AgentFailure>> + Send;
}
