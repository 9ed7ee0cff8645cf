//! Signatures of version 4: their packet and subpackets (RFC 9580, 5.2.3), and what they are over (5.2.4).

use super::{
    packet::{Partial, Reader},
    public::{Hash, PublicKey},
};

/// A signature over a text with canonical ends of lines.
pub(super) const TEXT: u8 = 0x01;
/// A subkey is a key's.
pub(super) const SUBKEY: u8 = 0x18;
/// A key is a subkey's.
pub(super) const BACK: u8 = 0x19;
/// A key says something of itself.
pub(super) const DIRECT: u8 = 0x1f;
/// A key takes itself back.
pub(super) const KEY_REVOCATION: u8 = 0x20;
/// A key takes a subkey back.
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;

/// Names of signers in one signature that are looked at.
const NAMES: usize = 4;

/// A signature as it says it is; `holds` tells whether that is true.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) kind: u8,
    algorithm: u8,
    hash: Option<Hash>,
    /// What of it is hashed behind what it is over.
    trailer: Vec<u8>,
    numbers: Vec<u8>,
    pub(super) said: Said,
}

/// What subpackets say. Times are seconds since 1970, durations seconds; none and zero are for ever.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    created: Option<i64>,
    pub(super) lifetime: i64,
    pub(super) key_lifetime: Option<i64>,
    pub(super) key_flags: Option<u8>,
    /// Fingerprints and key IDs, which are the ends of fingerprints.
    signers: Vec<Vec<u8>>,
    /// The packet of a signature in the signature.
    embedded: Option<Vec<u8>>,
    /// Something has to be understood that is not.
    beyond: bool,
}

impl Signature {
    /// Reads a packet's content; none of another version, or when it is broken.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let [version, kind, algorithm, hash] = reader.array()?;
        let length = reader.short()?;
        let hashed = reader.take(usize::from(length))?;
        let loose = reader.short()?;
        let loose = reader.take(usize::from(loose))?;
        // The first two octets of the digest tell nothing that the signature does not.
        reader.take(2)?;
        let mut said = Said::default();
        said.read(hashed, true)?;
        said.read(loose, false)?;
        said.created?;
        let mut trailer = vec![version, kind, algorithm, hash];
        trailer.extend_from_slice(&length.to_be_bytes());
        trailer.extend_from_slice(hashed);
        let length = u32::try_from(trailer.len()).ok()?;
        trailer.extend_from_slice(&[4, 0xff]);
        trailer.extend_from_slice(&length.to_be_bytes());
        let numbers = reader.0.to_vec();
        (version == 4).then_some(Self { kind, algorithm, hash: Hash::of(hash), trailer, numbers, said })
    }

    /// Seconds since 1970.
    pub(super) fn created(&self) -> i64 {
        self.said.created.unwrap_or_default()
    }

    /// Whether it may be by `key`. That is a hint, which anybody can write.
    pub(super) fn names(&self, key: &PublicKey) -> bool {
        let signers = &self.said.signers;
        signers.is_empty() || signers.iter().any(|signer| key.fingerprint.ends_with(signer))
    }

    /// Who has made it, as it says itself: the longest of the names.
    pub(super) fn signer(&self) -> Option<&[u8]> {
        self.said.signers.iter().map(Vec::as_slice).max_by_key(|signer| signer.len())
    }

    /// Whether a signature like it can count at all. A revocation does over a forgeable hash too: better one key less.
    pub(super) fn is_strong(&self) -> bool {
        let revocation = matches!(self.kind, KEY_REVOCATION | SUBKEY_REVOCATION);
        let strong = self.hash.is_some_and(|hash| hash != Hash::Sha1 || revocation);
        strong && !self.said.beyond && matches!(self.algorithm, 1 | 3 | 22 | 27)
    }

    /// Whether `key` has made it over these parts.
    pub(super) fn holds(&self, key: &PublicKey, parts: &[&[u8]]) -> bool {
        let Some(hash) = self.hash.filter(|_| self.is_strong() && self.names(key)) else {
            return false;
        };
        let message = [&parts.concat(), self.trailer.as_slice()].concat();
        key.verifies(self.algorithm, hash, &message, &self.numbers)
    }

    /// The signature in it.
    pub(super) fn embedded(&self) -> Option<Self> {
        Self::parse(self.said.embedded.as_deref()?)
    }
}

impl Said {
    /// Reads an area of subpackets. What is not hashed can be anybody's: only names and a signature, which speaks for itself,
    /// are taken from there.
    fn read(&mut self, area: &[u8], hashed: bool) -> Option<()> {
        let mut reader = Reader(area);
        while !reader.is_empty() {
            let length = reader.length(Partial::None)?;
            let mut content = Reader(reader.take(length)?);
            let kind = content.byte()?;
            self.subpacket(kind & 0x7f, content, hashed)?;
            self.beyond |= kind & 0x80 != 0 && !is_understood(kind & 0x7f);
        }
        Some(())
    }

    fn subpacket(&mut self, kind: u8, mut content: Reader<'_>, hashed: bool) -> Option<()> {
        match kind {
            2 if hashed => self.created = Some(i64::from(content.long()?)),
            3 if hashed => self.lifetime = i64::from(content.long()?),
            9 if hashed => self.key_lifetime = Some(i64::from(content.long()?)),
            27 if hashed => self.key_flags = Some(content.byte().unwrap_or_default()),
            16 => self.name(&content.array::<8>()?),
            // Those of another version are of keys that are not read.
            33 if content.byte()? == 4 => self.name(&content.array::<20>()?),
            32 => self.embedded = Some(content.0.to_vec()),
            _ => {}
        }
        Some(())
    }

    fn name(&mut self, signer: &[u8]) {
        if self.signers.len() < NAMES {
            self.signers.push(signer.to_vec());
        }
    }
}

/// Subpackets that are read, or say nothing that changes who has signed what. Others that are critical make a signature void (5.2.3.7);
/// notations among them, as none is known.
fn is_understood(kind: u8) -> bool {
    /// Preferences, features, exportable, revocable, primary user ID, policy, signer's user ID, reason for a revocation.
    const OTHERS: [u8; 14] = [4, 7, 11, 21, 22, 23, 24, 25, 26, 28, 29, 30, 34, 39];
    matches!(kind, 2 | 3 | 9 | 16 | 27 | 32 | 33) || OTHERS.contains(&kind)
}
