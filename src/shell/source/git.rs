//! Git over smart HTTP: one conversation to look up a reference, one per repository to fetch a commit without its history.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    io::Read,
    path::Path,
    sync::atomic::AtomicBool,
};

use bytes::Bytes;
use gix_utils::progress::Discard;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::{
    FetchEnvironment, Fetched, SourceError,
    checkout::{Checkout, Lookup, Repository},
    http::{Answer, Session},
    writer::TreeWriter,
};
use crate::domain::{
    git::{
        Advertisement, Commit, Depth, FetchEvent, FetchReader, GitRef, ObjectId, Packet, PacketReader, Ref,
        RemoteRefusal, Version, fetch_request, find_ref, ls_refs_request, parse_ref_line,
    },
    source::{RelativePath, SourceUrl},
    task::Limits,
};

/// The most that a list of references may take; a million of them fits.
const MAX_REFS_BYTES: u64 = 64 << 20;
/// How many branches and tags are asked for at once when a commit has to be found by their history.
const MAX_WANTS: usize = 20_000;
const MAX_DEPTH: usize = 8;
const MAX_SUBMODULES: usize = 100;
/// One object is held in memory whole, while it is checked and written.
pub(super) const MAX_OBJECT_BYTES: usize = 100 << 20;

/// The repository that a source names.
pub(super) struct Root {
    pub(super) url: SourceUrl,
    pub(super) commit: Commit,
    pub(super) directory: RelativePath,
    pub(super) submodules: bool,
}

/// Looks up a reference.
pub(super) async fn resolve(session: Session<'_>, url: &SourceUrl, reference: &GitRef) -> Result<Commit, SourceError> {
    let text = match reference {
        GitRef::Commit(commit) => return Ok(*commit),
        GitRef::Head => "a default branch (is the repository empty?)".to_owned(),
        GitRef::Branch(name) => format!("branch `{}`", name.as_str()),
        GitRef::Tag(name) => format!("tag `{}`", name.as_str()),
    };
    let remote = Remote::open(session, url).await?;
    let name = reference.full_name().unwrap_or_default();
    let refs = remote.refs(&[&name]).await?;
    find_ref(&refs, reference).ok_or_else(|| SourceError::NoSuchRef { url: url.clone(), reference: text })
}

/// Fetches a commit and, if asked, what it names as submodules.
pub(super) async fn fetch(
    session: Session<'_>,
    root: Root,
    environment: &FetchEnvironment<'_>,
    into: &Path,
) -> Result<Fetched, SourceError> {
    let mut writer = TreeWriter::new(into, environment.limits)?;
    let mut pack_bytes = environment.limits.source_bytes;
    let mut fetched = Fetched::default();
    let (mut submodules, follow) = (0, root.submodules);
    let mut queue = vec![Repository {
        url: root.url,
        commit: root.commit,
        directory: root.directory,
        place: RelativePath::default(),
        depth: 0,
    }];
    while let Some(repository) = queue.pop() {
        let failed = |source| SourceError::File { path: environment.work_dir.to_owned(), source };
        let objects = tempfile::tempdir_in(environment.work_dir).map_err(failed)?;
        std::fs::create_dir(objects.path().join("pack")).map_err(failed)?;
        let limits = Limits { source_bytes: pack_bytes, ..environment.limits.clone() };
        let remote = Remote::open(session, &repository.url).await?;
        let depth = remote.heard.least();
        pack_bytes -= remote.fetch_commit(repository.commit, depth, objects.path(), &limits).await?;
        let is_root = repository.depth == 0;
        let checkout = Checkout { repository, objects, writer, follow };
        let outcome = super::blocking(move || checkout.run()).await?;
        writer = outcome.writer;
        fetched.warnings.extend(outcome.warning);
        fetched.time = fetched.time.or(outcome.time.filter(|_| is_root));
        for next in outcome.submodules {
            submodules += 1;
            if submodules > MAX_SUBMODULES || next.depth > MAX_DEPTH {
                let why = "there are more than 100, or they are nested deeper than 8";
                return Err(SourceError::Submodule { path: next.place.to_string(), why });
            }
            queue.push(next);
        }
    }
    Ok(fetched)
}

