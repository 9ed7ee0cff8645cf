//! Keys, signatures and texts that count, and for each its twins that must not.

mod forge;
mod keys;
mod oracle;
mod texts;

use forge::{BORN, CRITICAL, Form, MADE, Pair, certificate, certification, keyring, message, packet, subpacket, time};

use super::*;

const TEXT: &str = "Origin: Test\nSuite: test";

/// The kind of what comes of a message.
fn outcome(keyring: &str, message: &str, at: Option<u32>) -> &'static str {
    let at = at.map(|at| Timestamp::from_second(at.into()).unwrap());
    match Keyring::parse(keyring).and_then(|keyring| keyring.verified(message, at)) {
        Ok(text) => {
            assert_eq!(text, TEXT);
            "good"
        }
        Err(SignatureError::Keyring(_)) => "broken keyring",
        Err(SignatureError::NoKey) => "no key",
        Err(SignatureError::Malformed(_)) => "malformed",
        Err(SignatureError::Unknown(_)) => "unknown",
        Err(SignatureError::Weak(_)) => "weak",
        Err(SignatureError::Expired(_)) => "expired",
    }
}

fn text_form() -> Form {
    Form::new(v4::TEXT, MADE)
}

/// The packet of a signature over the text.
fn signed(pair: &Pair, form: &Form) -> Vec<u8> {
    packet(2, &pair.sign(form, &[TEXT.replace('\n', "\r\n").as_bytes()]))
}

#[test]
fn a_signature_counts_if_it_is_of_the_right_kind_over_a_strong_hash_and_in_its_time() {
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let keys = keyring(&certificate(&pair, &certification()));
    let notation = |kind| subpacket(kind, b"\x80\0\0\0\0\x01\0\x01ab");
    let signer = |fingerprint: &[u8]| subpacket(33, &[&[4], fingerprint].concat());
    for (what, form, expected) in [
        ("plain", text_form(), "good"),
        ("SHA-384", text_form().hash(9), "good"),
        ("SHA-512", text_form().hash(10), "good"),
        ("SHA-1", text_form().hash(2), "weak"),
        ("MD5", text_form().hash(1), "weak"),
        ("binary", Form::new(0, MADE), "unknown"),
        ("a certification", Form::new(0x13, MADE), "unknown"),
        ("its own name", text_form().with(signer(&pair.fingerprint())), "good"),
        ("its own ID, not hashed", text_form().beside(subpacket(16, &pair.fingerprint()[12..])), "good"),
        ("another's name", text_form().with(signer(&other.fingerprint())), "unknown"),
        ("a notation", text_form().with(notation(20)), "good"),
        ("a critical notation", text_form().with(notation(20 + CRITICAL)), "weak"),
        ("critical and unknown", text_form().with(subpacket(99 + CRITICAL, b"")), "weak"),
        ("critical and unknown, not hashed", text_form().beside(subpacket(99 + CRITICAL, b"")), "weak"),
        ("critical and known", text_form().with(time(3 + CRITICAL, 500)), "good"),
        ("it has lasted", text_form().with(time(3, 100)), "expired"),
        ("its end is not hashed", text_form().beside(time(3, 100)), "good"),
        ("before its key", Form::new(v4::TEXT, BORN - 1), "expired"),
        ("after now", Form::new(v4::TEXT, MADE + 101), "expired"),
    ] {
        let message = message(TEXT, &signed(&pair, &form));
        assert_eq!(outcome(&keys, &message, Some(MADE + 100)), expected, "{what}");
    }
    let undated = Form { hashed: Vec::new(), ..text_form() }.beside(time(2, MADE));
    assert_eq!(outcome(&keys, &message(TEXT, &signed(&pair, &undated)), None), "unknown");
    let by_other = message(TEXT, &signed(&other, &text_form()));
    assert_eq!(outcome(&keys, &by_other, None), "unknown");
}

