//! The upload-pack conversation over HTTP, versions 0 and 2 (gitprotocol-http, -pack, -v2): what is said and what is understood.

use bytes::Bytes;

use super::{
    Commit, ObjectId, Packet, RefName,
    packet::{line, write_line},
};

/// What a source asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitRef {
    /// The server's default branch.
    Head,
    /// A branch.
    Branch(RefName),
    /// A tag, annotated or not.
    Tag(RefName),
    /// A commit, which needs no looking up.
    Commit(Commit),
}

impl GitRef {
    /// The full name on the server; none for a commit.
    pub fn full_name(&self) -> Option<String> {
        match self {
            Self::Head => Some("HEAD".into()),
            Self::Branch(name) => Some(format!("refs/heads/{}", name.as_str())),
            Self::Tag(name) => Some(format!("refs/tags/{}", name.as_str())),
            Self::Commit(_) => None,
        }
    }
}

/// Protocol versions that are spoken. Version 1 is version 0 with a line before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The server lists all references at once.
    #[default]
    Zero,
    /// The server lists its commands.
    Two,
}

/// A reference on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// In full, as in `refs/heads/main`.
    pub name: String,
    /// What it points at; for an annotated tag the tag object.
    pub id: ObjectId,
    /// What an annotated tag points at in the end.
    pub peeled: Option<ObjectId>,
}

/// A server that said no, without its words: they are foreign text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteRefusal {
    /// It does not give out this object because no reference points at it, or does not have it.
    NotOurRef,
    /// Something else.
    Other,
}

impl RemoteRefusal {
    fn of(message: &[u8]) -> Self {
        let said = |words: &[u8]| message.windows(words.len()).any(|window| window == words);
        // git's upload-pack twice, then JGit's (Gerrit, Bitbucket).
        let words: [&[u8]; 3] = [b"not our ref", b"unadvertised object", b"not valid"];
        if words.into_iter().any(said) { Self::NotOurRef } else { Self::Other }
    }
}

/// What the server says first. Packets are taken one by one, so that references we have no use for are not kept.
#[derive(Debug, Default)]
pub struct Advertisement {
    /// The version that the server chose.
    pub version: Version,
    /// Version 0: words as they are. Version 2: lines `key` or `key=value`.
    pub capabilities: Vec<String>,
    /// Version 0 only: HEAD, branches and tags.
    pub refs: Vec<Ref>,
    /// The server's refusal.
    pub refusal: Option<RemoteRefusal>,
    first_seen: bool,
}

impl Advertisement {
    /// Takes the next packet. None when it makes no sense.
    #[must_use]
    pub fn take(&mut self, packet: &Packet) -> Option<()> {
        let Packet::Data(data) = packet else { return Some(()) };
        if let Some(message) = data.strip_prefix(b"ERR ") {
            self.refusal = Some(RemoteRefusal::of(message));
            return Some(());
        }
        match line(data) {
            Some("version 2") => self.version = Version::Two,
            Some(text) if text == "version 1" || text.starts_with("# service=") || text.starts_with("shallow ") => {}
            Some(text) if self.version == Version::Two => self.capabilities.push(text.to_owned()),
            Some(text) => {
                let (reference, capabilities) = text.split_once('\0').unwrap_or((text, ""));
                if !self.first_seen {
                    self.capabilities = capabilities.split(' ').map(str::to_owned).collect();
                    self.first_seen = true;
                }
                let (id, name) = reference.split_once(' ')?;
                // The longer names of SHA-256 are no reason to call the answer malformed: it says what it is.
                if self.is_sha1() {
                    self.add_ref(id.parse().ok()?, name);
                }
            }
            // A reference whose name is not UTF-8 cannot be asked for.
            None => {}
        }
        Some(())
    }

    fn add_ref(&mut self, id: ObjectId, name: &str) {
        if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(last) = self.refs.last_mut().filter(|last| last.name == tag) {
                last.peeled = Some(id);
            }
        } else if name == "HEAD" || name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
            self.refs.push(Ref { name: name.to_owned(), id, peeled: None });
        }
    }

    /// Whether the server has this capability, by itself or with a value.
    pub fn has(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability.split('=').next() == Some(name))
    }

    /// Whether a commit can be had without its history.
    pub fn can_be_shallow(&self) -> bool {
        match self.version {
            Version::Zero => self.has("shallow"),
            Version::Two => self.can_fetch("shallow"),
        }
    }

    /// The least that gives all files of a commit.
    pub fn least(&self) -> Depth {
        if self.can_be_shallow() { Depth::Shallow } else { Depth::Full }
    }

    /// Whether a commit can be had without its files' contents. Version 0 servers are not asked for that.
    pub fn can_filter(&self) -> bool {
        self.version == Version::Two && self.can_fetch("shallow") && self.can_fetch("filter")
    }

    fn can_fetch(&self, feature: &str) -> bool {
        let features = self.capabilities.iter().find_map(|line| line.strip_prefix("fetch="));
        features.is_some_and(|features| features.split(' ').any(|other| other == feature))
    }

    /// Whether objects are named by SHA-1. Git's SHA-256 repositories are not supported.
    pub fn is_sha1(&self) -> bool {
        self.capabilities.iter().filter_map(|line| line.strip_prefix("object-format=")).all(|format| format == "sha1")
    }
}

