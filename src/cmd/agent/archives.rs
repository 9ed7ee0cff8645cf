//! Archives that the build container sends beside its outputs: snapshots between steps, caches after them. No artifact depends on
//! them, so that whatever goes wrong with one costs that one alone.

use super::{
    Backend,
    outputs::{TransferError, upload},
};
use crate::{
    domain::{
        artifact::{ArtifactConfig, Layer, manifest},
        intake::Allowance,
        task::{AgentFailure, Sent},
        value::Digest,
    },
    shell::{pack::pack_archive, socket::Channel},
};

/// What was taken so far.
pub struct Archives<'a, B> {
    backend: &'a B,
    /// What they are, for messages.
    what: &'static str,
    allowance: Allowance,
    threads: usize,
    numbers: Vec<usize>,
    layers: Vec<Layer>,
}

impl<'a, B: Backend> Archives<'a, B> {
    /// None yet. `allowance` is for each of them.
    pub fn new(backend: &'a B, what: &'static str, allowance: Allowance, threads: usize) -> Self {
        Self { backend, what, allowance, threads, numbers: Vec::new(), layers: Vec::new() }
    }

    /// Takes the archive that the wrapper announced as `number`.
    pub async fn take(&mut self, number: usize, channel: Channel) -> Result<Channel, AgentFailure> {
        let (allowance, threads, what) = (self.allowance, self.threads, self.what);
        let pack = move |channel: &mut Channel, queue| pack_archive(channel, allowance, threads, queue);
        let (channel, packed) = upload(self.backend, channel, pack).await?;
        match packed {
            Ok(packed) => {
                self.numbers.push(number);
                self.layers.push(packed.layer);
            }
            Err(TransferError::Pack(error)) => tracing::warn!(number, %error, "no {what}"),
            Err(TransferError::Upload(error)) => tracing::warn!(number, ?error, "no {what}"),
        }
        Ok(channel)
    }

    /// Ties what was taken together; none when there is nothing, or it cannot be written.
    pub async fn commit(self) -> Option<Sent> {
        if self.layers.is_empty() {
            return None;
        }
        let config = ArtifactConfig::plain(&self.layers).to_bytes();
        let manifest = manifest(&config, &self.layers);
        let artifact = Digest::of(&manifest);
        let written = match self.backend.push_blob(config.into()).await {
            Ok(()) => self.backend.push_manifest(manifest.into()).await,
            failed => failed,
        };
        if let Err(failure) = written {
            tracing::warn!(message = failure.message, "no {}", self.what);
            return None;
        }
        Some(Sent { artifact, numbers: self.numbers })
    }
}
