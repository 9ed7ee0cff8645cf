//! Turns the archive that a build container sends into a layer, in one pass and bounded memory. Uploads nothing itself.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::{
    domain::{
        artifact::{Layer, OutputReport},
        gzip::ParallelGzip,
        intake::{Allowance, Intake, IntakeError},
        layer::{Counted, LayerWriter},
        layer_reader::{LayerError, LayerReader},
        media_type,
        preflight::Gatherer,
        recipe::Output,
        tree::{FileTree, Kind},
        value::DigestHasher,
        wire::{Frame, WrapperFailure},
    },
    shell::socket::{Channel, DataReader, SocketError},
};

const BLOCK: usize = 512;
/// Linux' own bound (PATH_MAX), in whole blocks.
const LONGEST_NAME: u64 = 4096 + 512;

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
    /// The bytes of its index; none of an archive of changes, whose files are not looked at.
    pub index: Option<Vec<u8>>,
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
    if output.changes {
        return pack_archive(channel, allowance, threads, sink);
    }
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
    let mut gatherer = Gatherer::default();
    let mut buffer = vec![0; 64 * 1024];
    while let Some(entry) = archive.next_entry()? {
        intake.check(&entry)?;
        layer.entry(&entry).map_err(PackError::Write)?;
        gatherer.entry(&entry);
        if !matches!(entry.kind, Kind::File(_)) {
            continue;
        }
        loop {
            let count = archive.content(&mut buffer)?;
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).unwrap_or_default();
            layer.content(piece).map_err(PackError::Write)?;
            gatherer.content(piece);
        }
    }
    packed(layer, gatherer, intake.used())
}