/// Reads files of a commit: first its trees, then the files alone, where the server can do that; else all of the commit.
pub(super) async fn read(
    session: Session<'_>,
    root: Root,
    environment: &FetchEnvironment<'_>,
    paths: &[String],
) -> Result<BTreeMap<String, Option<Vec<u8>>>, SourceError> {
    let failed = |source| SourceError::File { path: environment.work_dir.to_owned(), source };
    let objects = tempfile::tempdir_in(environment.work_dir).map_err(failed)?;
    std::fs::create_dir(objects.path().join("pack")).map_err(failed)?;
    let remote = Remote::open(session, &root.url).await?;
    let depth = if remote.heard.can_filter() { Depth::Trees } else { remote.heard.least() };
    remote.fetch_commit(root.commit, depth, objects.path(), environment.limits).await?;
    let (url, top, commit, wanted) = (root.url.clone(), objects.path().to_owned(), root.commit, paths.to_vec());
    let found = super::blocking(move || {
        let lookup = Lookup::new(&url, &top)?;
        wanted
            .into_iter()
            .map(|path| Ok((lookup.file(commit, &root.directory, &path)?, path)))
            .collect::<Result<Vec<_>, _>>()
    })
    .await?;
    let wants: BTreeSet<ObjectId> = found.iter().filter_map(|(id, _)| *id).collect();
    if depth == Depth::Trees && !wants.is_empty() {
        let wants: Vec<_> = wants.into_iter().collect();
        if let Received::Refused(_) = remote.fetch(&wants, Depth::Full, objects.path(), environment.limits).await? {
            let what = "the server filters files but does not give them out singly";
            return Err(SourceError::Protocol { url: root.url, what });
        }
    }
    let (url, top) = (root.url, objects.path().to_owned());
    super::blocking(move || {
        let lookup = Lookup::new(&url, &top)?;
        found.into_iter().map(|(id, path)| Ok((path, id.map(|id| lookup.content(id)).transpose()?))).collect()
    })
    .await
}

enum Received {
    Pack(u64),
    Refused(RemoteRefusal),
}

/// A repository whose server has said what it can do.
struct Remote<'a> {
    session: Session<'a>,
    /// Where it is after redirects.
    base: SourceUrl,
    heard: Advertisement,
}

impl<'a> Remote<'a> {
    async fn open(session: Session<'a>, url: &SourceUrl) -> Result<Self, SourceError> {
        let start = url.further("info/refs", Some("service=git-upload-pack"));
        let mut answer = session.get(&start, &headers()).await?;
        let not_git = "it does not answer as a Git server (smart HTTP) does, check the address";
        let protocol = |what| SourceError::Protocol { url: url.clone(), what };
        if !answer.is_type("application/x-git-upload-pack-advertisement") {
            return Err(protocol(not_git));
        }
        let base = answer.url.nearer("info/refs").ok_or_else(|| protocol(not_git))?;
        let mut heard = Advertisement::default();
        packets(&mut answer, MAX_REFS_BYTES, |packet| heard.take(&packet)).await?;
        if heard.refusal.is_some() {
            return Err(protocol("the server refuses to serve this repository"));
        }
        if !heard.is_sha1() {
            return Err(protocol("the repository uses SHA-256 object names, only SHA-1 is supported"));
        }
        if heard.version == Version::Zero && !heard.refs.is_empty() && !heard.has("side-band-64k") {
            return Err(protocol("the Git server is too old, it does not know side-band-64k"));
        }
        Ok(Self { session, base, heard })
    }

