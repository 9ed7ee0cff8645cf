//! Keys with what they say of themselves (RFC 9580, 10.1): who they are, how long they last, which subkeys sign for them.

use super::{
    Malformed,
    packet::{Packet, Packets},
    public::PublicKey,
    v4::{BACK, DIRECT, KEY_REVOCATION, SUBKEY, SUBKEY_REVOCATION, Signature},
};

const SUBKEYS: usize = 64;
/// Octets of a user ID, as GnuPG limits it.
const USER: usize = 2048;
/// The flag of keys that sign data (5.2.3.29).
const SIGNS: u8 = 0x02;

/// A primary key and its subkeys.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) primary: PublicKey,
    /// The first of its user IDs.
    name: Option<String>,
    claims: Vec<Claim>,
    subkeys: Vec<Subkey>,
    revoked: bool,
}

#[derive(Debug, Clone)]
struct Subkey {
    key: PublicKey,
    claims: Vec<Claim>,
    revoked: bool,
}

/// What a self signature that holds says of a key.
#[derive(Debug, Clone, Copy)]
struct Claim {
    direct: bool,
    created: i64,
    /// Until when it counts.
    until: i64,
    flags: Option<u8>,
    lifetime: Option<i64>,
}

/// A key that may sign messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) owner: &'a Key,
    pub(super) key: &'a PublicKey,
    /// It and its primary key were there when the signature was made, and have not expired.
    pub(super) lasts: bool,
}

/// Reads keys one behind the other; those of other kinds are left out.
pub(super) fn keys(bytes: &[u8]) -> Result<Vec<Key>, Malformed> {
    let mut keys = Vec::new();
    let mut draft: Option<Draft> = None;
    for packet in Packets::new(bytes) {
        let packet = packet?;
        match (packet.tag, &mut draft) {
            (6, _) => {
                keys.extend(draft.take().map(Draft::finished));
                draft = PublicKey::parse(packet.body).map(Draft::new);
            }
            (2 | 12 | 13 | 14 | 17, Some(draft)) => draft.add(packet)?,
            // Of a key that cannot be used.
            (2 | 12 | 13 | 14 | 17, None) => {}
            _ if packet.is_ignorable() => {}
            (tag, _) => return Err(Malformed::Foreign(tag)),
        }
    }
    keys.extend(draft.map(Draft::finished));
    Ok(keys)
}

/// Without those that do not say a word for themselves, or have been revoked - in another copy, perhaps.
pub(super) fn usable(mut keys: Vec<Key>) -> Vec<Key> {
    let gone: Vec<_> = keys.iter().filter(|key| key.revoked).map(|key| key.primary.fingerprint).collect();
    keys.retain(|key| !key.claims.is_empty() && !gone.contains(&key.primary.fingerprint));
    keys
}

/// A key while its packets are read.
struct Draft {
    key: Key,
    part: Part,
}

/// What the next signatures are over.
enum Part {
    Primary,
    /// With what is hashed of it.
    User(Vec<u8>),
    Subkey(Subkey),
    /// Something that is not read.
    Other,
}

impl Draft {
    fn new(primary: PublicKey) -> Self {
        let key = Key { primary, name: None, claims: Vec::new(), subkeys: Vec::new(), revoked: false };
        Self { key, part: Part::Primary }
    }

