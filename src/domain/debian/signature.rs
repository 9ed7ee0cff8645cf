//! Who signed an archive's Release file: clear-signed messages of OpenPGP (RFC 9580, 7), held against a keyring.
//!
//! As much of OpenPGP as archives need, and no more: keys and signatures of version 4, RSA and Ed25519, SHA-2.

mod armor;
mod cleartext;
mod key;
mod packet;
mod public;
#[cfg(test)]
mod tests;
mod v4;

use jiff::Timestamp;

use cleartext::Message;
use key::{Key, Signer, end};
use packet::Packets;
use v4::Signature;

/// Debian's own keys for bullseye, bookworm and trixie, as the package debian-archive-keyring has them.
const DEBIAN: &str = include_str!("archive-keys.asc");

/// Octets of a keyring as text; Debian's has 49 KiB.
const KEYRING: usize = 1 << 20;
/// Keys of it.
const KEYS: usize = 64;
/// Octets of all signatures of a message; by an RSA key of 4096 bits one has 600.
const SIGNATURES: usize = 64 << 10;
/// Signatures of a message; Debian's have up to three.
const COUNT: usize = 16;
/// How often a key is tried on a signature, each time of which hashes the text: a signature names its key, so that more are never needed.
const ATTEMPTS: usize = 64;

/// Keys that are believed.
#[derive(Debug, Clone)]
pub struct Keyring(Vec<Key>);

/// Why a Release file is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The keys cannot be read.
    #[error("the keyring cannot be read: {0}")]
    Keyring(Malformed),
    /// None of the keys is of use.
    #[error(
        "the keyring holds no usable OpenPGP public key: give it with -----BEGIN PGP PUBLIC KEY BLOCK-----, \
         RSA of at least 2048 bits or Ed25519, not revoked, and with self signatures over SHA-256, SHA-384 or SHA-512"
    )]
    NoKey,
    /// It is no clear-signed message.
    #[error("it is not a signed message: {0}")]
    Malformed(Malformed),
    /// Nobody who is believed has signed it.
    #[error("none of its signatures is by a key of the keyring; it is signed by {0}")]
    Unknown(String),
    /// A signature is of a kind that others can forge, or that is not understood.
    #[error("its signature by {0} counts for nothing: it must be by RSA or Ed25519 over SHA-256, SHA-384 or SHA-512")]
    Weak(String),
    /// A key is not valid any longer, or was not yet.
    #[error("its signature by {0} counts no longer: the key or the signature has expired")]
    Expired(String),
}

/// What is wrong with a text that should be OpenPGP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is something else, or something stands before it.
    #[error("its first line is not -----BEGIN PGP SIGNED MESSAGE-----")]
    NotSigned,
    /// Only hashes may be named before the text.
    #[error("a line other than `Hash: ...` stands before the empty line above its text")]
    Header,
    /// Such a line may be the frame of another message.
    #[error("a line of its text begins with a dash that is not escaped by `- `")]
    Dash,
    /// What is a line to some is two to others.
    #[error("a line of its text has a carriage return within")]
    CarriageReturn,
    /// The text has no end.
    #[error("no -----BEGIN PGP SIGNATURE----- follows its text")]
    NoSignature,
    /// What is behind is not signed.
    #[error("text follows its signature")]
    Outside,
    /// Lines of armor are broken or missing.
    #[error("its armor is not headers, an empty line, base64 and -----END PGP ...-----")]
    Armor,
    /// A damaged transfer.
    #[error("its armor's checksum does not hold")]
    Checksum,
    /// A packet is cut off.
    #[error("it has a packet that is cut off, or without a length")]
    Packet,
    /// A packet that belongs elsewhere.
    #[error("it has a packet of type {0}, which does not belong there")]
    Foreign(u8),
    /// More than is read.
    #[error("it has more than {1} {0}")]
    TooMany(&'static str, usize),
    /// Longer than what is read.
    #[error("it has more than {0} bytes")]
    TooLong(usize),
}

