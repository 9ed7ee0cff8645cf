//! Tests of [`super`] on real directories.

use std::os::unix::{
    fs::{PermissionsExt, symlink},
    net::UnixListener,
};

use super::*;
use crate::domain::{
    recipe::{Destination, Owner, Parents},
    task::Limits,
    tree::{Entry, Kind},
};

const USER: Owner = Owner { uid: 5, gid: 6 };

fn output(items: &[CopyItem]) -> Output {
    Output::copies(items.to_vec(), Parents::None)
}

fn item(source: &str, destination: &str) -> CopyItem {
    let path = destination.parse().unwrap();
    let destination = Destination { path, directory: destination.ends_with('/') };
    CopyItem {
        source: source.into(),
        destination,
        mode: None,
        owner: Some(USER),
        exclude: Vec::new(),
        parents: None,
        docker: None,
    }
}

struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, u32)]) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (name, mode) in files {
            root.file(name, *mode);
        }
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, mode: u32) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), name).unwrap();
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }

    fn collect(&self, items: &[CopyItem]) -> Result<FileTree<Stored>, CollectError> {
        collect(self.0.path(), &output(items), Scope::Container, &Ignore::default(), None)
    }

    fn names(&self, items: &[CopyItem]) -> Vec<String> {
        self.collect(items).unwrap().entries().map(|(entry, _)| entry.path.to_string()).collect()
    }
}

#[test]
fn files_and_directories_land_where_docker_puts_them() {
    let root = Root::new(&[("w/app", 0o755), ("w/lib/a", 0o644), ("w/lib/sub/b", 0o644)]);
    for (source, destination, expected) in [
        ("/w/app", "/bin/tool", vec!["/bin/tool"]),
        ("/w/app", "/opt/", vec!["/opt/app"]),
        ("/w/lib", "/opt/", vec!["/opt", "/opt/a", "/opt/sub", "/opt/sub/b"]),
        ("/w/lib/", "/opt/x", vec!["/opt/x", "/opt/x/a", "/opt/x/sub", "/opt/x/sub/b"]),
        ("w/lib", "/", vec!["/a", "/sub", "/sub/b"]),
        (".", "/s/", vec!["/s", "/s/w", "/s/w/app", "/s/w/lib", "/s/w/lib/a", "/s/w/lib/sub", "/s/w/lib/sub/b"]),
        ("/w/*", "/o/", vec!["/o", "/o/a", "/o/app", "/o/sub", "/o/sub/b"]),
        ("/w/l?b/[a-z]", "/o/", vec!["/o/a"]),
        ("/w/**/b", "/o/", vec!["/o/b"]),
    ] {
        assert_eq!(root.names(&[item(source, destination)]), expected, "{source} {destination}");
    }
    assert_eq!(root.names(&[item("/w/lib", "/o/lib"), item("/w/app", "/o/lib")]).last().unwrap(), "/o/lib/sub/b");
    assert!(root.names(&[item("/w/lib", "/o/lib"), item("/w/app", "/o/lib")]).contains(&"/o/lib/app".to_owned()));
}

#[test]
fn several_matches_need_a_directory() {
    let root = Root::new(&[("a.jar", 0o644), ("b.jar", 0o644)]);
    assert!(matches!(root.collect(&[item("*.jar", "/app.jar")]), Err(CollectError::SeveralMatches(_))));
    assert_eq!(root.names(&[item("a*.jar", "/app.jar")]), ["/app.jar"]);
}

