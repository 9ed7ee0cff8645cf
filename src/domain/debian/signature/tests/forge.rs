//! Keys, signatures and messages with anything in them, made by hand.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512},
    signature::{Ed25519KeyPair, KeyPair as _},
};

/// When keys are made, and messages.
pub(super) const BORN: u32 = 1_000;
pub(super) const MADE: u32 = 2_000;

/// A key of Ed25519; 22 or 27.
pub(super) struct Pair {
    secret: Ed25519KeyPair,
    algorithm: u8,
    created: u32,
}

impl Pair {
    pub(super) fn new(seed: u8) -> Self {
        Self::of(seed, 27, BORN)
    }

    pub(super) fn of(seed: u8, algorithm: u8, created: u32) -> Self {
        Self { secret: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), algorithm, created }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = vec![4];
        body.extend_from_slice(&self.created.to_be_bytes());
        body.push(self.algorithm);
        if self.algorithm == 22 {
            body.extend_from_slice(b"\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01\x01\x07\x40");
        }
        body.extend_from_slice(self.secret.public_key().as_ref());
        body
    }

    /// As a part of what signatures are over.
    pub(super) fn hashed(&self) -> Vec<u8> {
        let body = self.body();
        [&[0x99], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    pub(super) fn fingerprint(&self) -> Vec<u8> {
        digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.hashed()).as_ref().to_vec()
    }

    /// The body of a signature's packet.
    pub(super) fn sign(&self, form: &Form, over: &[&[u8]]) -> Vec<u8> {
        let area = |subpackets: &[Vec<u8>]| {
            let area = subpackets.concat();
            [&u16::try_from(area.len()).unwrap().to_be_bytes()[..], &area].concat()
        };
        let mut body = [&[4, form.kind, self.algorithm, form.hash], &area(&form.hashed)[..]].concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let algorithm = match form.hash {
            9 => &SHA384,
            10 => &SHA512,
            8 => &SHA256,
            _ => &SHA1_FOR_LEGACY_USE_ONLY,
        };
        let digest = digest::digest(algorithm, &[&over.concat(), &body[..], &[4, 0xff], &length].concat());
        body.extend(area(&form.loose));
        body.extend_from_slice(&digest.as_ref()[..2]);
        let signature = self.secret.sign(digest.as_ref());
        if self.algorithm == 22 {
            signature.as_ref().chunks(32).for_each(|number| body.extend(integer(number)));
        } else {
            body.extend_from_slice(signature.as_ref());
        }
        body
    }
}

/// A multiprecision integer as short as it goes.
fn integer(digits: &[u8]) -> Vec<u8> {
    let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
    let bits = digits.len() * 8 - digits.first().map_or(0, |digit| digit.leading_zeros() as usize);
    [&u16::try_from(bits).unwrap().to_be_bytes()[..], digits].concat()
}

/// What a signature says of itself.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) kind: u8,
    pub(super) hash: u8,
    pub(super) hashed: Vec<Vec<u8>>,
    pub(super) loose: Vec<Vec<u8>>,
}

impl Form {
    pub(super) fn new(kind: u8, created: u32) -> Self {
        Self { kind, hash: 8, hashed: vec![time(2, created)], loose: Vec::new() }
    }

    pub(super) fn hash(mut self, hash: u8) -> Self {
        self.hash = hash;
        self
    }

    pub(super) fn with(mut self, subpacket: Vec<u8>) -> Self {
        self.hashed.push(subpacket);
        self
    }

    pub(super) fn beside(mut self, subpacket: Vec<u8>) -> Self {
        self.loose.push(subpacket);
        self
    }

    /// The flags of a key that certifies and signs.
    pub(super) fn signs(self) -> Self {
        self.with(subpacket(27, &[3]))
    }
}

/// Added to a subpacket's type.
pub(super) const CRITICAL: u8 = 0x80;

pub(super) fn subpacket(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len() + 1).unwrap();
    assert!(length < 192);
    [&[length, kind], data].concat()
}

pub(super) fn time(kind: u8, seconds: u32) -> Vec<u8> {
    subpacket(kind, &seconds.to_be_bytes())
}

pub(super) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[0xc0 | tag, 0xff], &u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

pub(super) fn user(name: &str) -> Vec<u8> {
    [&[0xb4], &u32::try_from(name.len()).unwrap().to_be_bytes()[..], name.as_bytes()].concat()
}

pub(super) const NAME: &str = "Test <test@example.com>";

/// A key, its user ID, and what it says of itself with that.
pub(super) fn certificate(pair: &Pair, form: &Form) -> Vec<u8> {
    let signature = pair.sign(form, &[&pair.hashed(), &user(NAME)]);
    [packet(6, &pair.body()), packet(13, NAME.as_bytes()), packet(2, &signature)].concat()
}

pub(super) fn certification() -> Form {
    Form::new(0x13, BORN).signs()
}

pub(super) fn armored(kind: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PGP {kind}-----\n\n{}\n-----END PGP {kind}-----\n", lines.join("\n"))
}

pub(super) fn keyring(packets: &[u8]) -> String {
    armored("PUBLIC KEY BLOCK", packets)
}

/// A message with a text as it is to be written, and with these packets below.
pub(super) fn message(text: &str, packets: &[u8]) -> String {
    format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}\n{}", armored("SIGNATURE", packets))
}