/// Writes `tree` as a compressed layer to `sink`; `copy` hands over the bytes of a file.
///
/// # Errors
/// When there is more than `allowance`, or reading or writing fails.
pub fn pack_tree<S>(
    tree: &FileTree<S>,
    allowance: Allowance,
    threads: usize,
    sink: impl Write,
    copy: impl Fn(&S, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) -> Result<Packed, PackError> {
    if tree.len() as u64 > allowance.entries {
        return Err(IntakeError::TooMany(allowance.entries).into());
    }
    let hashing = Hashing { hasher: DigestHasher::default(), sink };
    let mut layer = LayerWriter::new(ParallelGzip::new(hashing, threads).map_err(PackError::Write)?);
    let mut gatherer = Gatherer::default();
    let mut used = 0_u64;
    for (entry, source) in tree.entries() {
        let size = if let Kind::File(size) = entry.kind { size } else { 0 };
        used = used.saturating_add(size).saturating_add(BLOCK as u64);
        if used > allowance.bytes {
            return Err(IntakeError::TooLarge.into());
        }
        layer.entry(&entry).map_err(PackError::Write)?;
        gatherer.entry(&entry);
        if let Some(source) = source {
            let mut take = |bytes: &[u8]| {
                gatherer.content(bytes);
                layer.content(bytes)
            };
            copy(source, &mut take).map_err(PackError::Write)?;
        }
    }
    packed(layer, gatherer, used)
}

fn packed<W: Write>(
    layer: LayerWriter<ParallelGzip<Hashing<W>>>,
    gatherer: Gatherer,
    used: u64,
) -> Result<Packed, PackError> {
    let (report, gzip) = layer.finish().map_err(PackError::Write)?;
    let hashing = gzip.finish().map_err(PackError::Write)?;
    let index = Some(gatherer.finish().into_bytes());
    Ok(Packed { index, ..described(report, hashing, used)? })
}

/// Takes an archive of changes, to its end whatever is in it, and writes its compressed layer to `sink`.
///
/// Its bytes are those that came: what is in it is for the container that sent it, or for an image that is that container. But it
/// must be an archive of files, within `allowance`.
pub fn pack_archive(
    channel: &mut Channel,
    allowance: Allowance,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, PackError> {
    let mut reader = channel.data_reader();
    let result = compressed(&mut reader, allowance, threads, sink);
    let _ = io::copy(&mut reader, &mut io::sink());
    match (reader.stop(), result) {
        (Some(Ok(Frame::DataEnd)) | None, result) => result,
        (Some(Ok(Frame::Failed(failure))), _) => Err(PackError::Refused(failure)),
        (Some(Ok(_)), _) => Err(SocketError::Unexpected("within an archive of changes").into()),
        (Some(Err(error)), _) => Err(error.into()),
    }
}

fn compressed(
    archive: &mut impl Read,
    allowance: Allowance,
    threads: usize,
    sink: impl Write,
) -> Result<Packed, PackError> {
    let hashing = Hashing { hasher: DigestHasher::default(), sink };
    let gzip = ParallelGzip::new(hashing, threads).map_err(PackError::Write)?;
    let mut plain = Hashing { hasher: DigestHasher::default(), sink: gzip };
    let counted = pass_on(archive, &mut plain, allowance)?;
    let used = plain.hasher.count();
    let report = counted.report(plain.hasher.finish());
    let hashing = plain.sink.finish().map_err(PackError::Write)?;
    described(report, hashing, used)
}

/// The layer whose compressed bytes have all been written.
fn described(report: OutputReport, mut written: Hashing<impl Write>, used: u64) -> Result<Packed, PackError> {
    written.sink.flush().map_err(PackError::Write)?;
    let layer = Layer {
        media_type: media_type::LAYER.into(),
        compressed_size: written.hasher.count(),
        digest: written.hasher.finish(),
        diff_id: report.diff_id,
        size: report.size,
        index: None,
    };
    Ok(Packed { layer, report, index: None, used })
}

/// Copies an archive, looking at its headers; gives what is in it, but for its digest.
fn pass_on(from: &mut impl Read, to: &mut impl Write, allowance: Allowance) -> Result<Counted, PackError> {
    let mut counted = Counted::default();
    let (mut entries, mut used) = (0, 0_u64);
    let mut block = [0; BLOCK];
    let mut long_name = None;
    loop {
        let header = next_header(from, &mut block)?;
        to.write_all(&block).map_err(PackError::Write)?;
        let Some((kind, length)) = header else { break };
        used = used.saturating_add(length).saturating_add(BLOCK as u64);
        if used > allowance.bytes {
            return Err(IntakeError::TooLarge.into());
        }
        let padded = length.next_multiple_of(BLOCK as u64);
        match kind {
            EntryType::GNULongName if padded <= LONGEST_NAME => {
                let mut name = Vec::new();
                from.take(padded).read_to_end(&mut name).map_err(LayerError::Read)?;
                to.write_all(&name).map_err(PackError::Write)?;
                long_name = name.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
                continue;
            }
            // About the next entry.
            EntryType::XHeader | EntryType::GNULongLink => {}
            EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link => {
                entries += 1;
                let name =
                    long_name.take().unwrap_or_else(|| Header::from_byte_slice(&block).path_bytes().into_owned());
                match kind {
                    EntryType::Regular => counted.file(format!("/{}", String::from_utf8_lossy(&name)), length),
                    EntryType::Link => counted.hard_link(),
                    _ => {}
                }
            }
            other => {
                let kind = char::from(other.as_byte()).escape_default().next().unwrap_or('?');
                return Err(LayerError::Kind { kind, name: String::new() }.into());
            }
        }
        if entries > allowance.entries {
            return Err(IntakeError::TooMany(allowance.entries).into());
        }
        if io::copy(&mut from.take(padded), to).map_err(PackError::Write)? < padded {
            return Err(LayerError::Truncated.into());
        }
    }
    // The second empty block.
    from.read_exact(&mut block).map_err(LayerError::Read)?;
    to.write_all(&block).map_err(PackError::Write)?;
    if block != [0; BLOCK] || from.read(&mut block).map_err(LayerError::Read)? > 0 {
        return Err(LayerError::Trailing.into());
    }
    Ok(counted)
}

/// Kind and length of the next entry; none at the end.
fn next_header(from: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<Option<(EntryType, u64)>, LayerError> {
    from.read_exact(block)?;
    if *block == [0; BLOCK] {
        return Ok(None);
    }
    let header = Header::from_byte_slice(block);
    let length = header.entry_size().map_err(|_| LayerError::Header("number"))?;
    Ok(Some((header.entry_type(), length)))
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
