//! What keys say of themselves: flags, ends, subkeys, revocations.

use super::{forge::user, *};

/// What comes of the one message by `signer`, with the key made of these packets.
fn with(signer: &Pair, packets: &[Vec<u8>], at: Option<u32>) -> &'static str {
    outcome(&keyring(&packets.concat()), &message(TEXT, &signed(signer, &text_form())), at)
}

#[test]
fn a_key_signs_if_its_newest_word_says_so_and_for_as_long_as_it_says() {
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let words = |words: &[&Form]| {
        let over = [pair.hashed(), user(forge::NAME)];
        let direct = words.iter().filter(|form| form.kind == 0x1f).map(|form| packet(2, &pair.sign(form, &[&over[0]])));
        let users = words.iter().filter(|form| form.kind != 0x1f);
        let users = users.map(|form| packet(2, &pair.sign(form, &[&over[0], &over[1]])));
        let keys = [packet(6, &pair.body())].into_iter().chain(direct);
        keys.chain([packet(13, forge::NAME.as_bytes())]).chain(users).collect::<Vec<_>>()
    };
    let plain = certification();
    let certifies = || Form::new(0x13, BORN).with(subpacket(27, &[1]));
    let newer = |kind| Form::new(kind, BORN + 1);
    for (what, forms, expected) in [
        ("plain", vec![&plain], "good"),
        ("persona", vec![&Form::new(0x10, BORN).signs()], "good"),
        ("nothing said", vec![&Form::new(0x13, BORN)], "unknown"),
        ("certifies only", vec![&certifies()], "unknown"),
        ("flags that are not hashed", vec![&Form::new(0x13, BORN).beside(subpacket(27, &[3]))], "unknown"),
        ("SHA-1", vec![&plain.clone().hash(2)], "no key"),
        ("MD5", vec![&plain.clone().hash(1)], "no key"),
        ("a critical notation", vec![&plain.clone().with(subpacket(20 + CRITICAL, b"\0\0\0\0\0\0\0\0"))], "no key"),
        ("another's signature", vec![&plain.clone().with(subpacket(16, b"12345678"))], "no key"),
        ("lasts to now", vec![&plain.clone().with(time(9, 1101))], "good"),
        ("over now", vec![&plain.clone().with(time(9, 1100))], "expired"),
        ("zero is for ever", vec![&plain.clone().with(time(9, 0))], "good"),
        ("the word is over", vec![&plain.clone().with(time(3, 1100))], "unknown"),
        (
            "a newer word prolongs",
            vec![&newer(0x13).signs().with(time(9, 9000)), &plain.clone().with(time(9, 9))],
            "good",
        ),
        ("a newer word ends", vec![&newer(0x13).signs().with(time(9, 9)), &plain], "expired"),
        ("a newer word takes away", vec![&plain, &newer(0x13)], "unknown"),
        ("on itself", vec![&Form::new(0x1f, BORN).signs()], "good"),
        // As Debian's keys have it, with who may revoke them.
        ("on itself, of something else", vec![&newer(0x1f).with(time(12, 0)), &plain], "good"),
        ("on itself, an end", vec![&Form::new(0x1f, BORN).with(time(9, 9)), &plain], "expired"),
    ] {
        assert_eq!(with(&pair, &words(&forms), Some(MADE + 100)), expected, "{what}");
    }
    let young = Pair::of(1, 27, MADE + 1);
    assert_eq!(with(&young, &[certificate(&young, &certification())], None), "expired");
    let foreign = other.sign(&plain, &[&pair.hashed(), &user(forge::NAME)]);
    let moved = pair.sign(&plain, &[&pair.hashed(), &user("Test")]);
    for (what, signature) in [("by another", &foreign), ("over another user ID", &moved)] {
        let packets = [packet(6, &pair.body()), packet(13, forge::NAME.as_bytes()), packet(2, signature)];
        assert_eq!(with(&pair, &packets, None), "no key", "{what}");
    }
}

#[test]
fn a_revoked_key_is_none_but_only_it_can_say_so() {
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let revocation = |signer: &Pair, hash| {
        packet(2, &signer.sign(&Form::new(v4::KEY_REVOCATION, MADE).hash(hash), &[&pair.hashed()]))
    };
    let plain = certificate(&pair, &certification());
    for (what, packets, expected) in [
        ("revoked", [plain.clone(), revocation(&pair, 8)], "no key"),
        ("revoked, though weakly", [plain.clone(), revocation(&pair, 2)], "no key"),
        ("in another copy", [plain.clone(), [packet(6, &pair.body()), revocation(&pair, 8)].concat()], "no key"),
        ("by another", [plain.clone(), revocation(&other, 8)], "good"),
        ("the one behind is", [plain.clone(), [packet(6, &other.body()), revocation(&pair, 8)].concat()], "good"),
    ] {
        assert_eq!(with(&pair, &packets, None), expected, "{what}");
    }
}

