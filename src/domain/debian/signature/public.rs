//! Public keys of version 4 (RFC 9580, 5.5.2) and what they can verify: RSA of 2048 to 8192 bits, and Ed25519.

use ring::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512},
    signature::{
        ED25519, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};

use super::packet::Reader;

/// 1.3.6.1.4.1.11591.15.1 behind its length (9.2).
const ED25519_LEGACY: [u8; 10] = [9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];

/// A primary key or a subkey.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) fingerprint: [u8; 20],
    body: Vec<u8>,
    numbers: Numbers,
}

#[derive(Debug, Clone)]
enum Numbers {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Ed25519Legacy([u8; 32]),
    Ed25519([u8; 32]),
}

/// A hash that signatures are made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// Forgeable: only a revocation counts over it.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By its number (9.5).
    pub(super) fn of(number: u8) -> Option<Self> {
        Some(match number {
            2 => Self::Sha1,
            8 => Self::Sha256,
            9 => Self::Sha384,
            10 => Self::Sha512,
            _ => return None,
        })
    }

    fn digest(self, message: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        digest::digest(algorithm, message)
    }

    fn rsa(self) -> &'static RsaParameters {
        match self {
            Self::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        }
    }
}

impl PublicKey {
    /// Reads a packet's content; none of another version or algorithm.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.byte()? != 4 {
            return None;
        }
        let created = i64::from(reader.long()?);
        let numbers = match reader.byte()? {
            1 | 3 => {
                let modulus = reader.integer()?.to_vec();
                let bits = modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
                let exponent = reader.integer()?.to_vec();
                (2048..=8192)
                    .contains(&bits)
                    .then_some(Numbers::Rsa(RsaPublicKeyComponents { n: modulus, e: exponent }))?
            }
            22 => {
                let curve: [u8; 10] = reader.array()?;
                // In its native form, which 0x40 marks (11.2).
                let point = reader.integer()?.strip_prefix(&[0x40])?;
                (curve == ED25519_LEGACY).then_some(Numbers::Ed25519Legacy(point.try_into().ok()?))?
            }
            27 => Numbers::Ed25519(reader.array()?),
            _ => return None,
        };
        let mut key = Self { created, fingerprint: [0; 20], body: body.to_vec(), numbers };
        key.fingerprint = Hash::Sha1.digest(&key.hashed()?).as_ref().try_into().ok()?;
        reader.is_empty().then_some(key)
    }

    /// What of it is hashed for signatures over it (5.2.4).
    pub(super) fn hashed(&self) -> Option<Vec<u8>> {
        let mut hashed = vec![0x99];
        hashed.extend_from_slice(&u16::try_from(self.body.len()).ok()?.to_be_bytes());
        hashed.extend_from_slice(&self.body);
        Some(hashed)
    }

    /// Whether `signature`, as the packet of one of this algorithm (its number) has it, is by this key and over `message`.
    pub(super) fn verifies(&self, algorithm: u8, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        match (&self.numbers, algorithm) {
            (Numbers::Rsa(key), 1 | 3) => whole(signature, |reader| padded(reader.integer()?, key.n.len()))
                .is_some_and(|signature| key.verify(hash.rsa(), message, &signature).is_ok()),
            (Numbers::Ed25519Legacy(key), 22) => {
                let numbers = whole(signature, |reader| {
                    Some([padded(reader.integer()?, 32)?, padded(reader.integer()?, 32)?].concat())
                });
                numbers.is_some_and(|numbers| ed25519(key, hash, message, &numbers))
            }
            (Numbers::Ed25519(key), 27) => ed25519(key, hash, message, signature),
            _ => false,
        }
    }
}

fn ed25519(key: &[u8; 32], hash: Hash, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(hash.digest(message).as_ref(), signature).is_ok()
}

/// What `read` takes from bytes, of which it must leave nothing.
fn whole(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut reader = Reader(bytes);
    read(&mut reader).filter(|_| reader.is_empty())
}

/// An integer in `length` octets.
fn padded(integer: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut padded = vec![0; length.checked_sub(integer.len())?];
    padded.extend_from_slice(integer);
    Some(padded)
}
