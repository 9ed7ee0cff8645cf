//! The snapshots of a stage: taken between its steps as the build container sends them. Nothing depends on them, so that whatever
//! goes wrong with one costs that one alone.

use super::{
    Backend,
    outputs::{TransferError, upload},
};
use crate::{
    domain::{
        artifact::{ArtifactConfig, Layer, manifest},
        intake::Allowance,
        snapshot::Made,
        task::{AgentFailure, StageTask},
        value::Digest,
    },
    shell::{pack::pack_archive, socket::Channel},
};

/// What was taken so far.
#[derive(Default)]
pub struct Snapshots {
    steps: Vec<usize>,
    layers: Vec<Layer>,
}

impl Snapshots {
    /// Takes the snapshot that the wrapper announced for the steps before `step`.
    pub async fn take<B: Backend>(
        &mut self,
        (task, backend, threads): (&StageTask, &B, usize),
        step: usize,
        channel: Channel,
    ) -> Result<Channel, AgentFailure> {
        let allowance = Allowance { bytes: task.limits.artifact_bytes, entries: task.limits.artifact_entries };
        let pack = move |channel: &mut Channel, queue| pack_archive(channel, allowance, threads, queue);
        let (channel, packed) = upload(backend, channel, pack).await?;
        match packed {
            Ok(packed) => {
                self.steps.push(step);
                self.layers.push(packed.layer);
            }
            Err(TransferError::Pack(error)) => tracing::warn!(step, %error, "no snapshot"),
            Err(TransferError::Upload(error)) => tracing::warn!(step, ?error, "no snapshot"),
        }
        Ok(channel)
    }

    /// Ties what was taken together; none when there is nothing, or it cannot be written.
    pub async fn commit<B: Backend>(self, backend: &B) -> Option<Made> {
        if self.layers.is_empty() {
            return None;
        }
        let config = ArtifactConfig::plain(&self.layers).to_bytes();
        let manifest = manifest(&config, &self.layers);
        let artifact = Digest::of(&manifest);
        let written = match backend.push_blob(config.into()).await {
            Ok(()) => backend.push_manifest(manifest.into()).await,
            failed => failed,
        };
        if let Err(failure) = written {
            tracing::warn!(message = failure.message, "no snapshot");
            return None;
        }
        Some(Made { artifact, steps: self.steps })
    }
}
