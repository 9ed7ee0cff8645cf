//! Records: an index in the cache repository, tagged with a key and signed, that says which artifact belongs to it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{
    artifact::RECORD_TYPE,
    media_type,
    recipe::Key,
    value::{Digest, Repository},
};

const KEY: &str = "dev.minimalimage.key";
const SIGNATURE: &str = "dev.minimalimage.signature";
/// A pre-defined annotation key of the OCI image-spec. Not signed: it tells pruning what is old, and nothing else.
const CREATED: &str = "org.opencontainers.image.created";

/// The operator's key, with which it vouches for what it has read from its own agents.
pub struct Signer(Ed25519KeyPair);

/// A signing key that is not one.
#[derive(Debug, thiserror::Error)]
#[error("the signing key is not a PKCS#8 Ed25519 key: delete its Secret to have a new one made")]
pub struct SigningKeyError;

impl Signer {
    /// A signer from a PKCS#8 document.
    ///
    /// # Errors
    /// When `pkcs8` is not an Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map(Self).map_err(|_| SigningKeyError)
    }

    /// The public key (base64) that agents get, to believe only this operator's records.
    #[must_use]
    pub fn public_key(&self) -> String {
        BASE64.encode(self.0.public_key())
    }

    /// The record for `key` in `repository`, made `now`: the artifact manifest `artifact` of `size` bytes.
    #[must_use]
    pub fn record(
        &self,
        key: &Key,
        repository: &Repository,
        (artifact, size): (Digest, u64),
        now: Timestamp,
    ) -> Vec<u8> {
        let signature = self.0.sign(&statement(key, repository, artifact));
        let record = json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "artifactType": RECORD_TYPE,
            "manifests": [{"mediaType": media_type::MANIFEST, "digest": artifact.to_string(), "size": size}],
            "annotations": {KEY: key.to_string(), SIGNATURE: BASE64.encode(signature), CREATED: now.to_string()},
        });
        record.to_string().into_bytes()
    }
}

/// The artifact that a record names, if it is a record for `key` in `repository` signed with `public_key` (base64).
/// Anything else is none: a cache repository can be written to by others.
#[must_use]
pub fn verified_artifact(record: &[u8], key: &Key, repository: &Repository, public_key: &str) -> Option<Digest> {
    let record: Value = serde_json::from_slice(record).ok()?;
    let [manifest] = &record.get("manifests")?.as_array()?[..] else { return None };
    let artifact: Digest = manifest.get("digest")?.as_str()?.parse().ok()?;
    let signature = BASE64.decode(record.get("annotations")?.get(SIGNATURE)?.as_str()?).ok()?;
    let public_key = BASE64.decode(public_key).ok()?;
    UnparsedPublicKey::new(&ED25519, public_key).verify(&statement(key, repository, artifact), &signature).ok()?;
    Some(artifact)
}

/// What a record says of itself, whoever signed it; for pruning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRecord {
    /// The key's digits.
    pub key: String,
    /// Digest of its artifact's manifest.
    pub artifact: Digest,
    /// When it was made; records of older versions do not say.
    pub created: Option<Timestamp>,
}

/// Reads a manifest as a record; none for anything else.
#[must_use]
pub fn claimed(manifest: &[u8]) -> Option<ClaimedRecord> {
    let record: Value = serde_json::from_slice(manifest).ok()?;
    let annotation = |name: &str| record.get("annotations")?.get(name)?.as_str();
    let [artifact] = &record.get("manifests")?.as_array()?[..] else { return None };
    (record.get("artifactType")?.as_str()? == RECORD_TYPE).then_some(())?;
    annotation(SIGNATURE)?;
    Some(ClaimedRecord {
        key: annotation(KEY)?.to_owned(),
        artifact: artifact.get("digest")?.as_str()?.parse().ok()?,
        created: annotation(CREATED).and_then(|time| time.parse().ok()),
    })
}

/// What is signed. The artifact's digest covers its layers' digests and diff IDs.
fn statement(key: &Key, repository: &Repository, artifact: Digest) -> Vec<u8> {
    format!("minimalimage record v1\n{key}\n{repository}\n{artifact}\n").into_bytes()
}

/// A new signing key as PKCS#8.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_signing_key() -> Result<Vec<u8>, SigningKeyError> {
    let random = ring::rand::SystemRandom::new();
    Ed25519KeyPair::generate_pkcs8(&random).map(|document| document.as_ref().to_vec()).map_err(|_| SigningKeyError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        serde_json::from_value(json!(Digest::of(text.as_bytes()))).unwrap()
    }

    #[test]
    fn only_the_own_record_for_this_key_and_place_is_believed() {
        let signer = Signer::from_pkcs8(&new_signing_key().unwrap()).unwrap();
        let other = Signer::from_pkcs8(&new_signing_key().unwrap()).unwrap();
        let repository: Repository = "registry.example.com/app-cache".parse().unwrap();
        let elsewhere = repository.with_suffix("2");
        let artifact = Digest::of(b"artifact");
        let now: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        let record = signer.record(&key("a"), &repository, (artifact, 10), now);
        let claim = ClaimedRecord { key: key("a").to_string(), artifact, created: Some(now) };
        assert_eq!((claimed(&record), claimed(b"{}")), (Some(claim), None));
        let public = signer.public_key();
        assert_eq!(verified_artifact(&record, &key("a"), &repository, &public), Some(artifact));
        assert_eq!(verified_artifact(&record, &key("b"), &repository, &public), None);
        assert_eq!(verified_artifact(&record, &key("a"), &elsewhere, &public), None);
        assert_eq!(verified_artifact(&record, &key("a"), &repository, &other.public_key()), None);
        let text = String::from_utf8(record).unwrap();
        let forged = text.replace(&artifact.to_string(), &Digest::of(b"forged").to_string());
        assert_eq!(verified_artifact(forged.as_bytes(), &key("a"), &repository, &public), None);
        assert_eq!(verified_artifact(b"{}", &key("a"), &repository, &public), None);
    }
}