    fn add(&mut self, packet: Packet<'_>) -> Result<(), Malformed> {
        match packet.tag {
            2 => {
                if let Some(signature) = Signature::parse(packet.body) {
                    self.sign(&signature);
                }
            }
            13 => self.begin(user(packet.body).map_or(Part::Other, Part::User)),
            14 => {
                let subkey = PublicKey::parse(packet.body);
                let subkey = subkey.map(|key| Subkey { key, claims: Vec::new(), revoked: false });
                self.begin(subkey.map_or(Part::Other, Part::Subkey));
                if self.key.subkeys.len() >= SUBKEYS {
                    return Err(Malformed::TooMany("subkeys", SUBKEYS));
                }
            }
            17 => self.begin(Part::Other),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, part: Part) {
        if let Part::Subkey(subkey) = std::mem::replace(&mut self.part, part) {
            self.key.subkeys.push(subkey);
        }
    }

    fn sign(&mut self, signature: &Signature) {
        let primary = &self.key.primary;
        let Some(hashed) = primary.hashed() else { return };
        let holds = |over: &[u8]| signature.holds(primary, &[&hashed, over]);
        match (signature.kind, &mut self.part) {
            (KEY_REVOCATION, _) => self.key.revoked |= holds(&[]),
            (DIRECT, _) if holds(&[]) => self.key.claims.push(Claim::of(signature)),
            (0x10..=0x13, Part::User(user)) if holds(user) => {
                self.key.claims.push(Claim::of(signature));
                let text = user.get(5..).unwrap_or_default();
                self.key.name.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
            }
            (SUBKEY, Part::Subkey(subkey)) if subkey.key.hashed().is_some_and(|over| holds(&over)) => {
                subkey.claims.extend(bound(primary, &subkey.key, signature));
            }
            (SUBKEY_REVOCATION, Part::Subkey(subkey)) => {
                subkey.revoked |= subkey.key.hashed().is_some_and(|over| holds(&over));
            }
            _ => {}
        }
    }

    fn finished(mut self) -> Key {
        self.begin(Part::Other);
        let gone = |subkey: &&Subkey| subkey.revoked;
        let gone: Vec<_> = self.key.subkeys.iter().filter(gone).map(|subkey| subkey.key.fingerprint).collect();
        self.key.subkeys.retain(|subkey| !gone.contains(&subkey.key.fingerprint));
        self.key
    }
}

/// What is hashed of a user ID (5.2.4).
fn user(id: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(id.len()).ok()?.to_be_bytes();
    (id.len() <= USER).then(|| [&[0xb4], length.as_slice(), id].concat())
}

/// What a binding that holds says of a subkey. One that signs must say itself whose it is: else anybody could call another's his own.
fn bound(primary: &PublicKey, subkey: &PublicKey, binding: &Signature) -> Option<Claim> {
    let mut claim = Claim::of(binding);
    if claim.signs() {
        let back = binding.embedded().filter(|back| back.kind == BACK)?;
        if !back.holds(subkey, &[&primary.hashed()?, &subkey.hashed()?]) {
            return None;
        }
        claim.until = claim.until.min(Claim::of(&back).until);
    }
    Some(claim)
}

impl Claim {
    fn of(signature: &Signature) -> Self {
        let created = signature.created();
        Self {
            direct: signature.kind == DIRECT,
            created,
            until: end(created, signature.said.lifetime),
            flags: signature.said.key_flags,
            lifetime: signature.said.key_lifetime,
        }
    }

    fn signs(&self) -> bool {
        self.flags.is_some_and(|flags| flags & SIGNS != 0)
    }
}

/// When something ends that lasts for so long; zero is for ever (5.2.3.13).
pub(super) fn end(created: i64, lifetime: i64) -> i64 {
    if lifetime == 0 { i64::MAX } else { created.saturating_add(lifetime) }
}

/// The newest word of a key on something, as GnuPG finds it: on the key itself, else on the key with a user ID.
fn newest<T>(claims: &[Claim], at: i64, what: impl Fn(&Claim) -> Option<T>) -> Option<T> {
    let newest = |direct: bool| {
        let alive = claims.iter().filter(|claim| claim.direct == direct && at < claim.until);
        alive.max_by_key(|claim| claim.created)
    };
    newest(true).and_then(&what).or_else(|| newest(false).and_then(&what))
}

impl Key {
    /// The keys that may sign for it, judged for a signature that was made at one time and is looked at at another.
    pub(super) fn signers(&self, made: i64, at: i64) -> impl Iterator<Item = Signer<'_>> {
        let lasts = move |key: &PublicKey, claims: &[Claim]| {
            let lifetime = newest(claims, at, |claim| claim.lifetime).unwrap_or_default();
            key.created <= made && at < end(key.created, lifetime)
        };
        let signs =
            move |claims: &[Claim]| newest(claims, at, |claim| claim.flags).is_some_and(|flags| flags & SIGNS != 0);
        // What a key that is over has said of itself counts no longer, nor what it says of its subkeys.
        let stands = self.claims.iter().any(|claim| at < claim.until) && lasts(&self.primary, &self.claims);
        let primary = signs(&self.claims).then_some(Signer { owner: self, key: &self.primary, lasts: stands });
        let subkeys = self.subkeys.iter().filter(move |subkey| signs(&subkey.claims));
        let subkeys = subkeys.map(move |subkey| {
            let lasts = stands && lasts(&subkey.key, &subkey.claims);
            Signer { owner: self, key: &subkey.key, lasts }
        });
        primary.into_iter().chain(subkeys)
    }

    /// Its first user ID, else its fingerprint.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| super::hex(&self.primary.fingerprint))
    }
}
