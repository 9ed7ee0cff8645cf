//! Archives that the build container sends beside its outputs: snapshots between steps, caches after them. No artifact depends on
//! them, so that whatever goes wrong with one costs that one alone.

use std::io;

use super::{
    Backend, blocking, interrupted,
    outputs::{TransferError, upload},
};
use crate::{
    domain::{
        artifact::{Layer, of_layers},
        intake::Allowance,
        task::{AgentFailure, Sent},
        value::Digest,
    },
    shell::{
        pack::pack_archive,
        socket::{Channel, SocketError},
    },
};

/// What was taken so far.
pub struct Archives<'a, B> {
    backend: &'a B,
    /// What they are, for messages.
    what: &'static str,
    /// What is left of it.
    allowance: Allowance,
    threads: usize,
    /// Whether each is on top of the one before, and so worth nothing without it.
    chained: bool,
    broken: bool,
    /// The smallest number that may come yet.
    next: usize,
    numbers: Vec<usize>,
    layers: Vec<Layer>,
}

impl<'a, B: Backend> Archives<'a, B> {
    /// None yet. `allowance` is for all of them.
    pub fn new(backend: &'a B, what: &'static str, allowance: Allowance, threads: usize) -> Self {
        let (numbers, layers) = (Vec::new(), Vec::new());
        Self { backend, what, allowance, threads, chained: false, broken: false, next: 0, numbers, layers }
    }

    /// Where they go.
    pub fn backend(&self) -> &'a B {
        self.backend
    }

    /// From now on each is on top of the one before, and numbers are above `start`.
    pub fn chain(&mut self, start: usize) {
        (self.chained, self.next) = (true, start.saturating_add(1));
    }

    /// Takes the archive that the wrapper announced as `number`; numbers ascend.
    pub async fn take(&mut self, number: usize, channel: Channel) -> Result<Channel, AgentFailure> {
        if number < self.next {
            return Err(interrupted(SocketError::Unexpected("an archive that has come already")));
        }
        self.next = number.saturating_add(1);
        if self.broken {
            return drained(channel).await;
        }
        let (allowance, threads, what) = (self.allowance, self.threads, self.what);
        let pack = move |channel: &mut Channel, queue| pack_archive(channel, allowance, threads, queue);
        let (channel, packed) = upload(self.backend, channel, pack).await?;
        match packed {
            Ok(packed) => {
                self.allowance.bytes = self.allowance.bytes.saturating_sub(packed.used);
                self.numbers.push(number);
                self.layers.push(packed.layer);
                return Ok(channel);
            }
            Err(TransferError::Pack(error)) => tracing::warn!(number, %error, "no {what}"),
            Err(TransferError::Upload(error)) => tracing::warn!(number, ?error, "no {what}"),
        }
        self.broken = self.chained;
        Ok(channel)
    }

    /// The smallest number that may still come is above `step`: what it tells of is over.
    pub fn pass(&mut self, step: usize) {
        self.next = self.next.max(step.saturating_add(1));
    }

    /// Ties what was taken together; none when there is nothing, or it cannot be written.
    pub async fn commit(self) -> Option<Sent> {
        if self.layers.is_empty() {
            return None;
        }
        let (config, manifest) = of_layers(&self.layers);
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

/// Reads an archive to its end and keeps nothing of it.
async fn drained(channel: Channel) -> Result<Channel, AgentFailure> {
    let (channel, end) = blocking(channel, |channel| {
        let mut reader = channel.data_reader();
        let _ = io::copy(&mut reader, &mut io::sink());
        reader.stop()
    })
    .await?;
    match end {
        Some(Err(error)) => Err(interrupted(error)),
        _ => Ok(channel),
    }
}