#[test]
fn one_good_signature_among_others_is_enough_and_packets_must_be_of_signatures() {
    let pair = Pair::new(1);
    let keys = keyring(&certificate(&pair, &certification()));
    let good = signed(&pair, &text_form());
    let body = pair.sign(&text_form(), &[TEXT.replace('\n', "\r\n").as_bytes()]);
    let foreign = signed(&Pair::new(2), &text_form());
    let version = |version: u8| packet(2, &[&[version], &body[1..]].concat());
    let length = u8::try_from(body.len()).unwrap();
    for (what, packets, expected) in [
        ("the second", [foreign.clone(), good.clone()].concat(), "good"),
        ("the sixteenth", [foreign.repeat(15), good.clone()].concat(), "good"),
        ("the seventeenth", [foreign.repeat(16), good.clone()].concat(), "malformed"),
        ("behind other versions", [version(3), version(6), good.clone()].concat(), "good"),
        ("of another version", version(5), "unknown"),
        ("none", Vec::new(), "unknown"),
        (
            "behind a marker, padding and an unknown type",
            [packet(10, b"PGP"), packet(21, b"x"), packet(60, b""), good.clone()].concat(),
            "good",
        ),
        ("behind a critical unknown type", [packet(30, b""), good.clone()].concat(), "malformed"),
        ("behind data", [packet(11, b"t\0\0\0\0\0x"), good.clone()].concat(), "malformed"),
        ("behind a key", [packet(6, &pair.body()), good.clone()].concat(), "malformed"),
        ("with a short length", [&[0xc2, length], &body[..]].concat(), "good"),
        ("in the old frame", [&[0x88, length], &body[..]].concat(), "good"),
        ("in the old frame, longer", [&[0x89, 0, length], &body[..]].concat(), "good"),
        ("in the old frame without a length", [&[0x8b], &body[..]].concat(), "malformed"),
        ("in parts", [&[0xc2, 0xe0], &body[..1], &[length - 1], &body[1..]].concat(), "malformed"),
        ("cut off", good[..good.len() - 1].to_vec(), "malformed"),
        ("without a frame", body.clone(), "malformed"),
        ("of type 0", packet(0, b""), "malformed"),
        ("with a byte too many", packet(2, &[&body[..], &[0]].concat()), "unknown"),
        ("longer than is read", [packet(60, &vec![0; SIGNATURES]), good.clone()].concat(), "malformed"),
    ] {
        assert_eq!(outcome(&keys, &message(TEXT, &packets), None), expected, "{what}");
    }
}

#[test]
fn who_has_signed_is_told_by_the_name_in_the_signature_or_in_the_keyring() {
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let keys = Keyring::parse(&keyring(&certificate(&pair, &certification()))).unwrap();
    let says = |pair: &Pair, form: &Form| keys.verified(&message(TEXT, &signed(pair, form)), None).unwrap_err();
    let named = text_form().with(subpacket(33, &[&[4], &other.fingerprint()[..]].concat()));
    assert_eq!(says(&other, &named), SignatureError::Unknown(hex(&other.fingerprint())));
    assert_eq!(says(&other, &text_form()), SignatureError::Unknown("nobody who says a name".into()));
    assert_eq!(says(&pair, &text_form().hash(2)), SignatureError::Weak(forge::NAME.into()));
}

#[test]
fn no_flipped_bit_of_a_message_or_a_key_makes_another_text_or_another_key_count() {
    let pair = Pair::of(1, 22, BORN);
    let packets = certificate(&pair, &certification().with(time(9, 5000)));
    let (good, signature) = (keyring(&packets), signed(&pair, &text_form()));
    let flips = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        (0..bytes.len() * 8).map(move |bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
    };
    let keys = Keyring::parse(&good).unwrap();
    for flipped in flips(&signature) {
        let text = keys.verified(&message(TEXT, &flipped), None);
        assert!(text.is_err() || text == Ok(TEXT.to_owned()), "{flipped:?}");
    }
    for flipped in flips(message(TEXT, &signature).as_bytes()) {
        let Ok(flipped) = String::from_utf8(flipped) else { continue };
        let text = keys.verified(&flipped, None);
        assert!(text.is_err() || text == Ok(TEXT.to_owned()), "{flipped}");
    }
    for flipped in flips(&packets) {
        if let Ok(Keyring(keys)) = Keyring::parse(&keyring(&flipped)) {
            assert_eq!(keys[0].primary.fingerprint[..], pair.fingerprint()[..]);
            let lifetimes = |at| keys[0].signers(MADE.into(), at).map(|signer| signer.lasts).collect::<Vec<_>>();
            assert_eq!((lifetimes(5999), lifetimes(6000)), (vec![true], vec![false]));
        }
    }
}

#[test]
fn what_is_cut_off_counts_no_more() {
    let pair = Pair::new(1);
    let packets = certificate(&pair, &certification());
    let (keys, whole) = (keyring(&packets), message(TEXT, &signed(&pair, &text_form())));
    let keyring = Keyring::parse(&keys).unwrap();
    for end in 0..whole.len() - 1 {
        assert!(keyring.verified(&whole[..end], None).is_err(), "{end}");
    }
    for end in 0..keys.len() - 1 {
        assert!(Keyring::parse(&keys[..end]).is_err(), "{end}");
    }
    for end in 0..packets.len() {
        assert!(Keyring::parse(&forge::keyring(&packets[..end])).is_err(), "{end}");
    }
}