#[test]
fn a_missing_path_is_named_with_what_is_near() {
    let root = Root::new(&[("target/app-1.jar", 0o644), ("target/classes/x", 0o644)]);
    for source in ["/target/app.jar", "/target/deep/er/app.jar", "/target/*.war"] {
        match root.collect(&[item(source, "/app.jar")]) {
            Err(CollectError::Missing { source_path, nearby }) => {
                assert_eq!((source_path.as_str(), nearby), (source, vec!["app-1.jar".into(), "classes".into()]));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn links_do_not_lead_out_of_the_root() {
    let root = Root::new(&[("etc/passwd", 0o644)]);
    symlink("/etc/passwd", root.path("named")).unwrap();
    symlink("/", root.path("top")).unwrap();
    symlink("../../../../etc/shadow", root.path("etc/up")).unwrap();
    let tree = root.collect(&[item("named", "/named"), item("top/etc/passwd", "/p")]).unwrap();
    let sources: Vec<_> = tree.entries().filter_map(|(_, source)| source.cloned()).collect();
    let sources: Vec<&Path> = sources.iter().map(|source| &**source).collect();
    assert_eq!(sources, [root.path("etc/passwd"), root.path("etc/passwd")]);
    assert!(matches!(root.collect(&[item("etc/up", "/x")]), Err(CollectError::Missing { .. })));
    assert!(matches!(root.collect(&[item("../x", "/x")]), Err(CollectError::Source { .. })));
    let tree = root.collect(&[item("etc", "/e")]).unwrap();
    let kinds: Vec<_> = tree.entries().map(|(entry, _)| entry.kind).collect();
    assert_eq!(kinds, [Kind::Directory, Kind::File(10), Kind::Symlink(b"../../../../etc/shadow".to_vec())]);
}

#[test]
fn modes_are_the_files_own_but_never_privileged() {
    let root = Root::new(&[("d/su", 0o4755), ("d/plain", 0o640)]);
    fs::set_permissions(root.path("d"), PermissionsExt::from_mode(0o2775)).unwrap();
    let modes = |items: &[CopyItem], scope| -> Vec<u32> {
        let tree = collect(root.0.path(), &output(items), scope, &Ignore::default(), None).unwrap();
        tree.entries().map(|(entry, _)| entry.mode).collect()
    };
    assert_eq!(modes(&[item("d", "/d")], Scope::Container), [0o775, 0o640, 0o755]);
    assert_eq!(modes(&[item("d", "/d")], Scope::Source), [0o755, 0o644, 0o755]);
    let declared = CopyItem { mode: Some(crate::domain::mode::Mode::Bits(0o4755)), ..item("d/su", "/su") };
    assert_eq!(modes(&[declared], Scope::Container), [0o4755]);
    // A copy that keeps owners takes files as they are.
    let kept = CopyItem { owner: None, ..item("d/su", "/su") };
    assert_eq!(modes(&[kept], Scope::Container), [0o4755]);
    let error = root.collect(&[item("d/su", "/su")]).unwrap_err().to_string();
    assert!(
        error.contains("d/su") && error.contains(r#""4755" to keep"#) && error.contains(r#""0755" to drop"#),
        "{error}"
    );
}

#[test]
fn a_copy_keeps_owners_when_it_names_none() {
    let root = Root::new(&[("d/f", 0o644)]);
    let own = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let kept = CopyItem { owner: None, ..item("d/f", "/f") };
    let owners = |items: &[CopyItem], scope| -> Vec<Owner> {
        let tree = collect(root.0.path(), &output(items), scope, &Ignore::default(), None).unwrap();
        tree.entries().map(|(entry, _)| entry.owner).collect()
    };
    assert_eq!(owners(std::slice::from_ref(&kept), Scope::Container), [own]);
    assert_eq!(owners(&[kept], Scope::Source), [Owner::default()]);
    assert_eq!(owners(&[item("d/f", "/f")], Scope::Container), [USER]);
}

#[test]
fn excluded_and_ignored_files_are_not_seen() {
    let root = Root::new(&[("d/a.md", 0o644), ("d/b", 0o644), ("d/e/c.md", 0o644), ("d/e/keep.md", 0o644)]);
    let names = |items: &[CopyItem], ignore: &str| -> Vec<String> {
        let ignore = Ignore::parse(ignore).unwrap();
        let tree = collect(root.0.path(), &output(items), Scope::Source, &ignore, None).unwrap();
        tree.entries().map(|(entry, _)| entry.path.to_string()).collect()
    };
    let excluding = CopyItem { exclude: vec!["*.md".into(), "e".into()], ..item("d", "/d") };
    assert_eq!(names(&[excluding], ""), ["/d", "/d/b"]);
    assert_eq!(names(&[item("d", "/d")], "**/*.md\n!d/e/keep.md"), ["/d", "/d/b", "/d/e", "/d/e/keep.md"]);
    assert_eq!(names(&[item("d/*", "/d/")], "d/e\nd/a.md"), ["/d/b"]);
    assert_eq!(names(&[item("", "/s/")], "**"), ["/s"], "a whole context may be empty");
    // With and without a pattern that takes something back; a directory is there for what can be seen in it.
    for ignore in ["d/b\nd/a.md", "d/*\n!d/e/keep.md"] {
        let parsed = Ignore::parse(ignore).unwrap();
        for source in ["d/b", "d/a.md", "d/[ab]*"] {
            let hidden = collect(root.0.path(), &output(&[item(source, "/x/")]), Scope::Source, &parsed, None);
            assert!(matches!(hidden, Err(CollectError::Ignored { .. })), "{ignore} {source}: {hidden:?}");
        }
        assert_eq!(names(&[item("d/e", "/e")], ignore).last().unwrap(), "/e/keep.md");
    }
    let parsed = Ignore::parse("d/e\nd/b").unwrap();
    match collect(root.0.path(), &output(&[item("d/aa.md", "/x")]), Scope::Source, &parsed, None) {
        Err(CollectError::Missing { nearby, .. }) => assert_eq!(nearby, ["a.md"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_many_names_the_most_alike_come_first() {
    let many: Vec<String> = (0..20).map(|number| format!("file{number:02}")).chain(["src".to_owned()]).collect();
    let root = Root::new(&many.iter().map(|name| (name.as_str(), 0o644)).collect::<Vec<_>>());
    match root.collect(&[item("srcs", "/x")]) {
        Err(CollectError::Missing { nearby, .. }) => {
            assert_eq!((nearby[0].as_str(), nearby.last().unwrap().as_str()), ("src", "and 13 more"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn copies_can_keep_the_directories_of_their_sources() {
    let root = Root::new(&[("a/b/x.c", 0o644), ("a/c/y.c", 0o644)]);
    let kept = |source: &str, dropped| CopyItem { parents: Some(dropped), ..item(source, "/d/") };
    assert_eq!(root.names(&[kept("a/*/*.c", 0)]), ["/d/a/b/x.c", "/d/a/c/y.c"]);
    assert_eq!(root.names(&[kept("a/b/x.c", 1)]), ["/d/b/x.c"]);
    assert_eq!(root.names(&[kept("a/c", 0)]), ["/d/a/c", "/d/a/c/y.c"]);
}

#[test]
fn sockets_are_left_out_and_fifos_refused() {
    let root = Root::new(&[("d/file", 0o644)]);
    let _listener = UnixListener::bind(root.path("d/socket")).unwrap();
    assert_eq!(root.names(&[item("d", "/d")]), ["/d", "/d/file"]);
    rustix::fs::mknodat(rustix::fs::CWD, root.path("d/fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(matches!(root.collect(&[item("d", "/d")]), Err(CollectError::Kind(path)) if path == root.path("d/fifo")));
}

#[test]
fn hard_links_stay_links_and_names_stay_bytes() {
    let root = Root::new(&[("d/b", 0o644)]);
    fs::hard_link(root.path("d/b"), root.path("d/a")).unwrap();
    fs::write(root.path("d").join(OsStr::from_bytes(b"c\xff")), "").unwrap();
    let tree = root.collect(&[item("d", "/d")]).unwrap();
    let entries: Vec<_> = tree.entries().map(|(entry, _)| (entry.path.as_bytes().to_vec(), entry.kind)).collect();
    assert_eq!(entries[1], (b"d/a".to_vec(), Kind::File(3)));
    assert_eq!(entries[2], (b"d/b".to_vec(), Kind::HardLink(TreePath::new("d/a").unwrap())));
    assert_eq!(entries[3].0, b"d/c\xff");
    fs::write(root.path("d/.wh.x"), "").unwrap();
    assert!(matches!(root.collect(&[item("d", "/d")]), Err(CollectError::Name { .. })));
}

#[test]
fn the_kernels_directories_are_left_out_of_a_whole_container() {
    let root =
        Root::new(&[("proc/1", 0o644), ("run/minimalimage/minimalimage", 0o755), ("run/x", 0o644), ("a", 0o644)]);
    assert_eq!(root.names(&[item("/", "/all/")]), ["/all", "/all/a", "/all/run", "/all/run/x"]);
}

#[test]
fn the_same_tree_gives_the_same_digest_whatever_order_it_was_made_in() {
    let files = [("d/z", 0o644), ("d/a/b", 0o755), ("d/a.b", 0o600), ("d/y", 0o644)];
    let digest = |root: &Root| {
        fs::hard_link(root.path("d/z"), root.path("d/0")).unwrap();
        for name in ["d", "d/a"] {
            fs::set_permissions(root.path(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        write(&root.collect(&[item("d", "/d")]).unwrap(), io::sink()).unwrap()
    };
    let forwards = digest(&Root::new(&files));
    let backwards: Vec<_> = files.into_iter().rev().collect();
    assert_eq!(digest(&Root::new(&backwards)), forwards);
}

#[test]
fn a_source_has_no_git_directory_at_any_depth() {
    let root = Root::new(&[(".git/config", 0o644), ("a/.Git", 0o644), ("a/.gitignore", 0o644), ("b", 0o644)]);
    let collect =
        |source: &str, scope| collect(root.0.path(), &output(&[item(source, "/")]), scope, &Ignore::default(), None);
    let names =
        |scope| -> Vec<_> { collect("", scope).unwrap().entries().map(|(entry, _)| entry.path.to_string()).collect() };
    assert_eq!(names(Scope::Source), ["/a", "/a/.gitignore", "/b"]);
    assert_eq!(names(Scope::Container).len(), 6);
    assert!(matches!(collect(".git/config", Scope::Source), Err(CollectError::Missing { .. })));
    let globbed = collect("*", Scope::Source).unwrap();
    assert_eq!(globbed.entries().count(), 2);
}

/// Collects ADD of the archive `bytes` to `/to`, with room for so many bytes and entries.
fn add(bytes: &[u8], (source_bytes, source_entries): (u64, u64)) -> Result<Vec<String>, CollectError> {
    let root = Root::new(&[]);
    fs::write(root.path("a"), bytes).unwrap();
    let work = tempfile::tempdir().unwrap();
    let limits = Limits { source_bytes, source_entries, ..Limits::default() };
    let room = Room { directory: work.path().to_owned(), limits };
    let item = CopyItem { owner: None, docker: Some(Docker::Add), ..item("a", "/to") };
    let output = Output { parents: Parents::All, ..output(&[item]) };
    let tree = collect(root.0.path(), &output, Scope::Source, &Ignore::default(), Some(&room));
    let names = tree.map(|tree| {
        assert!(write(&tree, io::sink()).is_ok());
        let line = |entry: Entry| {
            let link = if let Kind::HardLink(first) = &entry.kind { format!(" = {first}") } else { String::new() };
            format!("{} {:o} {}{link}", entry.path, entry.mode, entry.owner.uid)
        };
        tree.entries().map(|(entry, _)| line(entry)).collect()
    });
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "something is left behind");
    names
}

fn archive(entries: &[(tar::EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, path, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        // Written as it is: paths that a library would refuse are what this is about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4711);
        header.set_uid(9);
        header.set_gid(9);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    use tar::EntryType;
    let (file, link) = (EntryType::Regular, EntryType::Symlink);
    let most = (10, 4);
    let good = archive(&[(file, "f", "", b"1234567890"), (EntryType::Link, "hard", "f", b"")]);
    assert_eq!(add(&good, most).unwrap(), ["/to 755 0", "/to/f 4711 9", "/to/hard 4711 9 = /to/f"]);
    let long = vec![b'x'; 70 << 10];
    for (entries, words) in [
        (vec![(file, "../f", "", &b""[..])], "`..`"),
        (vec![(file, "a/../../f", "", b"")], "`..`"),
        (vec![(link, "l", "/etc", b""), (file, "l/passwd", "", b"x")], "/to/l is copied both as a directory"),
        (vec![(EntryType::Link, "hard", "/etc/passwd", b"")], "hard link to no file"),
        (vec![(EntryType::Link, "hard", "../../etc/passwd", b"")], "`..`"),
        (vec![(EntryType::Char, "null", "", b"")], "is a device"),
        (vec![(EntryType::Fifo, "pipe", "", b"")], "is a device"),
        (vec![(file, ".wh.f", "", b"")], ".wh."),
        (vec![(link, "l", "", b"")], "without a possible target"),
        (vec![(file, "f", "", b"12345678901")], "more than 10 bytes"),
        (vec![(file, "f", "", b"123456"), (file, "f", "", b"123456")], "more than 10 bytes"),
        (vec![(link, "l", "x", b""); 5], "more than 4 files"),
        (vec![(link, "a/b/c/d/l", "x", b"")], "more than 4 files"),
        (
            vec![(EntryType::XHeader, "x", "", b"18 uid=4294967296\n"), (file, "f", "", b"")],
            "an owner that is no number",
        ),
        (vec![(EntryType::XHeader, "x", "", &long), (file, "f", "", b"")], "larger than 64 KiB"),
        (vec![(EntryType::XHeader, "x", "", b"x"), (file, "f", "", b"")], "malformed"),
    ] {
        let error = add(&archive(&entries), most).unwrap_err().to_string();
        assert!(error.starts_with("unable to unpack a: ") && error.contains(words), "{words}: {error}");
    }
    // What is no archive by its first header is a file, what breaks later is a broken one.
    assert_eq!(add(&good[..100], most).unwrap(), ["/to 644 0"]);
    assert!(add(&good[..900], most).is_err());
}

#[test]
fn what_wants_too_much_memory_is_refused() {
    // The xz file format, 2.1.1 and 3.1: a dictionary of 4 GiB, whose sums are right.
    let mut xz = b"\xfd7zXZ\0\0\0\xff\x12\xd9\x41".to_vec();
    let block = [2, 0, 0x21, 1, 40, 0, 0, 0];
    let mut sum = flate2::Crc::new();
    sum.update(&block);
    xz.extend(block);
    xz.extend(sum.sum().to_le_bytes());
    // RFC 8878, 3.1.1.1.2: a window of 1 GiB.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, 1, 0, 0];
    for archive in [&xz[..], &zstd] {
        let error = add(archive, (1 << 20, 10)).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }
}

#[test]
fn a_small_file_that_unpacks_to_much_is_stopped() {
    let zeros = vec![0; 50 << 20];
    let bomb = archive(&[(tar::EntryType::Regular, "f", "", &zeros)]);
    let packed = zstd::encode_all(&bomb[..], 3).unwrap();
    assert!(packed.len() < 10_000);
    let error = add(&packed, (1 << 20, 10)).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}
