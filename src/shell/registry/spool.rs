//! A blob kept on the disk for registries that take blobs only in one piece. The file has no name: it goes with us.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::Stream;
use reqwest::{Method, header};

use super::{
    error::RegistryError,
    push::{Destination, Pushed},
    transport::Call,
    upload::complete_url,
};
use crate::domain::value::Digest;

/// Bytes read from the disk at once.
const PIECE: usize = 256 << 10;

/// An unnamed file that grows, and is then sent as often as it takes.
pub(super) struct Spool {
    file: Arc<File>,
    size: u64,
    what: String,
}

impl Spool {
    pub async fn create(directory: &Path, what: &str) -> Result<Self, RegistryError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".minimalimage-upload-{}-{number}", std::process::id()));
        let file = blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        });
        let file = file.await.map_err(|error| disk(what, &error))?;
        Ok(Self { file: Arc::new(file), size: 0, what: what.to_owned() })
    }

    pub async fn append(&mut self, bytes: Bytes) -> Result<(), RegistryError> {
        self.size += bytes.len() as u64;
        let file = Arc::clone(&self.file);
        blocking(move || file.as_ref().write_all(&bytes)).await.map_err(|error| disk(&self.what, &error))
    }

    /// HEAD, POST, and one PUT of the whole file.
    pub async fn push(self, destination: &Destination, digest: Digest) -> Result<Pushed, RegistryError> {
        let size = self.size;
        if destination.has(digest).await? {
            return Ok(Pushed { digest, size, written: false });
        }
        let mut attempts = destination.client.shared.retry.start();
        loop {
            let error = match self.push_once(destination, digest).await {
                Ok(()) => return Ok(Pushed { digest, size, written: true }),
                Err(error) => error,
            };
            if !error.is_retryable() || !attempts.pause(error.retry_after()).await {
                return Err(error);
            }
            if destination.has(digest).await? {
                return Ok(Pushed { digest, size, written: true });
            }
        }
    }

    async fn push_once(&self, destination: &Destination, digest: Digest) -> Result<(), RegistryError> {
        let (session, _) = destination.open().await?;
        let call = Call::new(Method::PUT, complete_url(&session, digest))
            .header(header::CONTENT_TYPE, "application/octet-stream");
        let pieces = pieces(Arc::clone(&self.file));
        let client = &destination.client;
        let answer = client.send_stream(&destination.endpoint, &destination.access, &call, pieces, self.size).await?;
        if answer.status().is_success() { Ok(()) } else { Err(destination.stream_refused(answer).await) }
    }
}

/// The file from its beginning. Reads by position: the request of a former attempt may not be gone yet.
fn pieces(file: Arc<File>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    futures::stream::try_unfold((file, 0_u64), |(file, offset)| async move {
        let reader = Arc::clone(&file);
        let piece = blocking(move || {
            let mut piece = vec![0; PIECE];
            let length = reader.read_at(&mut piece, offset)?;
            piece.truncate(length);
            Ok(Bytes::from(piece))
        });
        let piece = piece.await?;
        let next = offset + piece.len() as u64;
        Ok((!piece.is_empty()).then_some((piece, (file, next))))
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

fn disk(what: &str, error: &std::io::Error) -> RegistryError {
    RegistryError::Unavailable {
        what: what.to_owned(),
        problem: format!("the registry takes it only in one piece, and the disk cannot keep it: {error}"),
        retry_after: None,
        source: None,
    }
}
