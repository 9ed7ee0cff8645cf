//! Held against others: what GnuPG has made (RSA, Ed25519, subkeys), and what the crate `pgp` makes and believes.

use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, Deserializable as _, EncryptionCaps, KeyType, SecretKeyParamsBuilder,
        SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
    },
    types::{KeyDetails as _, Password},
};
use rand::thread_rng;

use super::*;

const GNUPG: &str = include_str!("gnupg/keys.asc");

#[test]
fn what_gnupg_signs_counts() {
    let keys = Keyring::parse(GNUPG).unwrap();
    let text = "Origin: Test\nFrom here\n- dash\n-----BEGIN PGP SIGNED MESSAGE-----\n\nlast: line";
    let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let expired = |name: &str| Err(SignatureError::Expired(name.to_owned()));
    let archive = "Archive Test <archive@example.com>";
    for (what, message, at, expected) in [
        ("RSA, SHA-256", include_str!("gnupg/sha256.asc"), None, Ok(text.to_owned())),
        ("RSA, SHA-384", include_str!("gnupg/sha384.asc"), None, Ok(text.to_owned())),
        ("RSA, SHA-512", include_str!("gnupg/sha512.asc"), None, Ok(text.to_owned())),
        ("RSA, SHA-1", include_str!("gnupg/sha1.asc"), None, Err(SignatureError::Weak(archive.to_owned()))),
        ("before it was signed", include_str!("gnupg/sha256.asc"), time("2026-01-31T00:00:00Z"), expired(archive)),
        ("the subkey is over", include_str!("gnupg/sha256.asc"), time("2031-01-02T00:00:00Z"), expired(archive)),
        ("then the other key counts", include_str!("gnupg/two.asc"), time("2031-01-02T00:00:00Z"), Ok(text.to_owned())),
    ] {
        assert_eq!(keys.verified(message, at), expected, "{what}");
    }
    let changed = include_str!("gnupg/two.asc").replace("Origin: Test", "Origin: Text");
    assert!(matches!(keys.verified(&changed, None), Err(SignatureError::Unknown(_))));
    let debian = Keyring::debian().unwrap();
    assert!(matches!(debian.verified(include_str!("gnupg/two.asc"), None), Err(SignatureError::Unknown(_))));
}

#[test]
fn no_flipped_bit_of_an_rsa_signature_counts() {
    let keys = Keyring::parse(GNUPG).unwrap();
    let message = Message::parse(include_str!("gnupg/sha256.asc"), SIGNATURES).unwrap();
    let dashed = message.text.lines().map(|line| format!("- {line}\n")).collect::<String>();
    // Every 7th bit: they are of RSA, and slow.
    for bit in (0..message.signatures.len() * 8).step_by(7) {
        let mut packets = message.signatures.clone();
        packets[bit / 8] ^= 1 << (bit % 8);
        let verified = keys.verified(&forge::message(dashed.trim_end(), &packets), None);
        assert!(verified.is_err() || verified.as_ref() == Ok(&message.text), "{bit}");
    }
    let whole = forge::message(dashed.trim_end(), &message.signatures);
    assert_eq!(keys.verified(&whole, None), Ok(message.text));
}

#[test]
fn keyrings_have_the_keys_that_the_crate_finds_in_them() {
    for (armored, count) in [(DEBIAN, 9), (GNUPG, 2)] {
        let ours = Keyring::parse(armored).unwrap();
        let blocks = armor::blocks(armored, "PUBLIC KEY BLOCK", KEYRING).unwrap();
        let theirs = blocks.iter().flat_map(|block| SignedPublicKey::from_bytes_many(&block[..]).unwrap());
        let theirs: Vec<_> = theirs.map(Result::unwrap).collect();
        assert!(theirs.iter().all(|key| key.verify_bindings().is_ok()));
        let fingerprints = |key: &SignedPublicKey| {
            let primary = key.details.users[0].signatures[0].key_flags().sign().then(|| key.fingerprint());
            let subkeys = key.public_subkeys.iter().map(pgp::types::KeyDetails::fingerprint);
            primary.into_iter().chain(subkeys).map(|print| print.as_bytes().to_vec()).collect::<Vec<_>>()
        };
        let theirs: Vec<_> = theirs.iter().map(fingerprints).collect();
        let at = "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let prints = |key: &Key| key.signers(at, at).map(|signer| signer.key.fingerprint.to_vec()).collect::<Vec<_>>();
        let ours: Vec<_> = ours.0.iter().map(prints).collect();
        assert_eq!((ours.len(), ours), (count, theirs));
    }
}

fn made(primary: KeyType, signs: bool, subkey: Option<KeyType>) -> SignedSecretKey {
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters.key_type(primary).can_certify(true).can_sign(signs).can_encrypt(EncryptionCaps::None);
    parameters.primary_user_id("Test <test@example.com>".into());
    if let Some(kind) = subkey {
        parameters.subkey(SubkeyParamsBuilder::default().key_type(kind).can_sign(true).build().unwrap());
    }
    parameters.build().unwrap().generate(thread_rng()).unwrap()
}

#[test]
fn what_the_crate_signs_counts() {
    let text = "- a\n\nb: c\n-----x\nlast";
    for (primary, subkey) in [
        (KeyType::Ed25519Legacy, None),
        (KeyType::Ed25519, None),
        (KeyType::Ed25519, Some(KeyType::Ed25519Legacy)),
        (KeyType::Ed25519Legacy, Some(KeyType::Ed25519)),
    ] {
        // Often enough for numbers that begin with zeros.
        for _ in 0..if subkey.is_none() { 40 } else { 4 } {
            let key = made(primary.clone(), subkey.is_none(), subkey.clone());
            let password = Password::empty();
            let message = match key.secret_subkeys.first() {
                Some(subkey) => CleartextSignedMessage::sign(thread_rng(), text, &subkey.key, &password),
                None => CleartextSignedMessage::sign(thread_rng(), text, &key.primary_key, &password),
            };
            let message = message.unwrap().to_armored_string(ArmorOptions::default()).unwrap();
            let public = SignedPublicKey::from(key).to_armored_string(ArmorOptions::default()).unwrap();
            let verified = Keyring::parse(&public).unwrap().verified(&message, None);
            assert_eq!(verified, Ok(text.to_owned()), "{public}\n{message}");
        }
    }
}

#[test]
fn what_is_made_by_hand_counts_for_the_crate_too() {
    let (pair, other) = (Pair::new(1), Pair::of(2, 22, BORN));
    for (signer, stranger) in [(&pair, &other), (&other, &pair)] {
        let packets = certificate(signer, &certification().with(time(9, 5000)));
        let key = SignedPublicKey::from_bytes(&packets[..]).unwrap();
        key.verify_bindings().unwrap();
        assert_eq!(key.fingerprint().as_bytes(), signer.fingerprint());
        let by = |pair: &Pair, form: &Form| message(TEXT, &signed(pair, form));
        for (message, counts) in [
            (by(signer, &text_form()), true),
            (by(signer, &text_form().hash(10)), true),
            (by(stranger, &text_form()), false),
            (by(signer, &text_form()).replace("Suite", "Suits"), false),
        ] {
            let (parsed, _) = CleartextSignedMessage::from_string(&message).unwrap();
            assert_eq!(parsed.verify(&key.primary_key).is_ok(), counts);
            assert_eq!(outcome(&keyring(&packets), &message, None) == "good", counts);
        }
    }
}