/// A line of the answer to [`ls_refs_request`]; none for an unborn HEAD and for lines that make no sense.
pub fn parse_ref_line(data: &[u8]) -> Option<Ref> {
    let mut words = line(data)?.split(' ');
    let id = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    let peeled = words.find_map(|word| word.strip_prefix("peeled:")?.parse().ok());
    Some(Ref { name, id, peeled })
}

/// The commit that `wanted` stands for among `refs`.
pub fn find_ref(refs: &[Ref], wanted: &GitRef) -> Option<Commit> {
    let name = match wanted {
        GitRef::Commit(commit) => return Some(*commit),
        GitRef::Head | GitRef::Branch(_) | GitRef::Tag(_) => wanted.full_name()?,
    };
    refs.iter()
        .find(|found| found.name == name)
        .map(|found| found.peeled.unwrap_or(found.id))
        .filter(|id| !id.is_null())
}

const AGENT: &str = concat!("agent=minimalimage/", env!("CARGO_PKG_VERSION"));

/// Version 2: asks for the references that begin with one of `prefixes`.
pub fn ls_refs_request(advertisement: &Advertisement, prefixes: &[&str]) -> Vec<u8> {
    let mut out = command(advertisement, "ls-refs");
    write_line(&mut out, "peel");
    for prefix in prefixes {
        write_line(&mut out, &format!("ref-prefix {prefix}"));
    }
    out.extend_from_slice(b"0000");
    out
}

fn command(advertisement: &Advertisement, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_line(&mut out, &format!("command={name}"));
    write_line(&mut out, AGENT);
    if advertisement.has("object-format") {
        write_line(&mut out, "object-format=sha1");
    }
    out.extend_from_slice(b"0001");
    out
}

/// How much of what commits lead to is fetched with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All of their history.
    Full,
    /// Only the commits' own trees and files.
    Shallow,
    /// Only the commits' own trees: gitprotocol-v2, `filter`.
    Trees,
}

/// Asks for a pack with `wants`: `shallow` without their history, else with all of it.
pub fn fetch_request(advertisement: &Advertisement, wants: &[ObjectId], depth: Depth) -> Vec<u8> {
    match advertisement.version {
        Version::Two => {
            let mut out = command(advertisement, "fetch");
            // Progress is left on: on a large repository it is the only sign of life before the pack.
            write_line(&mut out, "ofs-delta");
            for want in wants {
                write_line(&mut out, &format!("want {want}"));
            }
            if depth != Depth::Full {
                write_line(&mut out, "deepen 1");
            }
            if depth == Depth::Trees {
                write_line(&mut out, "filter blob:none");
            }
            write_line(&mut out, "done");
            out.extend_from_slice(b"0000");
            out
        }
        Version::Zero => {
            let mut out = Vec::new();
            let offered = ["side-band-64k", "ofs-delta", "shallow"].into_iter().filter(|name| advertisement.has(name));
            let capabilities: String = offered.flat_map(|name| [" ", name]).collect();
            for (index, want) in wants.iter().enumerate() {
                let capabilities = if index == 0 { format!("{capabilities} {AGENT}") } else { String::new() };
                write_line(&mut out, &format!("want {want}{capabilities}"));
            }
            if depth != Depth::Full {
                write_line(&mut out, "deepen 1");
            }
            out.extend_from_slice(b"0000");
            write_line(&mut out, "done");
            out
        }
    }
}

/// What a packet of the answer to [`fetch_request`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// Nothing that we need.
    Nothing,
    /// The next bytes of the pack.
    Pack(Bytes),
    /// The pack is complete.
    End,
    /// The server gave up.
    Refused(RemoteRefusal),
}

/// Understands the answer to [`fetch_request`] packet by packet.
#[derive(Debug)]
pub struct FetchReader {
    version: Version,
    in_pack: bool,
}

impl FetchReader {
    /// For an answer in this version.
    pub fn new(version: Version) -> Self {
        Self { version, in_pack: false }
    }

    /// Takes the next packet. None when it makes no sense.
    #[must_use]
    pub fn take(&mut self, packet: Packet) -> Option<FetchEvent> {
        let mut data = match packet {
            Packet::Data(data) => data,
            Packet::Flush | Packet::ResponseEnd if self.in_pack => return Some(FetchEvent::End),
            Packet::Flush | Packet::ResponseEnd | Packet::Delimiter => return Some(FetchEvent::Nothing),
        };
        if !self.in_pack {
            if let Some(message) = data.strip_prefix(b"ERR ") {
                return Some(FetchEvent::Refused(RemoteRefusal::of(message)));
            }
            // Version 0 answers a client that has nothing with NAK; version 2 heads each section.
            self.in_pack = match self.version {
                Version::Zero => line(&data) == Some("NAK"),
                Version::Two => line(&data) == Some("packfile"),
            };
            return Some(FetchEvent::Nothing);
        }
        if data.is_empty() {
            return None;
        }
        let band = data.split_to(1);
        match &band[..] {
            [1] => Some(FetchEvent::Pack(data)),
            [2] => Some(FetchEvent::Nothing),
            [3] => Some(FetchEvent::Refused(RemoteRefusal::of(&data))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
