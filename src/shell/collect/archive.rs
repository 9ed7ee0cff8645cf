//! Archives, told by what they hold.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

/// Whether a file is a tar archive, packed or not, by what it holds and not by its name, as ADD tells them apart. What is packed
/// with bzip2, xz or zstd is taken for one: nothing here looks into those.
pub(super) fn is_archive(path: &Path) -> io::Result<bool> {
    const BLOCK: u64 = 512;
    let block = |from: &mut dyn Read| {
        let mut block = Vec::new();
        // A stream that ends or breaks early holds no archive.
        let _ = from.take(BLOCK).read_to_end(&mut block);
        block
    };
    let start = block(&mut fs::File::open(path)?);
    let is_tar = |block: &[u8]| block.get(257..262) == Some(b"ustar");
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => is_tar(&block(&mut flate2::read::MultiGzDecoder::new(fs::File::open(path)?))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => true,
        start => is_tar(start),
    })
}
