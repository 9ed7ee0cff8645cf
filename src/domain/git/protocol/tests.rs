//! Tests of the upload-pack conversation, with messages as git 2.39 sends them.

use super::*;

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn advertisement(lines: &[&str]) -> Advertisement {
    let mut advertisement = Advertisement::default();
    for text in lines {
        advertisement.take(&Packet::Data(Bytes::from((*text).to_owned()))).unwrap();
    }
    advertisement
}

fn id(text: &str) -> ObjectId {
    text.parse().unwrap()
}

fn version_two() -> Advertisement {
    advertisement(&["# service=git-upload-pack\n", "version 2\n", "ls-refs=unborn\n", "object-format=sha1\n"])
}

#[test]
fn version_0_lists_refs_with_peeled_tags_and_drops_what_is_no_branch_or_tag() {
    let heard = advertisement(&[
        "# service=git-upload-pack\n",
        &format!("{ONE} HEAD\0multi_ack side-band-64k shallow symref=HEAD:refs/heads/main\n"),
        &format!("{ONE} refs/heads/main\n"),
        &format!("{ONE} refs/pull/1/head\n"),
        &format!("{TWO} refs/tags/v1\n"),
        &format!("{ONE} refs/tags/v1^{{}}\n"),
    ]);
    assert_eq!(heard.version, Version::Zero);
    assert!(heard.has("shallow") && heard.has("symref") && !heard.has("HEAD"));
    assert_eq!(
        heard.refs.iter().map(|found| &found.name[..]).collect::<Vec<_>>(),
        ["HEAD", "refs/heads/main", "refs/tags/v1"]
    );
    assert_eq!(find_ref(&heard.refs, &GitRef::Tag("v1".parse().unwrap())), Some(id(ONE)));
    assert_eq!(find_ref(&heard.refs, &GitRef::Branch("other".parse().unwrap())), None);
}

#[test]
fn an_empty_repository_has_no_refs() {
    let null = "0".repeat(40);
    let heard = advertisement(&[&format!("{null} capabilities^{{}}\0side-band-64k object-format=sha256\n")]);
    assert!(heard.refs.is_empty() && heard.has("side-band-64k") && !heard.is_sha1());
}

#[test]
fn version_2_refs_carry_their_peeled_object() {
    let line = format!("{TWO} refs/tags/v1 symref-target:x peeled:{ONE}\n");
    assert_eq!(
        parse_ref_line(line.as_bytes()),
        Some(Ref { name: "refs/tags/v1".into(), id: id(TWO), peeled: Some(id(ONE)) })
    );
    assert_eq!(parse_ref_line(b"unborn HEAD symref-target:refs/heads/main\n"), None);
}

#[test]
fn requests_are_what_git_sends() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(AGENT, "agent=x");
    assert_eq!(
        text(ls_refs_request(&version_two(), &["refs/heads/main"])),
        format!(
            "0014command=ls-refs\n{:04x}agent=x\n0017object-format=sha1\n00010009peel\n001fref-prefix refs/heads/main\n0000",
            AGENT.len() + 5
        )
    );
    let shallow = text(fetch_request(&version_two(), &[id(ONE)], Depth::Shallow));
    assert!(shallow.ends_with(&format!("000eofs-delta\n0032want {ONE}\n000ddeepen 1\n0009done\n0000")), "{shallow}");
    let zero = advertisement(&[&format!("{ONE} HEAD\0side-band-64k thin-pack\n")]);
    let all = text(fetch_request(&zero, &[id(ONE), id(TWO)], Depth::Full));
    assert!(all.contains(&format!("want {ONE} side-band-64k agent=x\n0032want {TWO}\n00000009done\n")), "{all}");
}

#[test]
fn packs_are_taken_from_band_one_until_the_end() {
    let data = |bytes: &'static [u8]| Packet::Data(Bytes::from_static(bytes));
    for (version, head) in [
        (Version::Zero, vec![data(b"shallow 1\n"), Packet::Flush, data(b"NAK\n")]),
        (Version::Two, vec![data(b"shallow-info\n"), data(b"shallow 1\n"), Packet::Delimiter, data(b"packfile\n")]),
    ] {
        let mut reader = FetchReader::new(version);
        for packet in head {
            assert_eq!(reader.take(packet), Some(FetchEvent::Nothing));
        }
        assert_eq!(reader.take(data(b"\x02Counting")), Some(FetchEvent::Nothing));
        assert_eq!(reader.take(data(b"\x01PACK")), Some(FetchEvent::Pack(Bytes::from_static(b"PACK"))));
        assert_eq!(reader.take(data(b"\x04")), None);
        assert_eq!(reader.take(Packet::Flush), Some(FetchEvent::End));
    }
}

#[test]
fn refusals_are_told_apart_without_keeping_words() {
    let refused =
        |text: &'static str| FetchReader::new(Version::Two).take(Packet::Data(Bytes::from_static(text.as_bytes())));
    assert_eq!(refused("ERR upload-pack: not our ref 11"), Some(FetchEvent::Refused(RemoteRefusal::NotOurRef)));
    assert_eq!(refused("ERR access denied"), Some(FetchEvent::Refused(RemoteRefusal::Other)));
}
