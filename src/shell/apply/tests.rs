//! Tests of [`super`] on real directories, as whoever runs them.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
};

use tar::{Builder, Header};

use super::*;

/// An entry: path, kind, link target, content.
type Item<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, link, content) in items {
        let mut header = Header::new_ustar();
        // Not by the methods, which refuse what some of these tests are about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        // Our own, so that the tests say the same whether root runs them or not.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file<'a>(path: &'a str, content: &'a [u8]) -> Item<'a> {
    (path, EntryType::Regular, "", content)
}

fn directory(path: &str) -> Item<'_> {
    (path, EntryType::Directory, "", b"")
}

fn link<'a>(path: &'a str, target: &'a str) -> Item<'a> {
    (path, EntryType::Symlink, target, b"")
}

#[test]
fn files_keep_modes_times_and_names() {
    let root = tempfile::tempdir().unwrap();
    let hard = ("./a/second", EntryType::Link, "a/first", &b""[..]);
    let items = [file("./a/first", b"one"), hard, link("/a/link", "first"), ("a/pipe", EntryType::Fifo, "", b"")];
    apply(root.path(), &archive(&items)[..]).unwrap();
    let at = |name: &str| root.path().join("a").join(name);
    let metadata = fs::metadata(at("first")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink()), (0o640, 1_000_000_000, 2));
    assert_eq!(fs::read(at("second")).unwrap(), b"one");
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("first"));
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::metadata(at("pipe")).unwrap().file_type()));
}

#[test]
fn later_layers_replace_and_delete_what_is_below() {
    let root = tempfile::tempdir().unwrap();
    apply(
        root.path(),
        &archive(&[file("d/x/deep", b"1"), file("d/y", b"1"), file("e/old", b"1"), file("f", b"1")])[..],
    )
    .unwrap();
    let second = [
        file("d/.wh.x", b""),
        file("d/.wh.never", b""),
        file("nowhere/.wh.x", b""),
        file("e/new", b"2"),
        file("e/.wh..wh..opq", b""),
        file(".wh..wh.plnk", b""),
        directory("f"),
        file("f/in", b"2"),
        file("d/.wh.z", b""),
        file("d/z", b"2"),
        file("d/.wh.z", b""),
    ];
    apply(root.path(), &archive(&second)[..]).unwrap();
    let names = |path: &str| {
        let mut names: Vec<_> = fs::read_dir(root.path().join(path))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("d"), ["y", "z"]);
    assert_eq!(names("e"), ["new"]);
    assert_eq!(names("f"), ["in"]);
    assert_eq!(names(""), ["d", "e", "f"]);
}

#[test]
fn links_that_are_there_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    let away = outside.path().to_str().unwrap();
    let up = format!("../../../../../../../..{away}");
    let hard = ("h", EntryType::Link, "away/victim", &b""[..]);
    for (number, items) in [
        vec![link("away", away), file("away/victim", b"bad")],
        vec![link("away", &up), file("away/victim", b"bad")],
        vec![link("away", away), file("away/.wh.victim", b"")],
        vec![link("away", away), file("away/.wh..wh..opq", b"")],
        vec![link("away", away), link("away/victim", "/etc/passwd")],
        vec![link("victim", &format!("{away}/victim")), file("victim", b"bad")],
        vec![link("away", away), hard, file("h", b"bad")],
        vec![file("../victim", b"bad")],
        vec![file("a/../../victim", b"bad")],
    ]
    .into_iter()
    .enumerate()
    {
        let root = tempfile::tempdir_in(outside.path()).unwrap();
        let _may_be_refused = apply(root.path(), &archive(&items)[..]);
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe", "{number}");
        drop(root);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{number}");
    }
}

#[test]
fn a_link_of_a_lower_layer_is_followed_within_the_root() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/lib")).unwrap();
    symlink("/usr/lib", root.path().join("lib")).unwrap();
    apply(root.path(), &archive(&[file("lib/new/file", b"1")])[..]).unwrap();
    assert_eq!(fs::read(root.path().join("usr/lib/new/file")).unwrap(), b"1");
    assert!(root.path().join("lib").is_symlink());
}

#[test]
fn devices_are_left_out_and_broken_archives_refused() {
    let root = tempfile::tempdir().unwrap();
    apply(root.path(), &archive(&[("null", EntryType::Char, "", b""), ("disk", EntryType::Block, "", b"")])[..])
        .unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let whole = archive(&[file("a", &[1; 2000])]);
    assert!(apply(root.path(), &whole[..1500]).is_err());
    assert!(apply(root.path(), &[7; 1024][..]).is_err());
}
