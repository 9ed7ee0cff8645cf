//! Changes of a file system, found and written down, make the same file system of what was there before.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::shell::apply::apply;

/// Paths with type, mode, size or target, and content.
fn tree(root: &Path) -> Vec<String> {
    let scan = Scan::of(root).unwrap();
    let describe = |(path, ..): &(PathBuf, u64, bool)| {
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let content = if metadata.is_file() {
            fs::read_to_string(&full).unwrap()
        } else if metadata.is_symlink() {
            fs::read_link(&full).unwrap().display().to_string()
        } else {
            String::new()
        };
        let time = if metadata.is_file() { (metadata.mtime(), metadata.mtime_nsec()) } else { (0, 0) };
        let links = if metadata.is_file() { metadata.nlink() } else { 0 };
        format!("{} {:o} {content} {time:?} {links}", path.display(), metadata.mode())
    };
    scan.entries.iter().map(describe).collect()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A root with a bit of everything.
fn before() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in ["bin/tool", "etc/passwd", "lib/a/one", "lib/a/two", "lib/b", "share/doc/x", "share/doc/y/z", "old"] {
        write(root.path(), path, path);
    }
    symlink("bin/tool", root.path().join("link")).unwrap();
    fs::hard_link(root.path().join("etc/passwd"), root.path().join("etc/passwd-")).unwrap();
    root
}

#[test]
fn a_layer_of_the_changes_makes_the_same_tree() {
    let root = before();
    let original = copy(root.path());
    let first = Scan::of(root.path()).unwrap();
    let at = |path: &str| root.path().join(path);

    write(root.path(), "etc/passwd", "changed through both names");
    write(root.path(), "new/deep/file", "new");
    fs::hard_link(at("new/deep/file"), at("new/also")).unwrap();
    fs::set_permissions(at("bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("share"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::remove_dir_all(at("share/doc")).unwrap();
    fs::remove_file(at("lib/b")).unwrap();
    // A directory becomes a file, a file a directory, a link another one.
    fs::remove_dir_all(at("lib/a")).unwrap();
    write(root.path(), "lib/a", "a file now");
    fs::remove_file(at("old")).unwrap();
    write(root.path(), "old/inside", "a directory now");
    fs::remove_file(at("link")).unwrap();
    symlink("elsewhere", at("link")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    let note = |path: &str| {
        let (name, flags) = ("user.note", rustix::fs::XattrFlags::empty());
        rustix::fs::setxattr(at(path), name, b"of a directory", flags).unwrap();
    };
    note("share");

    let second = Scan::of(root.path()).unwrap();
    let changes = second.since(&first, root.path()).unwrap();
    assert_eq!(changes.removed, ["lib/b", "share/doc"].map(PathBuf::from));
    let mut archive = Vec::new();
    changes.write(root.path(), Times::Kept, &mut archive).unwrap();
    apply(original.path(), &archive[..]).unwrap();
    assert_eq!(tree(original.path()), tree(root.path()));
    let noted = attributes(&original.path().join("share")).unwrap();
    assert_eq!(noted, [("user.note".to_owned(), b"of a directory".to_vec())]);
}

#[test]
fn nothing_changed_is_nothing_written() {
    let root = before();
    let scans = [Scan::of(root.path()).unwrap(), Scan::of(root.path()).unwrap()];
    fs::read(root.path().join("bin/tool")).unwrap();
    assert_eq!(scans[1].since(&scans[0], root.path()).unwrap(), Changes::default());
}

#[test]
fn a_file_of_the_same_size_and_time_is_seen_to_be_another() {
    let root = before();
    let first = Scan::of(root.path()).unwrap();
    let path = root.path().join("lib/b");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "LIB/B").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let changes = Scan::of(root.path()).unwrap().since(&first, root.path()).unwrap();
    assert_eq!((changes.changed, changes.bytes), (vec![PathBuf::from("lib/b")], 5));
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let root = before();
    let first = Scan::of(root.path()).unwrap();
    write(root.path(), "etc/.wh.passwd", "");
    let refused = Scan::of(root.path()).unwrap().since(&first, root.path()).unwrap_err();
    assert!(refused.to_string().contains("/etc/.wh.passwd"), "{refused}");
}

#[test]
fn mounts_have_their_blanks_written_in_octal() {
    assert_eq!(unescaped(br"/a\040b\134c"), PathBuf::from(r"/a b\c"));
    assert_eq!(unescaped(br"/plain\"), PathBuf::from(r"/plain\"));
    let mounts = mount_points(Path::new("/")).unwrap();
    assert!(mounts.contains(Path::new("/proc")), "{mounts:?}");
}
