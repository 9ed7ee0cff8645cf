//! A layer of unknown length on its way into a registry, chunk by chunk: at most two chunks are held, one that is filled
//! and one that is sent and kept until the registry has it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Response, StatusCode, Url, header};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Client,
    error::{RegistryError, is_transient, read_errors},
    push::{Destination, Pushed},
    retry::Attempts,
    spool::Spool,
    transport::{Call, location},
};
use crate::domain::value::{Digest, Repository};

/// Bytes of a chunk unless the registry wants larger ones.
const CHUNK: usize = 8 << 20;
/// A registry that wants more gets the blob in one piece, from the disk.
const LARGEST_CHUNK: usize = 32 << 20;

/// An upload that takes pieces and ends with a digest. Dropped before that, it is cancelled at the registry as well.
pub struct Upload {
    destination: Destination,
    buffer: BytesMut,
    chunk: usize,
    count: u64,
    state: State,
    /// The newest known location of the session, for cancelling.
    location: Arc<Mutex<Option<Url>>>,
    spool_directory: PathBuf,
}

enum State {
    /// Nothing was sent: a blob of less than one chunk is one PUT.
    Collecting,
    /// A session waits for its first chunk or the next one.
    Open(Session),
    /// A chunk is under way.
    Sending(AbortOnDropHandle<Result<Sent, RegistryError>>),
    /// The registry knows no chunks.
    Spooling(Spool),
    /// Done, or failed.
    Ended,
}

/// An upload session and how much the registry has of it.
#[derive(Clone)]
struct Session {
    location: Url,
    offset: u64,
}

enum Sent {
    Chunk(Session),
    /// The first chunk was refused because the registry takes none; here it is back.
    Unsupported(Bytes),
}

/// What a request for part of an upload came to.
enum Step {
    /// All is there. The answer tells where the next chunk goes.
    Done(Response),
    /// Some is there: ask how much.
    Unclear(RegistryError),
    /// The session does not exist.
    Gone,
    Unsupported,
}

impl Client {
    /// Begins an upload into `repository`. Nothing is sent before a first chunk is full.
    ///
    /// # Errors
    /// When the repository's host is no valid one.
    pub fn upload(&self, repository: &Repository) -> Result<Upload, RegistryError> {
        Ok(Upload {
            destination: self.destination(repository)?,
            buffer: BytesMut::new(),
            chunk: CHUNK,
            count: 0,
            state: State::Collecting,
            location: Arc::default(),
            spool_directory: self.shared.spool.clone(),
        })
    }
}