impl Keyring {
    /// The keys that Debian signs its archives with.
    ///
    /// # Errors
    /// Never, unless this program was built wrongly.
    pub fn debian() -> Result<Self, SignatureError> {
        Self::parse(DEBIAN)
    }

    /// Reads armored public keys; those that are of no use are left out.
    ///
    /// # Errors
    /// When it is broken, or no key is left.
    pub fn parse(armored: &str) -> Result<Self, SignatureError> {
        let broken = SignatureError::Keyring;
        if armored.len() > KEYRING {
            return Err(broken(Malformed::TooLong(KEYRING)));
        }
        let mut keys = Vec::new();
        for block in armor::blocks(armored, "PUBLIC KEY BLOCK", KEYRING).map_err(broken)? {
            keys.extend(key::keys(&block).map_err(broken)?);
            if keys.len() > KEYS {
                return Err(broken(Malformed::TooMany("keys", KEYS)));
            }
        }
        let keys = key::usable(keys);
        if keys.is_empty() { Err(SignatureError::NoKey) } else { Ok(Self(keys)) }
    }

    /// The text of `message`, exactly as one of these keys has signed it, with `\n` for the ends of lines. Keys and signatures must be
    /// valid at `at`; without it at the time when the message was signed.
    ///
    /// # Errors
    /// When it is not believed.
    pub fn verified(&self, message: &str, at: Option<Timestamp>) -> Result<String, SignatureError> {
        let Message { text, signatures } = Message::parse(message, SIGNATURES).map_err(SignatureError::Malformed)?;
        let signatures = read(&signatures).map_err(SignatureError::Malformed)?;
        let canonical = text.replace('\n', "\r\n");
        let (mut weak, mut expired) = (None, None);
        for (signature, signer) in self.pairs(&signatures, at).take(ATTEMPTS) {
            if !signature.is_strong() {
                weak = Some(signer.owner.name());
            } else if signature.holds(signer.key, &[canonical.as_bytes()]) {
                if signer.lasts && lasts(signature, at) {
                    return Ok(text);
                }
                expired = Some(signer.owner.name());
            }
        }
        Err(match (expired, weak) {
            (Some(name), _) => SignatureError::Expired(name),
            (None, Some(name)) => SignatureError::Weak(name),
            (None, None) => SignatureError::Unknown(signers(&signatures)),
        })
    }

    /// The signatures, each with the keys that may have made it.
    fn pairs<'a>(
        &'a self,
        signatures: &'a [Signature],
        at: Option<Timestamp>,
    ) -> impl Iterator<Item = (&'a Signature, Signer<'a>)> {
        signatures.iter().flat_map(move |signature| {
            let made = signature.created();
            let signers = self.0.iter().flat_map(move |key| key.signers(made, seconds(at, made)));
            signers.filter(|signer| signature.names(signer.key)).map(move |signer| (signature, signer))
        })
    }
}

/// The signatures over texts among the packets below a message.
fn read(packets: &[u8]) -> Result<Vec<Signature>, Malformed> {
    let mut signatures = Vec::new();
    for (index, packet) in Packets::new(packets).enumerate() {
        let packet = packet?;
        if index >= COUNT {
            return Err(Malformed::TooMany("signatures", COUNT));
        }
        match packet.tag {
            2 => signatures.extend(Signature::parse(packet.body).filter(|signature| signature.kind == v4::TEXT)),
            _ if packet.is_ignorable() => {}
            tag => return Err(Malformed::Foreign(tag)),
        }
    }
    Ok(signatures)
}

fn lasts(signature: &Signature, at: Option<Timestamp>) -> bool {
    let made = signature.created();
    let at = seconds(at, made);
    made <= at && at < end(made, signature.said.lifetime)
}

fn seconds(at: Option<Timestamp>, made: i64) -> i64 {
    at.map_or(made, Timestamp::as_second)
}

fn signers(signatures: &[Signature]) -> String {
    let names: Vec<_> = signatures.iter().filter_map(Signature::signer).take(4).map(hex).collect();
    if names.is_empty() { "nobody who says a name".to_owned() } else { names.join(", ") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