    /// The references that begin with one of `prefixes`.
    async fn refs(&self, prefixes: &[&str]) -> Result<Vec<Ref>, SourceError> {
        if self.heard.version == Version::Zero {
            let wanted = |found: &&Ref| prefixes.iter().any(|prefix| found.name.starts_with(prefix));
            return Ok(self.heard.refs.iter().filter(wanted).cloned().collect());
        }
        let mut answer = self.post(ls_refs_request(&self.heard, prefixes)).await?;
        let mut refs = Vec::new();
        packets(&mut answer, MAX_REFS_BYTES, |packet| {
            if let Packet::Data(line) = packet {
                refs.extend(parse_ref_line(&line));
            }
            Some(())
        })
        .await?;
        Ok(refs)
    }

    async fn post(&self, body: Vec<u8>) -> Result<Answer, SourceError> {
        let answer = self.session.post(&self.base.further("git-upload-pack", None), &post_headers(), body).await?;
        if !answer.is_type("application/x-git-upload-pack-result") {
            let what = "it does not answer as a Git server (smart HTTP) does";
            return Err(SourceError::Protocol { url: self.base.clone(), what });
        }
        Ok(answer)
    }

    /// Puts a pack with the commit's tree into `objects`; gives the bytes received.
    async fn fetch_commit(
        &self,
        commit: Commit,
        depth: Depth,
        objects: &Path,
        limits: &Limits,
    ) -> Result<u64, SourceError> {
        let missing = |why| SourceError::NoSuchCommit { url: self.base.clone(), commit, why };
        let (heard, refs) = (&self.heard, &self.heard.refs);
        // Version 2 servers give out any commit, or say no; version 0 servers say what they give out.
        let may_ask = heard.version == Version::Two
            || refs.iter().any(|tip| tip.id == commit || tip.peeled == Some(commit))
            || heard.has("allow-any-sha1-in-want")
            || heard.has("allow-reachable-sha1-in-want");
        if may_ask {
            match self.fetch(&[commit], depth, objects, limits).await? {
                Received::Pack(bytes) => return Ok(bytes),
                Received::Refused(RemoteRefusal::Other) => {
                    return Err(missing("the server refused without a known reason"));
                }
                Received::Refused(RemoteRefusal::NotOurRef) => {}
            }
        }
        let tips: BTreeSet<ObjectId> = self
            .refs(&["HEAD", "refs/heads/", "refs/tags/"])
            .await?
            .into_iter()
            .map(|tip| tip.id)
            .filter(|id| !id.is_null())
            .collect();
        if tips.is_empty() || tips.len() > MAX_WANTS {
            return Err(missing(
                "the server does not give it out by itself, and has no branches or too many to search",
            ));
        }
        let tips: Vec<ObjectId> = tips.into_iter().collect();
        match self.fetch(&tips, Depth::Full, objects, limits).await? {
            Received::Pack(bytes) => Ok(bytes),
            Received::Refused(_) => Err(missing("the server gives out neither it nor its branches and tags")),
        }
    }

    /// Receives a pack while another thread checks and indexes it.
    async fn fetch(
        &self,
        wants: &[ObjectId],
        depth: Depth,
        objects: &Path,
        limits: &Limits,
    ) -> Result<Received, SourceError> {
        let mut answer = self.post(fetch_request(&self.heard, wants, depth)).await?;
        let (sender, receiver) = mpsc::channel(16);
        let (url, directory, max_entries) = (self.base.clone(), objects.join("pack"), limits.source_entries);
        let indexing = tokio::task::spawn_blocking(move || {
            index_pack(&url, PackReader { receiver, current: Bytes::new() }, &directory, max_entries)
        });
        let received = self.receive(&mut answer, sender, limits.source_bytes).await;
        // The sender is gone by now, so that the other thread comes to an end whatever happened.
        let indexed = indexing.await.unwrap_or(Err(SourceError::Thread("its thread ended early")));
        match received? {
            Received::Pack(bytes) => indexed.map(|()| Received::Pack(bytes)),
            Received::Refused(refusal) => Ok(Received::Refused(refusal)),
        }
    }

