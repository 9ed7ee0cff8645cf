//! What a layer's files say of themselves, from its compressed bytes as they come from a registry or the disk.

use std::{
    io::{self, BufReader, Read},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::archive::decompressed;
use crate::domain::preflight::{LayerIndex, index_layer};

/// Uncompressed bytes of one layer that are looked at; a larger one is not judged.
const LARGEST: u64 = 20 << 30;
const BUFFER: usize = 256 << 10;
/// So long reading one may take.
pub const LONGEST: Duration = Duration::from_mins(10);

/// Why a layer has no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError<E: std::error::Error + 'static> {
    /// Its bytes do not come.
    #[error("failed to read a layer")]
    Source(#[source] E),
    /// They are no archive.
    #[error("the layer is malformed: {0}")]
    Malformed(io::Error),
}

/// The index of the layer whose compressed bytes `stream` gives.
///
/// # Errors
/// When the stream fails, gives no archive of at most 20 GiB, or has no end after ten minutes.
pub async fn index_stream<E>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Result<LayerIndex, IndexError<E>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    // The thread that reads ends with the stream, whatever becomes of whoever waits for it.
    let stream = stream.take_until(tokio::time::sleep(LONGEST));
    let pieces = Box::pin(stream.map(|piece| piece.map_err(io::Error::other)));
    let reader = SyncIoBridge::new(StreamReader::new(pieces));
    let indexed = spawn_blocking(move || index_bytes(reader)).await;
    indexed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| match error.downcast::<E>() {
        Ok(source) => IndexError::Source(source),
        Err(error) => IndexError::Malformed(error),
    })
}

/// The index of the layer with these compressed bytes, which are read to their end.
///
/// # Errors
/// When they cannot be read or are no archive of at most 20 GiB.
pub fn index_bytes(compressed: impl Read + 'static) -> io::Result<LayerIndex> {
    let mut archive = decompressed(BufReader::with_capacity(BUFFER, compressed))?.take(LARGEST);
    let index = index_layer(&mut archive)?;
    // The digest is known to be right only when the last byte has come.
    io::copy(&mut archive, &mut io::sink())?;
    if archive.limit() == 0 { Err(io::Error::other("it has over 20 GiB")) } else { Ok(index) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::domain::{files_layer::pack_tree, recipe::Parents, tree::FileTree};

    #[derive(Debug, thiserror::Error)]
    #[error("gone")]
    struct Gone;

    #[tokio::test]
    async fn a_layer_is_indexed_as_it_comes_and_failures_are_told_apart() {
        let tree: FileTree<&[u8]> = FileTree::new(Parents::All);
        let bytes = pack_tree(&tree, 1).unwrap().bytes;
        let pieces =
            |bytes: &[u8]| bytes.chunks(7).map(Bytes::copy_from_slice).map(Ok::<_, Infallible>).collect::<Vec<_>>();
        let index = index_stream(futures::stream::iter(pieces(&bytes))).await.unwrap();
        assert_eq!(index, index_bytes(io::Cursor::new(bytes.clone())).unwrap());
        assert_eq!(index, index_bytes(io::Cursor::new(zstd::encode_all(&[0; 1024][..], 3).unwrap())).unwrap());
        let cut = index_stream(futures::stream::iter(pieces(&bytes[..bytes.len() / 2]))).await;
        assert!(matches!(cut, Err(IndexError::Malformed(_))), "{cut:?}");
        let broken = futures::stream::iter([Ok(Bytes::copy_from_slice(&bytes[..20])), Err(Gone)]);
        assert!(matches!(index_stream(broken).await, Err(IndexError::Source(Gone))));
    }
}
