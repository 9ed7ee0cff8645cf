//! Gzip on several threads with the same bytes for any number of them. Knows nothing of what it compresses.
//!
//! The input is cut into blocks of fixed size; each becomes raw deflate data that ends on a byte border (a sync flush) and
//! needs nothing of the block before it, so the pieces, put behind each other, are one member (RFC 1951 3.2, RFC 1952 2.3).

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of input per block: part of the format, since other blocks would give other bytes.
const BLOCK: usize = 512 * 1024;
/// Compression level: part of the format for the same reason. Of 200 MB of Go sources and tools, level 6 takes a quarter
/// longer for 0.3 % less, level 4 a tenth less for 2 % more.
const LEVEL: u32 = 5;
/// No name, no time, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block with fixed codes, which ends the deflate stream.
const LAST: [u8; 2] = [3, 0];
/// Blocks that wait for one worker or for being written: enough to keep it busy, and a bound on memory.
const QUEUE: usize = 2;

/// Compresses what is written to it into `sink`; [`ParallelGzip::finish`] must be called.
pub struct ParallelGzip<W: Write> {
    sink: W,
    block: Vec<u8>,
    workers: Vec<Worker>,
    next: usize,
    oldest: usize,
    in_flight: usize,
    crc: Crc,
}

struct Worker {
    blocks: SyncSender<Vec<u8>>,
    results: Receiver<io::Result<Block>>,
}

struct Block {
    deflated: Vec<u8>,
    crc: Crc,
}

impl<W: Write> ParallelGzip<W> {
    /// Writes the header and starts `threads` workers, at least one.
    pub fn new(mut sink: W, threads: usize) -> io::Result<Self> {
        sink.write_all(&HEADER)?;
        let workers = (0..threads.max(1)).map(|_| Worker::start()).collect::<io::Result<_>>()?;
        Ok(Self { sink, block: Vec::with_capacity(BLOCK), workers, next: 0, oldest: 0, in_flight: 0, crc: Crc::new() })
    }

    /// Writes what is left and the trailer, and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.dispatch()?;
        }
        while self.in_flight > 0 {
            self.collect()?;
        }
        self.sink.write_all(&LAST)?;
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.sink)
    }

    fn dispatch(&mut self) -> io::Result<()> {
        if self.in_flight == self.workers.len() * QUEUE {
            self.collect()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let worker = self.workers.get(self.next).ok_or_else(worker_gone)?;
        worker.blocks.send(block).map_err(|_| worker_gone())?;
        self.next = (self.next + 1) % self.workers.len();
        self.in_flight += 1;
        Ok(())
    }

    /// Takes the oldest block: workers are served in turn, so the next in turn has it.
    fn collect(&mut self) -> io::Result<()> {
        let worker = self.workers.get(self.oldest).ok_or_else(worker_gone)?;
        let block = worker.results.recv().map_err(|_| worker_gone())??;
        self.oldest = (self.oldest + 1) % self.workers.len();
        self.in_flight -= 1;
        self.crc.combine(&block.crc);
        self.sink.write_all(&block.deflated)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.block.len() == BLOCK {
            self.dispatch()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (blocks, inbox) = sync_channel::<Vec<u8>>(QUEUE);
        let (outbox, results) = sync_channel(QUEUE);
        thread::Builder::new().name("gzip".into()).spawn(move || {
            let mut state = Compress::new(Compression::new(LEVEL), false);
            while let Ok(input) = inbox.recv() {
                if outbox.send(deflate(&mut state, &input)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { blocks, results })
    }
}

fn deflate(state: &mut Compress, input: &[u8]) -> io::Result<Block> {
    state.reset();
    // Room for the usual ratio; stored blocks need slightly more than the input.
    let mut deflated = Vec::with_capacity(input.len() / 2 + 1024);
    loop {
        let rest = usize::try_from(state.total_in()).ok().and_then(|taken| input.get(taken..)).unwrap_or_default();
        let status = state.compress_vec(rest, &mut deflated, FlushCompress::Sync).map_err(io::Error::other)?;
        let all_taken = state.total_in() == input.len() as u64;
        // Room left over means that the flush is complete (zlib manual, deflate).
        if all_taken && status != Status::StreamEnd && deflated.len() < deflated.capacity() {
            break;
        }
        deflated.reserve(input.len() / 4 + 1024);
    }
    let mut crc = Crc::new();
    crc.update(input);
    Ok(Block { deflated, crc })
}

fn worker_gone() -> io::Error {
    io::Error::other("a compression thread ended early")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::domain::value::Digest;

    fn sample(length: usize) -> Vec<u8> {
        // Mixed: repetitive text, then noise of a linear congruential generator.
        let mut state: u32 = 1;
        (0..length)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if (index / 100_000) % 2 == 0 { b"fn main() {}\n"[index % 13] } else { state.to_be_bytes()[0] }
            })
            .collect()
    }

    fn gzip(bytes: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut writer = ParallelGzip::new(Vec::new(), threads).unwrap();
        bytes.chunks(piece).for_each(|chunk| writer.write_all(chunk).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_the_size_of_writes() {
        let data = sample(3 * BLOCK + 1234);
        let reference = gzip(&data, 1, data.len());
        for (threads, piece) in [(2, 4096), (3, 1_000_003), (7, 77)] {
            assert_eq!(Digest::of(&gzip(&data, threads, piece)), Digest::of(&reference), "{threads} {piece}");
        }
    }

    #[test]
    fn one_ordinary_member_comes_out() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * BLOCK + 7] {
            let data = sample(length);
            let packed = gzip(&data, 2, 65_536);
            // GzDecoder stops after the first member, so equality shows that there is only one.
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == data, "{length}");
            assert_eq!(packed[4..8], [0; 4], "no time");
        }
    }

    #[test]
    fn incompressible_blocks_survive() {
        let noise: Vec<u8> = sample(900_000).chunks(100_000).skip(1).step_by(2).flatten().copied().collect();
        let packed = gzip(&noise, 2, 8192);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == noise);
    }

    #[test]
    fn a_failing_sink_is_an_error_and_ends_the_threads() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = ParallelGzip::new(Full(1000), 2).unwrap();
        let data = sample(10 * BLOCK);
        assert!(writer.write_all(&data).and_then(|()| writer.finish().map(|_| ())).is_err());
    }
}
