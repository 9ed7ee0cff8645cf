//! Frames of messages: armor, escapes, and what stands where it is not signed.

use super::*;

#[test]
fn a_message_is_one_signed_text_from_its_first_line_to_its_last() {
    let pair = Pair::new(1);
    let keys = Keyring::parse(&keyring(&certificate(&pair, &certification()))).unwrap();
    let sign = |text: &str| packet(2, &pair.sign(&text_form(), &[text.as_bytes()]));
    let good = message("a\nb", &sign("a\r\nb"));
    let edit = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let frame = "-----BEGIN PGP SIGNED MESSAGE-----";
    for (what, message, expected) in [
        ("plain", good.clone(), Ok("a\nb")),
        ("ends of lines as elsewhere", good.replace('\n', "\r\n"), Ok("a\nb")),
        ("white space at ends", edit("a\nb\n", "a \t\nb  \n"), Ok("a\nb")),
        ("no hash named", edit("Hash: SHA256\n", ""), Ok("a\nb")),
        ("empty lines behind", format!("{good}\n \r\n"), Ok("a\nb")),
        ("escapes without need", edit("a\nb\n", "- a\n- b\n"), Ok("a\nb")),
        ("no text", message("", &sign("")), Ok("")),
        ("an empty last line", message("a\n", &sign("a\r\n")), Ok("a\n")),
        ("dashes", message("- -\n- - x\n- -----END", &sign("-\r\n- x\r\n-----END")), Ok("-\n- x\n-----END")),
        (
            "a message in the text",
            message(&format!("- {frame}\n\nx"), &sign(&format!("{frame}\r\n\r\nx"))),
            Ok(&format!("{frame}\n\nx")[..]),
        ),
        (
            "other ends of lines are text",
            message("a\u{b}\u{85}\u{2028}", &sign("a\u{b}\u{85}\u{2028}")),
            Ok("a\u{b}\u{85}\u{2028}"),
        ),
        ("text before", format!("x\n{good}"), Err(Malformed::NotSigned)),
        ("an empty line before", format!("\n{good}"), Err(Malformed::NotSigned)),
        ("nothing", String::new(), Err(Malformed::NotSigned)),
        (
            "only a signature",
            good[good.find("-----BEGIN PGP SIGNATURE").unwrap()..].to_owned(),
            Err(Malformed::NotSigned),
        ),
        ("text behind", format!("{good}x\n"), Err(Malformed::Outside)),
        ("two messages", format!("{good}{good}"), Err(Malformed::Outside)),
        ("a second signature", format!("{good}{}", forge::armored("SIGNATURE", &sign("x"))), Err(Malformed::Outside)),
        ("a message within", edit("b\n", &format!("{frame}\n\nb\n")), Err(Malformed::Dash)),
        ("a dash", edit("b\n", "-b\n"), Err(Malformed::Dash)),
        ("a dash and a tab", edit("b\n", "-\tb\n"), Err(Malformed::Dash)),
        ("another header", edit("Hash: SHA256", "Comment: x"), Err(Malformed::Header)),
        ("text as header", edit("Hash: SHA256", "Hash: SHA256\nSuite: x"), Err(Malformed::Header)),
        ("a header of anything", edit("Hash: SHA256", "Hash: SHA256\u{b}Suite: x"), Err(Malformed::Header)),
        ("no line between", edit("SHA256\n\n", "SHA256\n"), Err(Malformed::Header)),
        ("white space between", edit("SHA256\n\n", "SHA256\n \n"), Err(Malformed::Header)),
        ("a carriage return", edit("a\n", "a\rb\n"), Err(Malformed::CarriageReturn)),
        ("carriage returns", edit("a\n", "a\r\r\n"), Err(Malformed::CarriageReturn)),
        (
            "no signature",
            good[..good.find("-----BEGIN PGP SIGNATURE").unwrap()].to_owned(),
            Err(Malformed::NoSignature),
        ),
    ] {
        let expected = expected.map(str::to_owned).map_err(SignatureError::Malformed);
        assert_eq!(keys.verified(&message, None), expected, "{what}");
    }
    for (what, message) in [
        ("a line more", edit("b\n", "b\n\n")),
        ("a line less", edit("a\nb\n", "a\n")),
        ("lines joined", edit("a\nb\n", "a b\n")),
        ("white space before", edit("b\n", " b\n")),
        ("white space that is none of the two", edit("b\n", "b\u{a0}\n")),
    ] {
        assert!(matches!(keys.verified(&message, None), Err(SignatureError::Unknown(_))), "{what}");
    }
}

#[test]
fn armor_is_headers_an_empty_line_and_base64_whose_checksum_holds() {
    let block = |inner: &str| format!("-----BEGIN PGP A-----\n{inner}-----END PGP A-----\n");
    let nine = || Ok(vec![b"123456789".to_vec()]);
    for (what, text, expected) in [
        ("plain", block("\nMTIzNDU2Nzg5\n"), nine()),
        ("headers", block("Version: 1\nComment: a: b\n \t\nMTIz\nNDU2 \nNzg5\n"), nine()),
        ("a checksum", block("\nMTIzNDU2Nzg5\n=Ic8C\n"), nine()),
        ("text around", format!("x\n\n{}y\n", block("\nMTIzNDU2Nzg5\n")), nine()),
        ("ends of lines as elsewhere", block("\nMTIzNDU2Nzg5\n=Ic8C\n").replace('\n', "\r\n"), nine()),
        ("two", block("\nMTI=\n") + &block("\n\n=twTO\n"), Ok(vec![b"12".to_vec(), Vec::new()])),
        ("none", String::new(), Ok(Vec::new())),
        ("of another kind", block("\nMTI=\n").replace("PGP A", "PGP B"), Ok(Vec::new())),
        ("another checksum", block("\nMTIzNDU2Nzg5\n=Ic8D\n"), Err(Malformed::Checksum)),
        ("a checksum of nothing", block("\nMTIzNDU2Nzg5\n=....\n"), Err(Malformed::Checksum)),
        ("behind the checksum", block("\nMTIz\n=Ic8C\nNDU2Nzg5\n"), Err(Malformed::Armor)),
        ("no empty line", block("MTIzNDU2Nzg5\n"), Err(Malformed::Armor)),
        ("no base64", block("\nMTI-\n"), Err(Malformed::Armor)),
        ("cut within four", block("\nMTIzN\n"), Err(Malformed::Armor)),
        ("padding within", block("\nMTI=\nMTI=\n"), Err(Malformed::Armor)),
        ("no end", "-----BEGIN PGP A-----\n\nMTI=\n".to_owned(), Err(Malformed::Armor)),
        ("another end", block("\nMTI=\n").replace("END PGP A", "END PGP B"), Err(Malformed::Armor)),
        ("too much", block(&format!("\n{}", "MTIzNDU2Nzg5\n".repeat(5))), Err(Malformed::TooLong(40))),
    ] {
        assert_eq!(armor::blocks(&text, "A", 40), expected, "{what}");
    }
}
