//! What archives, packages, agents and layers hold, damaged in any way: read or refused, but never believed, and no panic.

use std::{fs, ops::Range};

use minimalimage::{
    api::v1alpha1::Preflight,
    domain::{
        debian::{packages::Packages, relation, release::Release, signature::Keyring},
        preflight::{FileIndex, LayerIndex, Origin, Question, Start, check, index_layer},
        value::{Digest, Platform},
    },
};
use proptest::{prelude::*, sample::Index, strategy::ValueTree as _, test_runner::TestRunner};

use crate::{
    Bench,
    archive::{Archive, Deb},
};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Overwritten(Index, Vec<u8>),
    Inserted(Index, Vec<u8>),
    Removed(Index, usize),
    Repeated(Index, usize),
    Cut(Index),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<Index>;
    // What numbers and texts of formats tend to trip over.
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..9),
            Just(vec![0xff; 8]),
            Just(vec![0; 8]),
            Just(b"\n".to_vec()),
            Just(b"99999999999".to_vec())
        ]
    };
    let one = prop_oneof![
        4 => (at(), bytes()).prop_map(|(at, bytes)| Damage::Overwritten(at, bytes)),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Damage::Inserted(at, bytes)),
        2 => (at(), 1..100_usize).prop_map(|(at, count)| Damage::Removed(at, count)),
        1 => (at(), 1..1000_usize).prop_map(|(at, count)| Damage::Repeated(at, count)),
        1 => at().prop_map(Damage::Cut),
    ];
    prop::collection::vec(one, 1..5)
}

fn damaged(genuine: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    for damage in damages {
        // The first places are where formats say what they are.
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len().max(1)) >> (at.index(3) * 4);
        let range = |at: usize, count: usize, bytes: &[u8]| -> Range<usize> {
            at.min(bytes.len())..(at + count).min(bytes.len())
        };
        match damage {
            Damage::Overwritten(at, with) => {
                let range = range(place(at, &bytes), with.len(), &bytes);
                let count = range.len();
                bytes[range].copy_from_slice(&with[..count]);
            }
            Damage::Inserted(at, with) => {
                let at = place(at, &bytes).min(bytes.len());
                bytes.splice(at..at, with.iter().copied());
            }
            Damage::Removed(at, count) => drop(bytes.drain(range(place(at, &bytes), *count, &bytes))),
            Damage::Repeated(at, count) => {
                let range = range(place(at, &bytes), *count, &bytes);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
            Damage::Cut(at) => bytes.truncate(place(at, &bytes)),
        }
    }
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn nothing_is_believed_that_was_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(directory.path());
    let signed = "Origin: Test\nSuite: test\nDate: Sun, 01 Nov 2026 10:00:00 UTC\nSHA256:\n 00 1 a\n";
    let message = archive.signed(signed);
    let keyring = Keyring::parse(&archive.keyring()).unwrap();
    // Ends of lines are not signed, nor blanks before them (RFC 9580, section 7.2).
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&keyring.verified(&message, None).unwrap()), lines(signed));
    proptest!(cases(3000), |(damages in damages())| {
        if let Ok(believed) = keyring.verified(&text(&damaged(message.as_bytes(), &damages)), None) {
            prop_assert_eq!(lines(&believed), lines(signed));
        }
    });
    let armored = archive.keyring();
    proptest!(cases(3000), |(damages in damages())| {
        // Another key than the archive's own must not come out of it.
        if let Ok(keyring) = Keyring::parse(&text(&damaged(armored.as_bytes(), &damages)))
            && let Ok(believed) = keyring.verified(&message, None)
        {
            prop_assert_eq!(lines(&believed), lines(signed));
        }
    });
}