impl Upload {
    /// Takes the next bytes; waits while the chunk before the last is still under way.
    ///
    /// # Errors
    /// When the registry does not take a chunk. [`RegistryError::UploadLost`] means that only starting anew helps.
    pub async fn write(&mut self, mut piece: &[u8]) -> Result<(), RegistryError> {
        self.count += piece.len() as u64;
        while !piece.is_empty() {
            let room = self.chunk.saturating_sub(self.buffer.len()).min(piece.len());
            let (now, later) = piece.split_at_checked(room).unwrap_or((piece, &[]));
            self.buffer.extend_from_slice(now);
            piece = later;
            if self.buffer.len() >= self.chunk {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// How many bytes were written.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sends what is left and makes the blob `digest` of it.
    ///
    /// # Errors
    /// When the registry does not take it, or finds another digest.
    pub async fn finish(mut self, digest: Digest) -> Result<Pushed, RegistryError> {
        let size = self.count;
        let rest = self.buffer.split().freeze();
        match self.settle().await? {
            State::Collecting => self.destination.push_bytes(rest, digest).await,
            State::Open(session) => {
                send(&self.destination, session, &rest, Some(digest), &self.location).await?;
                *lock(&self.location) = None;
                Ok(Pushed { digest, size, written: true })
            }
            State::Spooling(mut spool) => {
                spool.append(rest).await?;
                spool.push(&self.destination, digest).await
            }
            State::Sending(_) | State::Ended => Err(self.ended()),
        }
    }

    /// Gives up and tells the registry, as well as that goes.
    pub async fn cancel(mut self) {
        let location = self.abandon();
        if let Some(location) = location {
            delete_session(self.destination.clone(), location).await;
        }
    }

    /// Starts sending the full buffer, after the chunk before it.
    async fn flush(&mut self) -> Result<(), RegistryError> {
        match self.settle().await? {
            State::Collecting => {
                let (location, minimum) = self.destination.open().await?;
                *lock(&self.location) = Some(location.clone());
                if minimum > LARGEST_CHUNK {
                    self.abandon();
                    delete_session(self.destination.clone(), location).await;
                    return self.spool_first(Bytes::new()).await;
                }
                self.chunk = self.chunk.max(minimum);
                self.state = State::Open(Session { location, offset: 0 });
                if self.buffer.len() >= self.chunk { Box::pin(self.flush()).await } else { Ok(()) }
            }
            State::Open(session) => {
                let chunk = self.buffer.split().freeze();
                self.buffer.reserve(self.chunk);
                let (destination, location) = (self.destination.clone(), Arc::clone(&self.location));
                let sending = async move { send(&destination, session, &chunk, None, &location).await };
                self.state = State::Sending(AbortOnDropHandle::new(tokio::spawn(sending)));
                Ok(())
            }
            State::Spooling(mut spool) => {
                spool.append(self.buffer.split().freeze()).await?;
                self.state = State::Spooling(spool);
                Ok(())
            }
            State::Sending(_) | State::Ended => Err(self.ended()),
        }
    }

    /// Waits for the chunk that is under way. Leaves the state `Ended`, for the caller to set.
    async fn settle(&mut self) -> Result<State, RegistryError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Sending(sending) => match sending.await {
                Ok(Ok(Sent::Chunk(session))) => Ok(State::Open(session)),
                Ok(Ok(Sent::Unsupported(chunk))) => {
                    self.spool_first(chunk).await?;
                    Ok(std::mem::replace(&mut self.state, State::Ended))
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(self.ended()),
            },
            state => Ok(state),
        }
    }

    /// From here on the blob goes to the disk, beginning with the chunk that was refused.
    async fn spool_first(&mut self, chunk: Bytes) -> Result<(), RegistryError> {
        let mut spool = Spool::create(&self.spool_directory, self.destination.what()).await?;
        spool.append(chunk).await?;
        if self.buffer.len() >= self.chunk {
            spool.append(self.buffer.split().freeze()).await?;
        }
        self.state = State::Spooling(spool);
        Ok(())
    }

    fn ended(&self) -> RegistryError {
        RegistryError::UploadLost { what: self.destination.what().to_owned() }
    }

    /// Stops what is under way; gives the session that is to be deleted.
    fn abandon(&mut self) -> Option<Url> {
        self.state = State::Ended;
        lock(&self.location).take()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(location), Ok(runtime)) = (self.abandon(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(delete_session(self.destination.clone(), location));
        }
    }
}

/// Sends a chunk (PATCH), or with a digest the last one (PUT), as often as it takes and from where the registry is.
async fn send(
    destination: &Destination,
    mut session: Session,
    chunk: &Bytes,
    digest: Option<Digest>,
    newest: &Mutex<Option<Url>>,
) -> Result<Sent, RegistryError> {
    let mut attempts = destination.client.shared.retry.start();
    let begin = session.offset;
    let end = begin + chunk.len() as u64;
    loop {
        // All of it may have arrived although the answer did not.
        if digest.is_none() && session.offset == end {
            return Ok(Sent::Chunk(session));
        }
        let rest = chunk.slice(usize::try_from(session.offset - begin).unwrap_or(chunk.len())..);
        match send_once(destination, &session, rest, digest).await? {
            Step::Done(response) => {
                session.location = location(&response).unwrap_or(session.location);
                *lock(newest) = Some(session.location.clone());
                if digest.is_some() {
                    return Ok(Sent::Chunk(session));
                }
                // Without a Range in the answer all was taken.
                session.offset = within(destination, range_end(&response).unwrap_or(end), begin, end)?;
                if session.offset < end {
                    give_up_or_wait(&mut attempts, lost(destination)).await?;
                }
            }
            Step::Unsupported if session.offset == 0 => return Ok(Sent::Unsupported(chunk.clone())),
            Step::Unsupported => return Err(lost(destination)),
            Step::Gone => session = reopen(destination, begin, &mut attempts, newest).await?,
            Step::Unclear(error) => {
                give_up_or_wait(&mut attempts, error).await?;
                match status(destination, &session).await? {
                    Some(found) => {
                        session = Session { offset: within(destination, found.offset, begin, end)?, ..found };
                        *lock(newest) = Some(session.location.clone());
                    }
                    None => match digest {
                        // A session ends with its PUT, also when the answer was lost.
                        Some(digest) if destination.has(digest).await? => return Ok(Sent::Chunk(session)),
                        _ => session = reopen(destination, begin, &mut attempts, newest).await?,
                    },
                }
            }
        }
    }
}

async fn send_once(
    destination: &Destination,
    session: &Session,
    rest: Bytes,
    digest: Option<Digest>,
) -> Result<Step, RegistryError> {
    let (method, url) = match digest {
        None => (Method::PATCH, session.location.clone()),
        Some(digest) => (Method::PUT, complete_url(&session.location, digest)),
    };
    let mut call = Call::new(method, url).header(header::CONTENT_TYPE, "application/octet-stream");
    if !rest.is_empty() {
        let last = session.offset + rest.len() as u64 - 1;
        call = call.header(header::CONTENT_RANGE, &format!("{}-{last}", session.offset));
    }
    let call = call.body(rest);
    let mut response = match destination.client.send_once(&destination.endpoint, &destination.access, &call).await {
        Ok(response) => response,
        Err(error) if error.is_retryable() => return Ok(Step::Unclear(error)),
        Err(error) => return Err(error),
    };
    let what = destination.what();
    match response.status() {
        status if status.is_success() => Ok(Step::Done(response)),
        StatusCode::NOT_FOUND => Ok(Step::Gone),
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Step::Unclear(lost(destination))),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if digest.is_none() => Ok(Step::Unsupported),
        StatusCode::BAD_REQUEST if digest.is_none() && session.offset == 0 => {
            if read_errors(&mut response).await.has("UNSUPPORTED") {
                return Ok(Step::Unsupported);
            }
            Err(RegistryError::invalid(what, "the registry answers 400 to the first chunk of an upload"))
        }
        status if is_transient(status) => Ok(Step::Unclear(RegistryError::response(what, response).await)),
        _ => Err(RegistryError::response(what, response).await),
    }
}

/// How much the registry has (OCI distribution-spec, "Pushing a blob in chunks"); none when it forgot the session.
async fn status(destination: &Destination, session: &Session) -> Result<Option<Session>, RegistryError> {
    let response = destination.send(&Call::new(Method::GET, session.location.clone())).await?;
    match response.status() {
        status if status.is_success() => Ok(Some(Session {
            location: location(&response).unwrap_or_else(|| session.location.clone()),
            offset: range_end(&response).unwrap_or(0),
        })),
        // Forgotten, or a registry that does not tell. The CNCF distribution (2.8) answers 404 after any half chunk: its
        // locations are valid for one offset only.
        _ => Ok(None),
    }
}

/// A new session for a first chunk, which we still have; later ones are gone.
async fn reopen(
    destination: &Destination,
    begin: u64,
    attempts: &mut Attempts,
    newest: &Mutex<Option<Url>>,
) -> Result<Session, RegistryError> {
    if begin > 0 {
        *lock(newest) = None;
        return Err(lost(destination));
    }
    give_up_or_wait(attempts, lost(destination)).await?;
    let (location, _) = destination.open().await?;
    *lock(newest) = Some(location.clone());
    Ok(Session { location, offset: 0 })
}

async fn give_up_or_wait(attempts: &mut Attempts, error: RegistryError) -> Result<(), RegistryError> {
    if attempts.pause(error.retry_after()).await { Ok(()) } else { Err(error) }
}

/// A place within the chunk that we hold.
fn within(destination: &Destination, offset: u64, begin: u64, end: u64) -> Result<u64, RegistryError> {
    if (begin..=end).contains(&offset) { Ok(offset) } else { Err(lost(destination)) }
}

/// How many bytes a `Range: 0-N` stands for. `0-0` is nothing: registries write it for an empty session.
fn range_end(response: &Response) -> Option<u64> {
    let range = response.headers().get(header::RANGE)?.to_str().ok()?;
    let last: u64 = range.rsplit('-').next()?.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn lost(destination: &Destination) -> RegistryError {
    RegistryError::UploadLost { what: destination.what().to_owned() }
}

/// Where the PUT that ends a session goes: its location with the digest, everything else of the query kept.
pub(super) fn complete_url(session: &Url, digest: Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// Best effort: registries collect what is left over.
pub(super) async fn delete_session(destination: Destination, location: Url) {
    let call = Call::new(Method::DELETE, location);
    let answer = destination.client.send_once(&destination.endpoint, &destination.access, &call).await;
    if let Err(error) = answer {
        tracing::debug!(error = %error, "an upload session was not deleted");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