    async fn receive(
        &self,
        answer: &mut Answer,
        sender: mpsc::Sender<Bytes>,
        limit: u64,
    ) -> Result<Received, SourceError> {
        let protocol = |what| SourceError::Protocol { url: self.base.clone(), what };
        let mut framing = PacketReader::default();
        let mut reader = FetchReader::new(self.heard.version);
        let mut bytes = 0_u64;
        while let Some(chunk) = answer.chunk().await? {
            framing.push(&chunk);
            while let Some(packet) = framing.next_packet().map_err(|_| protocol(MALFORMED))? {
                match reader.take(packet).ok_or_else(|| protocol(MALFORMED))? {
                    FetchEvent::Nothing => {}
                    FetchEvent::Pack(piece) => {
                        bytes += piece.len() as u64;
                        if bytes > limit {
                            return Err(SourceError::TooLarge { limit, what: "bytes, still packed" });
                        }
                        if sender.send(piece).await.is_err() {
                            // The indexing thread gave up and has the reason.
                            return Ok(Received::Pack(bytes));
                        }
                    }
                    FetchEvent::End => return Ok(Received::Pack(bytes)),
                    FetchEvent::Refused(refusal) => return Ok(Received::Refused(refusal)),
                }
            }
        }
        Err(protocol("the answer ended early"))
    }
}

const MALFORMED: &str = "the answer is not in Git's format";

/// Headers that every request to a Git server has.
fn headers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("git-protocol"), HeaderValue::from_static("version=2"))])
}

/// Headers of a request with a body.
fn post_headers() -> HeaderMap {
    let mut headers = headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-result"));
    headers
}

/// Hands every packet of an answer to `take`, which gives none when a packet makes no sense.
async fn packets(
    answer: &mut Answer,
    limit: u64,
    mut take: impl FnMut(Packet) -> Option<()>,
) -> Result<(), SourceError> {
    let url = answer.url.clone();
    let protocol = |what| SourceError::Protocol { url: url.clone(), what };
    let mut framing = PacketReader::default();
    let mut bytes = 0_u64;
    while let Some(chunk) = answer.chunk().await? {
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(SourceError::TooLarge { limit, what: "bytes in its list of references" });
        }
        framing.push(&chunk);
        while let Some(packet) = framing.next_packet().map_err(|_| protocol(MALFORMED))? {
            take(packet).ok_or_else(|| protocol(MALFORMED))?;
        }
    }
    if framing.is_empty() { Ok(()) } else { Err(protocol("the answer ended early")) }
}

/// The pack's bytes as they come from the network's side.
struct PackReader {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for PackReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Writes pack and index. Every object's name is computed from its content here, so that the commit's name vouches for all.
fn index_pack(url: &SourceUrl, mut pack: PackReader, directory: &Path, max_entries: u64) -> Result<(), SourceError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| SourceError::Pack { url: url.clone(), source };
    // gitformat-pack: "PACK", version, number of objects. Indexing takes memory for each, so the number is bounded first.
    let mut head = [0; 12];
    pack.read_exact(&mut head).map_err(|error| broken(error.into()))?;
    let [.., a, b, c, d] = head;
    let limit = max_entries.saturating_mul(4);
    if u64::from(u32::from_be_bytes([a, b, c, d])) > limit {
        return Err(SourceError::TooLarge { limit, what: "Git objects" });
    }
    let mut stream = io::BufReader::with_capacity(64 << 10, head.chain(pack));
    let options = gix_pack::bundle::write::Options {
        // One: the agent has little memory, and each thread decodes objects of its own.
        thread_limit: Some(1),
        iteration_mode: gix_pack::data::input::Mode::Verify,
        alloc_limit_bytes: Some(MAX_OBJECT_BYTES),
        ..Default::default()
    };
    gix_pack::Bundle::write_to_directory(
        &mut stream,
        Some(directory),
        &mut Discard,
        &AtomicBool::new(false),
        None::<gix_odb::Handle>,
        gix_hash::Kind::Sha1,
        options,
    )
    .map(drop)
    .map_err(|error| broken(error.to_string().into()))
}