#[test]
fn texts_of_archives_are_read_or_refused() {
    let release = "Origin: Test\nSuite: test\nVersion: 1\nDate: Sun, 01 Nov 2026 10:00:00 UTC\nValid-Until: Sun, 08 Nov 2026 10:00:00 UTC\n\
                   Acquire-By-Hash: yes\nSHA256:\n 0000000000000000000000000000000000000000000000000000000000000000 10 main/binary-amd64/Packages.gz\n";
    let paragraph = "Package: app\nVersion: 1:2.0~rc1-3+b1\nArchitecture: amd64\nDepends: a (>= 1) | b:any, c [amd64], d (= 2)\n\
                     Provides: e (= 1), f\nFilename: pool/a.deb\nSize: 10\n\
                     SHA256: 0000000000000000000000000000000000000000000000000000000000000000\n";
    assert!(Release::parse(release).is_ok());
    proptest!(cases(3000), |(damages in damages())| {
        let _ = Release::parse(&text(&damaged(release.as_bytes(), &damages)));
        let paragraph = text(&damaged(paragraph.as_bytes(), &damages));
        let mut packages = Packages::default();
        let _ = packages.add(0, &paragraph);
        relation::all(&paragraph).for_each(drop);
        let _ = packages.providers();
    });
}

/// What is signed for may be broken all the same, or meant to do harm.
#[tokio::test]
async fn packages_are_unpacked_or_refused() {
    let whole = Deb::new("app", "1", "")
        .entry(tar::EntryType::Regular, "./usr/bin/app", b"program", 0o755)
        .link("./usr/bin/other", "app")
        .entry(tar::EntryType::Link, "./usr/bin/third", b"./usr/bin/app", 0o755)
        .file("./usr/share/doc/app/copyright", &"licence\n".repeat(200));
    let bench = Bench::new(&["app"], std::slice::from_ref(&whole)).await;
    let set = bench.resolve().await.unwrap();
    let place = bench.archive.root.join(whole.path());
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut made) = (0, 0);
    for _ in 0..400 {
        let damages = damages().new_tree(&mut runner).unwrap().current();
        let bytes = damaged(&whole.bytes(), &damages);
        fs::write(&place, &bytes).unwrap();
        let mut set = set.clone();
        (set.packages[0].digest, set.packages[0].size) = (Digest::of(&bytes), bytes.len() as u64);
        match bench.compose(&set).await {
            Ok(_) => made += 1,
            Err(_) => refused += 1,
        }
    }
    // What is damaged where nobody looks, such as the time of a file, does no harm.
    assert!(refused > 200 && made > 0, "{refused} refused, {made} made");
}

/// A layer with programs of this machine, and how it starts.
fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, from) in
        [("usr/bin/true", "/usr/bin/true"), ("lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2")]
    {
        builder.append_path_with_name(fs::canonicalize(from).unwrap(), path).unwrap();
    }
    builder.into_inner().unwrap()
}

fn judged(index: LayerIndex) -> usize {
    let files = FileIndex::default().with(index, Origin::Artifact);
    let start = Start { entrypoint: vec!["/usr/bin/true".into()], ..Start::default() };
    let platform = Platform::linux("amd64");
    let question =
        Question { files: &files, start: &start, platform: &platform, base: "scratch", mode: Preflight::Strict };
    check(&question).list.len()
}

#[test]
fn layers_and_what_agents_say_of_them_are_judged_or_refused() {
    let layer = layer();
    let index = index_layer(&layer[..]).unwrap();
    let bytes = index.clone().into_bytes();
    assert!(judged(index) > 0, "libc is missing");
    proptest!(cases(300), |(damages in damages())| {
        if let Ok(index) = index_layer(&damaged(&layer, &damages)[..]) {
            judged(index);
        }
    });
    proptest!(cases(3000), |(damages in damages())| {
        if let Some(index) = LayerIndex::parse(&damaged(&bytes, &damages)) {
            judged(index);
        }
    });
    // The same beneath the compression, where the damage meets the reader.
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain).unwrap();
    proptest!(cases(3000), |(damages in damages())| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&damaged(&plain, &damages)).unwrap();
        if let Some(index) = LayerIndex::parse(&encoder.finish().unwrap()) {
            judged(index);
        }
    });
}
