//! Who signed an archive's Release file: clear-signed messages of OpenPGP (RFC 9580, 7), held against a keyring.

use jiff::Timestamp;
use pgp::{
    composed::{CleartextSignedMessage, Deserializable as _, SignedPublicKey},
    crypto::hash::HashAlgorithm,
    packet::Signature,
    types::{KeyDetails as _, VerifyingKey},
};

/// Debian's own keys for bullseye, bookworm and trixie, as the package debian-archive-keyring has them.
const DEBIAN: &str = include_str!("archive-keys.asc");

/// Keys that are believed.
#[derive(Debug, Clone)]
pub struct Keyring(Vec<SignedPublicKey>);

/// Why a Release file is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The keys are no keys.
    #[error("the keyring holds no usable OpenPGP public key: {0}")]
    Keyring(String),
    /// It is no clear-signed message.
    #[error("it is not a signed message: {0}")]
    Malformed(String),
    /// Nobody who is believed has signed it.
    #[error("none of its signatures is by a key of the keyring; it is signed by {0}")]
    Unknown(String),
    /// A key is not valid any longer, or was not yet.
    #[error("its signature by {0} counts no longer: the key or the signature has expired")]
    Expired(String),
}

impl Keyring {
    /// The keys that Debian signs its archives with.
    ///
    /// # Errors
    /// Never, unless this program was built wrongly.
    pub fn debian() -> Result<Self, SignatureError> {
        Self::parse(DEBIAN)
    }

    /// Reads armored public keys; those whose own signatures do not hold are left out.
    ///
    /// # Errors
    /// When no key is left.
    pub fn parse(armored: &str) -> Result<Self, SignatureError> {
        let unusable = |error: pgp::errors::Error| SignatureError::Keyring(error.to_string());
        let mut keys = Vec::new();
        for block in blocks(armored) {
            let (found, _) = SignedPublicKey::from_armor_many(block.as_bytes()).map_err(unusable)?;
            for key in found {
                let key = key.map_err(unusable)?;
                key.verify_bindings().map_err(unusable)?;
                if key.details.revocation_signatures.is_empty() {
                    keys.push(key);
                }
            }
        }
        if keys.is_empty() {
            return Err(SignatureError::Keyring("give it with -----BEGIN PGP PUBLIC KEY BLOCK-----".to_owned()));
        }
        Ok(Self(keys))
    }

    /// The text of `message`, once one of its signatures is by one of these keys. Keys and signatures must be valid at `at`; without it
    /// at the time when the message was signed.
    ///
    /// # Errors
    /// When it is not believed.
    pub fn verified(&self, message: &str, at: Option<Timestamp>) -> Result<String, SignatureError> {
        let malformed = |error: pgp::errors::Error| SignatureError::Malformed(error.to_string());
        let (message, _) = CleartextSignedMessage::from_string(message).map_err(malformed)?;
        let text = message.signed_text();
        let mut expired = None;
        for signature in message.signatures().iter().take(16).filter(|signature| is_strong(signature)) {
            for key in &self.0 {
                match signed_by(key, signature, &text, at) {
                    Some(true) => return Ok(text.replace("\r\n", "\n")),
                    Some(false) => expired = Some(name(key)),
                    None => {}
                }
            }
        }
        Err(match expired {
            Some(name) => SignatureError::Expired(name),
            None => SignatureError::Unknown(issuers(&message)),
        })
    }
}

/// Whether `key` or one of its signing subkeys has made `signature`, and was valid then; none where it has not made it.
fn signed_by(key: &SignedPublicKey, signature: &Signature, text: &str, at: Option<Timestamp>) -> Option<bool> {
    let made = seconds(signature.created()?);
    let at = at.map_or(made, Timestamp::as_second);
    let lasts = |created: i64, lifetime: Option<pgp::types::Duration>| {
        let lifetime = lifetime.map_or(0, |lifetime| i64::from(lifetime.as_secs()));
        // RFC 9580, 5.2.3.13: none and zero are for ever.
        created <= at && (lifetime == 0 || at < created.saturating_add(lifetime))
    };
    let verifies = |signer: &dyn Fn() -> bool, sign: bool| sign && signer();
    let users = key.details.users.iter().flat_map(|user| &user.signatures);
    let own = users.chain(&key.details.direct_signatures).max_by_key(|own| own.created().map(seconds));
    let primary_lifetime = own.and_then(Signature::key_expiration_time);
    let primary_lasts = lasts(seconds(key.primary_key.created_at()), primary_lifetime);
    let fresh = primary_lasts && lasts(made, signature.signature_expiration_time());
    let by_primary =
        verifies(&|| verify(signature, &key.primary_key, text), own.is_some_and(|own| own.key_flags().sign()));
    if by_primary {
        return Some(fresh);
    }
    key.public_subkeys.iter().find_map(|subkey| {
        let binding = subkey.signatures.iter().max_by_key(|binding| binding.created().map(seconds))?;
        let signs = verifies(&|| verify(signature, &subkey.key, text), binding.key_flags().sign());
        signs.then(|| fresh && lasts(seconds(subkey.key.created_at()), binding.key_expiration_time()))
    })
}

fn verify(signature: &Signature, key: &impl VerifyingKey, text: &str) -> bool {
    signature.verify(key, text.as_bytes()).is_ok()
}

/// Signatures over hashes that can be forged are none.
fn is_strong(signature: &Signature) -> bool {
    let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
    signature.hash_alg().is_some_and(|hash| strong.contains(&hash))
}

fn seconds(time: pgp::types::Timestamp) -> i64 {
    i64::from(time.as_secs())
}

fn name(key: &SignedPublicKey) -> String {
    let user = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    user.unwrap_or_else(|| key.fingerprint().to_string())
}

fn issuers(message: &CleartextSignedMessage) -> String {
    let keys = message.signatures().iter().take(4).flat_map(Signature::issuer_fingerprint).map(ToString::to_string);
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() { "nobody who says a name".to_owned() } else { keys.join(", ") }
}

/// The armored blocks of a text that may hold several, one behind the other.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
    let ends: Vec<usize> = text.match_indices(END).map(|(at, _)| at + END.len()).collect();
    let starts = std::iter::once(0).chain(ends.clone());
    starts.zip(ends).filter_map(|(start, end)| text.get(start..end)).map(str::trim)
}