#[test]
fn a_subkey_signs_for_its_key_if_both_say_so() {
    let (pair, sub, other) = (Pair::new(1), Pair::of(2, 22, BORN), Pair::new(3));
    let primary = certificate(&pair, &Form::new(0x13, BORN).with(subpacket(27, &[1])));
    let over = [pair.hashed(), sub.hashed()];
    let back = |signer: &Pair, kind| signer.sign(&Form::new(kind, BORN), &[&over[0], &over[1]]);
    let bound = |signer: &Pair, form: &Form| packet(2, &signer.sign(form, &[&over[0], &over[1]]));
    let binding =
        |created, back: &[u8]| Form::new(v4::SUBKEY, created).with(subpacket(27, &[2])).beside(subpacket(32, back));
    let good = binding(BORN, &back(&sub, v4::BACK));
    let begin = [primary.clone(), packet(14, &sub.body())].concat();
    let unsigned = Form::new(v4::SUBKEY, BORN).with(subpacket(27, &[2]));
    let revocation = Form::new(v4::SUBKEY_REVOCATION, BORN);
    for (what, signatures, expected) in [
        ("bound", bound(&pair, &good), "good"),
        (
            "its own signature is hashed",
            bound(&pair, &unsigned.clone().with(subpacket(32, &back(&sub, v4::BACK)))),
            "good",
        ),
        ("not bound", Vec::new(), "unknown"),
        ("it does not say so", bound(&pair, &unsigned), "unknown"),
        ("another says so", bound(&pair, &binding(BORN, &back(&other, v4::BACK))), "unknown"),
        ("it says something else", bound(&pair, &binding(BORN, &back(&sub, v4::SUBKEY))), "unknown"),
        ("the key does not say so", bound(&other, &good), "unknown"),
        ("it says so itself", bound(&sub, &good), "unknown"),
        ("SHA-1", bound(&pair, &good.clone().hash(2)), "unknown"),
        ("of no use", bound(&pair, &Form::new(v4::SUBKEY, BORN).with(subpacket(27, &[12]))), "unknown"),
        ("over", bound(&pair, &good.clone().with(time(9, 1000))), "expired"),
        (
            "prolonged",
            [bound(&pair, &good.clone().with(time(9, 9))), bound(&pair, &binding(BORN + 1, &back(&sub, v4::BACK)))]
                .concat(),
            "good",
        ),
        ("revoked", [bound(&pair, &good), bound(&pair, &revocation)].concat(), "unknown"),
        (
            "revoked in another copy",
            [bound(&pair, &revocation), packet(14, &sub.body()), bound(&pair, &good)].concat(),
            "unknown",
        ),
        ("revoked by another", [bound(&pair, &good), bound(&other, &revocation)].concat(), "good"),
    ] {
        assert_eq!(with(&sub, &[begin.clone(), signatures], None), expected, "{what}");
    }
    let ended = certificate(&pair, &certification().with(time(9, 1000)));
    assert_eq!(with(&sub, &[ended, packet(14, &sub.body()), bound(&pair, &good)], None), "expired");
    let elsewhere = [certificate(&other, &certification()), packet(14, &sub.body()), bound(&pair, &good)];
    assert_eq!(with(&sub, &elsewhere, None), "unknown", "of another key");
}

#[test]
fn keyrings_have_limits_and_only_what_belongs_to_keys() {
    let pair = Pair::new(1);
    let plain = certificate(&pair, &certification());
    let unusable = packet(6, &[&[4, 0, 0, 0, 0, 19], &[0; 40][..]].concat());
    let version = packet(6, &[&[6], &pair.body()[1..]].concat());
    for (what, packets, expected) in [
        ("behind others", [unusable.clone(), packet(13, b"x"), version, plain.clone()].concat(), "good"),
        ("others only", unusable, "no key"),
        ("nothing", Vec::new(), "no key"),
        (
            "with trust, a picture, a marker and something new",
            [plain.clone(), packet(12, b"x"), packet(17, b"x"), packet(10, b"PGP"), packet(63, b"")].concat(),
            "good",
        ),
        ("a message", [plain.clone(), packet(11, b"x")].concat(), "broken keyring"),
        ("a secret key", [plain.clone(), packet(5, &pair.body())].concat(), "broken keyring"),
        ("something critical and new", [plain.clone(), packet(25, b"x")].concat(), "broken keyring"),
        ("64 keys", plain.repeat(64), "good"),
        ("65 keys", plain.repeat(65), "broken keyring"),
        ("64 subkeys", [plain.clone(), packet(14, &pair.body()).repeat(64)].concat(), "good"),
        ("65 subkeys", [plain.clone(), packet(14, &pair.body()).repeat(65)].concat(), "broken keyring"),
        ("too long", [plain.clone(), packet(63, &vec![0; KEYRING])].concat(), "broken keyring"),
    ] {
        assert_eq!(with(&pair, &[packets], None), expected, "{what}");
    }
}
