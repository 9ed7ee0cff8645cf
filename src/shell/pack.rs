//! Turns the archive that a build container sends into a layer, in one pass and bounded memory. Uploads nothing itself.

use std::io::{self, Write};

use crate::{
    domain::{
        artifact::{Layer, OutputReport},
        gzip::ParallelGzip,
        intake::{Allowance, Intake, IntakeError},
        layer::LayerWriter,
        layer_reader::{LayerError, LayerReader},
        media_type,
        recipe::Output,
        tree::Kind,
        value::DigestHasher,
        wire::{Frame, WrapperFailure},
    },
    shell::socket::{Channel, DataReader, SocketError},
};

/// Why an output did not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The wrapper says why it cannot send it.
    #[error("the build container cannot send the output")]
    Refused(WrapperFailure),
    /// The wrapper is gone, or does not keep to the protocol.
    #[error("failed to receive an output: {0}")]
    Socket(#[from] SocketError),
    /// Not an archive as ours are.
    #[error("the build container sent {0}")]
    Archive(#[from] LayerError),
    /// Something that the output may not hold.
    #[error("the build container sent something that is not allowed: {0}")]
    Intake(#[from] IntakeError),
    /// The layer cannot be written.
    #[error("failed to write a layer")]
    Write(#[source] io::Error),
}

/// A finished layer and what it used up of the allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digests and sizes.
    pub layer: Layer,
    /// What is in it.
    pub report: OutputReport,
    /// Bytes counted against [`Allowance::bytes`].
    pub used: u64,
}

/// Asks for the output `index` and writes its compressed layer to `sink`. Bytes depend on the files alone, not on `threads`.
pub fn pack(
    channel: &mut Channel,
    (index, output): (u32, &Output),
    allowance: Allowance,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, PackError> {
    channel.send(&Frame::SendOutput(index))?;
    let mut archive = LayerReader::new(channel.data_reader());
    let result = transform(&mut archive, output, allowance, threads, sink);
    // A stream that ended in another way than it should explains every other error.
    match (archive.into_inner().stop(), result) {
        (Some(Ok(Frame::DataEnd)) | None, result) => result,
        (Some(Ok(Frame::Failed(failure))), _) => Err(PackError::Refused(failure)),
        (Some(Ok(_)), _) => Err(SocketError::Unexpected("within an output").into()),
        (Some(Err(error)), _) => Err(error.into()),
    }
}

fn transform(
    archive: &mut LayerReader<DataReader<'_>>,
    output: &Output,
    allowance: Allowance,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, PackError> {
    let mut intake = Intake::new(output, allowance);
    let hashing = Hashing { hasher: DigestHasher::default(), sink };
    let mut layer = LayerWriter::new(ParallelGzip::new(hashing, threads).map_err(PackError::Write)?);
    let mut buffer = vec![0; 64 * 1024];
    while let Some(entry) = archive.next_entry()? {
        intake.check(&entry)?;
        layer.entry(&entry).map_err(PackError::Write)?;
        if !matches!(entry.kind, Kind::File(_)) {
            continue;
        }
        loop {
            let count = archive.content(&mut buffer)?;
            if count == 0 {
                break;
            }
            layer.content(buffer.get(..count).unwrap_or_default()).map_err(PackError::Write)?;
        }
    }
    let (report, gzip) = layer.finish().map_err(PackError::Write)?;
    let mut hashing = gzip.finish().map_err(PackError::Write)?;
    hashing.sink.flush().map_err(PackError::Write)?;
    let layer = Layer {
        media_type: media_type::LAYER.into(),
        compressed_size: hashing.hasher.count(),
        digest: hashing.hasher.finish(),
        diff_id: report.diff_id,
        size: report.size,
    };
    Ok(Packed { layer, report, used: intake.used() })
}

struct Hashing<W> {
    hasher: DigestHasher,
    sink: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests;
