//! Indexes of layers, and layers on top of each other.

use tar::{EntryType, Header};

use super::super::{
    Distribution, FileIndex, Gatherer, Kind, LayerIndex, Severity,
    index::{Facts, Node, Origin},
    index_layer, loader_files,
};
use super::{elves::Maker, files, judge};
use crate::domain::{
    layer::LayerWriter,
    recipe::Owner,
    tree::{self, Entry, TreePath},
};

/// Name, kind, and link or content.
type Entries<'a> = &'a [(&'a str, EntryType, &'a [u8])];

/// An archive as others write it.
pub fn archive(entries: Entries<'_>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, more) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Regular { 0o644 } else { 0o755 });
        header.set_size(0);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            archive.append_link(&mut header, name, std::str::from_utf8(more).unwrap()).unwrap();
        } else {
            header.set_size(more.len() as u64);
            archive.append_data(&mut header, name, *more).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

pub fn layer(entries: Entries<'_>) -> LayerIndex {
    index_layer(&archive(entries)[..]).unwrap()
}

fn names(files: &FileIndex) -> Vec<String> {
    files.iter().map(|(path, _)| path.to_string()).collect()
}

use EntryType::{Directory as D, Link as H, Regular as F, Symlink as L};

#[test]
fn layers_lie_on_each_other_as_runtimes_unpack_them() {
    let base: Entries<'_> = &[
        ("./", D, b""),
        ("./usr/lib/", D, b""),
        ("./lib", L, b"usr/lib"),
        ("./usr/lib/a", F, b"#!/one\n"),
        ("./etc/x", F, b"1"),
        ("./etc/deep/y", F, b"1"),
    ];
    let usual = ["/etc", "/etc/deep", "/etc/deep/y", "/etc/x", "/lib", "/usr", "/usr/lib", "/usr/lib/a"];
    let cases: [(Entries<'_>, &[&str], &[&str]); 8] = [
        (&[("lib/b", F, b"")], &[], &["/usr/lib/b"]),
        (&[("etc/.wh.deep", F, b"")], &["/etc/deep", "/etc/deep/y"], &[]),
        (&[("lib/.wh.a", F, b"")], &["/usr/lib/a"], &[]),
        (&[("etc/.wh..wh..opq", F, b""), ("etc/z", F, b"")], &["/etc/deep", "/etc/deep/y", "/etc/x"], &["/etc/z"]),
        (&[("etc/deep", F, b"")], &["/etc/deep/y"], &[]),
        (&[("etc/deep/", D, b"")], &[], &[]),
        // A directory takes the place of a link, and what it led to stays.
        (&[("lib/", D, b""), ("lib/c", F, b"")], &[], &["/lib/c"]),
        // Over links of its own, whatever comes first by name.
        (&[("a", L, b"zz"), ("zz/", D, b""), ("a/f", F, b"")], &[], &["/a", "/zz", "/zz/f"]),
    ];
    for (upper, gone, new) in cases {
        let mut expected: Vec<String> =
            usual.iter().filter(|name| !gone.contains(name)).chain(new).map(|name| (*name).to_owned()).collect();
        let found = names(&files([layer(base), layer(upper)]));
        expected.sort_by_key(|name| name.replace('/', "\0"));
        assert_eq!(found, expected, "{upper:?}");
    }
}

#[test]
fn hard_links_are_what_they_lead_to_in_this_layer_or_below() {
    let all = files([
        layer(&[("one", F, b"#!/x\n"), ("two", H, b"one")]),
        layer(&[("three", H, b"./one"), ("four", H, b"nothing")]),
    ]);
    let kind = |name: &str| all.get(&TreePath::new(name).unwrap()).unwrap().kind.clone();
    let script = Kind::File(Facts::Script("/x".into()));
    assert_eq!([kind("one"), kind("two"), kind("three")], [script.clone(), script.clone(), script]);
    assert_eq!(kind("four"), Kind::File(Facts::Unseen));
}

#[test]
fn facts_are_told_by_content_and_by_fixed_names() {
    let elf = Maker { soname: Some("liba.so"), ..Maker::default() }.bytes();
    let long = "d".repeat(120);
    let all = files([layer(&[
        ("elf", F, &elf),
        ("empty", F, b""),
        ("data", F, b"x"),
        ("script", F, b"#! /bin/sh -e\nx"),
        ("script.cut", F, &[&b"#!"[..], &[b'/'; 400]].concat()),
        ("Main.class", F, &[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 61, 0]),
        ("etc/passwd", F, b"root:x:0:0::/:\n"),
        ("usr/bin/release", F, b"#!/bin/sh\n"),
        ("broken.jar", F, b"PK\x03\x04 and no more"),
        ("cut", F, &elf[..30]),
        (&format!("{long}/{long}"), F, b"PAX or GNU names"),
    ])]);
    let facts = |name: &str| match &all.get(&TreePath::new(name).unwrap()).unwrap().kind {
        Kind::File(facts) => facts.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(facts("elf"), Facts::Elf(elf) if elf.soname.as_deref() == Some("liba.so")));
    for (name, expected) in [
        ("empty", Facts::Empty),
        ("data", Facts::Data),
        ("script", Facts::Script(" /bin/sh -e".into())),
        ("script.cut", Facts::Script("/".repeat(254) + "\n")),
        ("Main.class", Facts::Class(61)),
        ("etc/passwd", Facts::Text("root:x:0:0::/:\n".into())),
        ("usr/bin/release", Facts::Script("/bin/sh".into())),
        ("broken.jar", Facts::Unseen),
        ("cut", Facts::Unseen),
        (&format!("{long}/{long}"), Facts::Data),
    ] {
        assert_eq!(facts(name), expected, "{name}");
    }
}

#[test]
fn an_artifact_is_indexed_in_the_calls_that_pack_it() {
    let elf = Maker { needed: vec!["liba.so"], ..Maker::default() }.bytes();
    let (mut writer, mut gatherer) = (LayerWriter::new(Vec::new()), Gatherer::default());
    let path = |name: &[u8]| TreePath::new(name).unwrap();
    for (path, kind, content) in [
        (path(b"a"), tree::Kind::Directory, &b""[..]),
        (path(b"a/elf"), tree::Kind::File(elf.len() as u64), &elf),
        (path(b"a/h"), tree::Kind::HardLink(path(b"a/elf")), b""),
        (path(b"a/l\xff%"), tree::Kind::Symlink(b"\xfe%41".to_vec()), b""),
        (path(b"z"), tree::Kind::File(3), b"xyz"),
    ] {
        let entry = Entry { path, kind, mode: 0o4755, owner: Owner { uid: 7, gid: u32::MAX } };
        writer.entry(&entry).unwrap();
        gatherer.entry(&entry);
        // In pieces as small as they get.
        for chunk in content.chunks(1) {
            writer.content(chunk).unwrap();
            gatherer.content(chunk);
        }
    }
    let index = gatherer.finish();
    assert_eq!(index, index_layer(&writer.finish().unwrap().1[..]).unwrap());
    let kept = index.clone().into_bytes();
    assert_eq!(kept, index.clone().into_bytes());
    assert_eq!(LayerIndex::parse(&kept), Some(index));
    assert_eq!(LayerIndex::parse(&kept[1..]), None);
    assert_eq!(LayerIndex::parse(&kept[..kept.len() - 20]), None);
}

#[test]
fn nothing_is_refused_for_want_of_what_was_cut_off() {
    let mut layer = LayerIndex::default();
    let node = |kind| Node { kind, mode: 0o755, owner: Owner::default(), origin: Origin::default() };
    layer.put(TreePath::new("app").unwrap(), node(Kind::File(Facts::Script("/bin/sh".into()))));
    let refused = judge(&files([layer.clone()]), &["/app"], |_| {});
    layer.cut();
    let cut = judge(&files([layer]), &["/app"], |_| {});
    assert!(refused.is_refused() && !cut.is_refused());
    assert_eq!(cut.list[0].severity, Severity::Warning);
    assert_eq!(cut.list[0].problem, refused.list[0].problem);
}

#[test]
fn what_is_no_archive_is_an_error_and_odd_names_are_passed_over() {
    assert!(index_layer(&[b'x'; 600][..]).is_err());
    let whole = archive(&[("a", F, &[1; 600])]);
    assert!(index_layer(&whole[..700]).is_err());
    let mut odd = archive(&[("aaaaa", F, b""), ("b", F, b"")]);
    odd[..5].copy_from_slice(b"../xx");
    let sum: u32 = odd[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    odd[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(names(&files([index_layer(&odd[..]).unwrap()])), ["/b"]);
}

#[test]
fn the_cache_of_ldconfig_is_read_in_both_layouts() {
    let mut new = b"glibc-ld.so.cache1.1".to_vec();
    for number in [2_u32, 0, 0, 0, 0, 0, 0] {
        new.extend(number.to_le_bytes());
    }
    let at = 48 + 2 * 24;
    for (name, path, hwcap) in [(at, at + 5, 0_u64), (at, at + 5, 1 << 62)] {
        for number in [0x303_u32, name, path, 0] {
            new.extend(number.to_le_bytes());
        }
        new.extend(hwcap.to_le_bytes());
    }
    new.extend(b"liba\0/opt/liba\0");
    let entry = |is_special| loader_files::CacheEntry { name: "liba".into(), path: "/opt/liba".into(), is_special };
    let mut old = b"ld.so-1.7.0\0".to_vec();
    old.extend([1, 0, 0, 0]);
    old.extend([0; 12]);
    old.resize(32, 0);
    for bytes in [new.clone(), [old, new.clone()].concat()] {
        assert_eq!(loader_files::cache(&bytes), Some(vec![entry(false), entry(true)]));
    }
    for length in 0..new.len() {
        assert_eq!(loader_files::cache(&new[..length]), None, "{length}");
    }
    new[20..24].fill(0xff);
    assert_eq!(loader_files::cache(&new), None);
    let text = "# all\ninclude ld.so.conf.d/*.conf\n/opt/a  /opt/b # c\nhwcap 0 x\n/lib/c=libc6\n";
    assert_eq!(loader_files::configured(text).collect::<Vec<_>>(), ["/opt/a", "/opt/b", "/lib/c"]);
    assert_eq!(loader_files::musl_path("/a:/b\n\n/c\n").collect::<Vec<_>>(), ["/a", "/b", "/c"]);
}

#[test]
fn a_base_says_what_it_is_and_artifacts_do_not() {
    let release = b"ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
    let base = layer(&[
        ("usr/lib/os-release", EntryType::Regular, release),
        ("var/lib/dpkg/status.d/libc6", EntryType::Regular, b"Package: libc6\n"),
        ("var/lib/dpkg/status.d/libc6.md5sums", EntryType::Regular, b"0  x\n"),
        ("var/lib/dpkg/status.d/base", EntryType::Regular, b"Package: base-files\n"),
    ]);
    let of = |origin| Distribution::of(&FileIndex::default().with(base.clone(), origin));
    let found = Distribution { name: Some("Debian GNU/Linux 12 (bookworm)".into()), packages: Some(2) };
    assert_eq!((of(Origin::Base), of(Origin::Artifact)), (found, Distribution::default()));
}
