//! What leaves a stage: each output is packed and uploaded in one pass, then the artifact's manifest ties them together.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Backend, LayerUpload, UploadError, blocking, interrupted, stage_failure};
use crate::{
    domain::{
        artifact::{ArtifactConfig, LayerIndexBlob, manifest},
        intake::Allowance,
        recipe::{Output, Recipe},
        task::{AgentFailure, FailureReason, Limits, Places},
        value::Digest,
        wire::WrapperFailure,
    },
    shell::{
        pack::{PackError, Packed, pack},
        socket::Channel,
    },
};

/// How often the upload of one output is begun before its failure counts.
pub const TRIES: u32 = 3;
/// Compressed blocks that wait for the network: bounds the memory, keeps the compressors busy through short stalls.
const WAITING: usize = 8;

/// Everything that committing a stage's outputs needs.
pub struct Outputs<'a, B> {
    /// What the stage declares.
    pub recipe: &'a Recipe,
    /// Where its copies are written.
    pub places: &'a Places,
    /// Bounds on its artifacts.
    pub limits: &'a Limits,
    /// Compression threads.
    pub threads: usize,
    /// Where they go.
    pub backend: &'a B,
}

impl<B: Backend> Outputs<'_, B> {
    /// Packs and uploads all outputs, then config and manifest; gives the manifest's digest.
    pub async fn commit(&self, mut channel: Channel) -> Result<(Channel, Digest), AgentFailure> {
        let mut allowance = Allowance { bytes: self.limits.artifact_bytes, entries: self.limits.artifact_entries };
        let mut all = Vec::new();
        for (index, output) in self.recipe.outputs.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let (next, packed) = self.with_retries(channel, index, output, allowance).await?;
            channel = next;
            allowance.bytes = allowance.bytes.saturating_sub(packed.used);
            all.push(packed);
        }
        Ok((channel, commit(self.backend, all).await?))
    }

    async fn with_retries(
        &self,
        mut channel: Channel,
        index: u32,
        output: &Output,
        allowance: Allowance,
    ) -> Result<(Channel, Packed), AgentFailure> {
        let mut tries = 1;
        loop {
            let (next, result) = self.upload(channel, index, output, allowance).await?;
            channel = next;
            match result {
                Ok(packed) => return Ok((channel, packed)),
                Err(UploadError::Lost(_)) if tries < TRIES => tries += 1,
                Err(UploadError::Lost(failure) | UploadError::Final(failure)) => return Err(failure),
            }
        }
    }

    /// One try. The outer error is about the output, the inner one about the upload.
    async fn upload(
        &self,
        channel: Channel,
        index: u32,
        output: &Output,
        allowance: Allowance,
    ) -> Result<(Channel, Result<Packed, UploadError>), AgentFailure> {
        let (output, threads) = (output.clone(), self.threads);
        let pack = move |channel: &mut Channel, queue| pack(channel, (index, &output), allowance, threads, queue);
        let (channel, packed) = upload(self.backend, channel, pack).await?;
        match packed {
            Ok(packed) => Ok((channel, Ok(packed))),
            Err(TransferError::Pack(error)) => {
                let source = match &error {
                    PackError::Refused(WrapperFailure::Missing { path, .. }) => path.clone(),
                    _ => String::new(),
                };
                Err(match (error, &self.recipe.remote) {
                    // What was fetched is at fault, not the container that there is none of.
                    (PackError::Refused(WrapperFailure::Files { message, .. }), Some(_)) => {
                        self.places.at_any_source(AgentFailure::new(FailureReason::SourceInvalid, message))
                    }
                    (error, _) => self.places.at_source(&source, pack_failure(error)),
                })
            }
            Err(TransferError::Upload(error)) => Ok((channel, Err(error))),
        }
    }
}

/// Ties layers that were uploaded together to an artifact; gives its digest.
pub async fn commit<B: Backend>(backend: &B, packed: Vec<Packed>) -> Result<Digest, AgentFailure> {
    let (mut layers, mut outputs) = (Vec::new(), Vec::new());
    for Packed { mut layer, report, index, .. } in packed {
        if let Some(index) = index {
            layer.index = Some(LayerIndexBlob { digest: Digest::of(&index), size: index.len() as u64 });
            backend.push_blob(index.into()).await?;
        }
        layers.push(layer);
        outputs.push(report);
    }
    let config = ArtifactConfig { outputs }.to_bytes();
    let manifest = manifest(&config, &layers);
    let digest = Digest::of(&manifest);
    backend.push_blob(config.into()).await?;
    backend.push_manifest(manifest.into()).await?;
    Ok(digest)
}

/// Why something did not become a blob.
pub enum TransferError {
    /// What came from the build container.
    Pack(PackError),
    /// The way to the registry.
    Upload(UploadError),
}

/// Packs what comes through `channel`, if from there, and uploads it in the same pass. It is read to its end also when it cannot
/// be uploaded: the build container waits for that.
pub async fn upload<B: Backend, C: Send + 'static>(
    backend: &B,
    channel: C,
    pack: impl FnOnce(&mut C, Queue) -> Result<Packed, PackError> + Send + 'static,
) -> Result<(C, Result<Packed, TransferError>), AgentFailure> {
    let upload = backend.begin_upload().await;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
    let packing = blocking(channel, move |channel| pack(channel, Queue { sender }));
    let sending = async move {
        let mut upload = upload?;
        while let Some(bytes) = receiver.recv().await {
            upload.write(bytes).await?;
        }
        Ok(upload)
    };
    let (packed, sent) = tokio::join!(packing, sending);
    let (channel, packed) = packed?;
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => return Ok((channel, Err(TransferError::Pack(error)))),
    };
    let committed = match sent {
        Ok(upload) => upload.finish(packed.layer.digest, packed.layer.compressed_size).await,
        Err(error) => Err(error),
    };
    Ok((channel, committed.map(|()| packed).map_err(TransferError::Upload)))
}

fn pack_failure(error: PackError) -> AgentFailure {
    match error {
        PackError::Refused(failure) => stage_failure(failure),
        PackError::Socket(error) => interrupted(error),
        PackError::Archive(_) | PackError::Intake(_) => {
            AgentFailure::new(FailureReason::ArtifactInvalid, error.to_string())
        }
        PackError::Write(error) => super::internal("failed to pack an output", &error),
    }
}

/// Hands bytes to the upload. When that has failed they are dropped: the output is read to its end all the same, so that the
/// wrapper can be asked for it again.
pub struct Queue {
    sender: mpsc::Sender<Bytes>,
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.sender.blocking_send(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
