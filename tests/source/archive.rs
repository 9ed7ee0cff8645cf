//! Archives of all kinds over HTTP, well-meaning and hostile.

use std::io::{Cursor, Write as _};

use flate2::{Compression, write::GzEncoder};
use minimalimage::{
    domain::{
        task::{FailureReason, Origin},
        value::Digest,
    },
    shell::source::{Fetched, SourceError},
};
use tar::{EntryType, Header};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    Fixture, expected,
    server::{Behaviour, Server},
};

/// One tar entry, with names that the crate's writer would refuse.
fn entry(kind: EntryType, name: &str, mode: u32, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, 0o644, "", content.as_bytes())
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn fetch_as(fixture: &Fixture, archive: &[u8], digest: Digest, strip: u32) -> Result<Fetched, SourceError> {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("archive"), archive).unwrap();
    let server = Server::start(Behaviour { root: root.path().into(), ..Behaviour::default() }).await;
    let url = format!("{}/archive?signature=secret", server.url);
    fixture.fetch(Origin::Http { url, digest, strip_components: strip, credential_host: None }).await
}

async fn fetch(fixture: &Fixture, archive: &[u8]) -> Result<Fetched, SourceError> {
    fetch_as(fixture, archive, Digest::of(archive), 0).await
}

fn usual() -> Vec<u8> {
    tar(&[
        entry(
            EntryType::XGlobalHeader,
            "pax_global_header",
            0o644,
            "",
            b"52 comment=0123456789abcdef0123456789abcdef01234567\n",
        ),
        entry(EntryType::Directory, "repo-1/", 0o700, "", b""),
        entry(EntryType::Directory, "repo-1/empty/", 0o755, "", b""),
        entry(EntryType::Regular, "repo-1/run", 0o4755, "", b"x"),
        file("repo-1/a/b", "content"),
        entry(EntryType::Link, "repo-1/hard", 0o644, "repo-1/a/b", b""),
        entry(EntryType::Symlink, "repo-1/soft", 0o777, "/etc/passwd", b""),
    ])
}

fn usual_tree() -> std::collections::BTreeMap<String, String> {
    expected(&[
        ("a", "dir"),
        ("a/b", "644 content"),
        ("empty", "dir"),
        ("hard", "644 content"),
        ("run", "755 x"),
        ("soft", "-> /etc/passwd"),
    ])
}

#[tokio::test]
async fn tar_in_all_wrappings_gives_the_same_tree() {
    let members = [gzip(&usual()[..700]), gzip(&usual()[700..])].concat();
    for archive in [usual(), gzip(&usual()), members, zstd::encode_all(&usual()[..], 1).unwrap()] {
        let fixture = Fixture::new();
        fetch_as(&fixture, &archive, Digest::of(&archive), 1).await.unwrap();
        assert_eq!(fixture.tree(), usual_tree());
    }
}

#[tokio::test]
async fn zip_keeps_exec_bits_and_links() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    writer.add_directory("repo-1/empty/", options).unwrap();
    for (name, mode, content) in
        [("repo-1/run", 0o755, "x"), ("repo-1/a/b", 0o644, "content"), ("repo-1/hard", 0o644, "content")]
    {
        writer.start_file(name, options.unix_permissions(mode)).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.add_symlink("repo-1/soft", "/etc/passwd", options).unwrap();
    let archive = writer.finish().unwrap().into_inner();
    let fixture = Fixture::new();
    fetch_as(&fixture, &archive, Digest::of(&archive), 1).await.unwrap();
    assert_eq!(fixture.tree(), usual_tree());
}

#[tokio::test]
async fn long_names_are_read_from_gnu_and_pax_headers() {
    let name = format!("{}/f", "d".repeat(200));
    let record = format!("{} path={name}\n", name.len() + 10);
    let link = "t".repeat(150);
    let archive = tar(&[
        entry(EntryType::XHeader, "x", 0o644, "", record.as_bytes()),
        file("short", "pax"),
        entry(EntryType::GNULongName, "././@LongLink", 0o644, "", format!("g{name}\0").as_bytes()),
        entry(EntryType::GNULongLink, "././@LongLink", 0o644, "", format!("{link}\0").as_bytes()),
        entry(EntryType::Symlink, "short", 0o777, "t", b""),
    ]);
    let fixture = Fixture::new();
    fetch(&fixture, &archive).await.unwrap();
    let tree = fixture.tree();
    assert_eq!(tree[&name], "644 pax");
    assert_eq!(tree[&format!("g{name}")], format!("-> {link}"));
}

#[tokio::test]
async fn only_the_directory_is_unpacked() {
    let fixture = Fixture::new().with_directory("a");
    fetch_as(&fixture, &usual(), Digest::of(&usual()), 1).await.unwrap();
    assert_eq!(fixture.tree(), expected(&[("b", "644 content")]));
    let error = fetch_as(&Fixture::new().with_directory("aa"), &usual(), Digest::of(&usual()), 1).await.unwrap_err();
    assert!(error.to_string().contains("`aa` in the source; there are: a"), "{error}");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_before_anything_is_unpacked() {
    let fixture = Fixture::new();
    let error = fetch_as(&fixture, &usual(), Digest::of(b""), 0).await.unwrap_err();
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
    assert!(error.to_string().contains(&Digest::of(&usual()).to_string()), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(fixture.tree().is_empty());
}

#[tokio::test]
async fn hostile_archives_are_refused_and_touch_nothing_outside() {
    let escape = TempDir::new().unwrap();
    let outside = escape.path().to_str().unwrap();
    let zipped = |name: &str| {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let pax = |record: &[u8]| tar(&[entry(EntryType::XHeader, "x", 0o644, "", record), file("a", "x")]);
    for (name, archive) in [
        ("upwards", tar(&[file("../evil", "x")])),
        ("upwards inside", tar(&[file("a/../../evil", "x")])),
        ("absolute", tar(&[file(&format!("{outside}/evil"), "x")])),
        ("through a link", tar(&[entry(EntryType::Symlink, "l", 0o777, outside, b""), file("l/evil", "x")])),
        (
            "directory through a link",
            tar(&[
                entry(EntryType::Symlink, "l", 0o777, outside, b""),
                entry(EntryType::Directory, "l/evil/", 0o755, "", b""),
            ]),
        ),
        ("hard link outside", tar(&[entry(EntryType::Link, "h", 0o644, "/etc/passwd", b"")])),
        ("hard link upwards", tar(&[entry(EntryType::Link, "h", 0o644, "../../etc/passwd", b"")])),
        (
            "hard link through a link",
            tar(&[
                entry(EntryType::Symlink, "l", 0o777, "/etc", b""),
                entry(EntryType::Link, "h", 0o644, "l/passwd", b""),
            ]),
        ),
        ("hard link to nothing", tar(&[entry(EntryType::Link, "h", 0o644, "none", b"")])),
        ("device", tar(&[entry(EntryType::Char, "d", 0o644, "", b"")])),
        ("pipe", tar(&[entry(EntryType::Fifo, "p", 0o644, "", b"")])),
        ("pax size", pax(b"9 size=3\n")),
        ("pax sparse", pax(b"22 GNU.sparse.major=1\n")),
        ("pax upwards", pax(b"13 path=../x\n")),
        ("pax malformed", pax(b"99 path=../x\n")),
        (
            "long name of a megabyte",
            tar(&[entry(EntryType::GNULongName, "l", 0o644, "", &vec![b'a'; 1 << 19]), file("a", "")]),
        ),
        ("root is a file", tar(&[file("./", ""), file(".", "x")])),
        ("cut short", usual()[..1200].to_vec()),
        ("gzip of nothing", gzip(b"not a tar archive")),
        ("broken gzip", gzip(&usual())[..80].to_vec()),
        ("page", b"<html>".to_vec()),
        ("zip upwards", zipped("../evil")),
        ("zip absolute", zipped("/evil")),
        ("broken zip", zipped("a")[..40].to_vec()),
    ] {
        let error = fetch(&Fixture::new(), &archive).await.expect_err(name);
        assert_eq!(error.reason(), FailureReason::SourceInvalid, "{name}: {error}");
        assert_eq!(std::fs::read_dir(escape.path()).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test]
async fn bombs_are_bounded() {
    let zeros = vec![0; 3 << 20];
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("zeros", SimpleFileOptions::default()).unwrap();
    writer.write_all(&zeros).unwrap();
    let zip = writer.finish().unwrap().into_inner();
    let large = tar(&[entry(EntryType::Regular, "zeros", 0o644, "", &zeros)]);
    let many = tar(&(0..300).map(|i| file(&format!("f{i}"), "")).collect::<Vec<_>>());
    let skipped = tar(&[entry(EntryType::Regular, "other/zeros", 0o644, "", &zeros), file("wanted/a", "")]);
    let links: Vec<Vec<u8>> = (0..50).map(|i| entry(EntryType::Link, &format!("h{i}"), 0o644, "f", b"")).collect();
    let links = tar(&[vec![entry(EntryType::Regular, "f", 0o644, "", &zeros[..60_000])], links].concat());
    for (name, archive, directory) in [
        ("packed", gzip(&large), ""),
        ("zip", zip, ""),
        ("many", gzip(&many), ""),
        ("skipped", gzip(&skipped), "wanted"),
        ("links", gzip(&links), ""),
        ("download", large, ""),
    ] {
        let error = fetch(&Fixture::new().with_directory(directory), &archive).await.expect_err(name);
        assert!(matches!(error, SourceError::TooLarge { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_token_is_not_sent_along_to_another_host() {
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("archive"), usual()).unwrap();
    let files = Server::start(Behaviour { root: root.path().into(), ..Behaviour::default() }).await;
    let redirect = Some(("/download".into(), format!("{}/archive", files.url)));
    let server = Server::start(Behaviour { redirect, ..Behaviour::default() }).await;
    let fixture = Fixture::new().with_secret(&[("token", "t0ken")]);
    let origin = |path: &str| Origin::Http {
        url: format!("{}{path}", server.url),
        digest: Digest::of(&usual()),
        strip_components: 1,
        credential_host: Some(server.url.clone()),
    };
    fixture.fetch(origin("/download")).await.unwrap();
    assert_eq!(server.requests(), ["GET /download Bearer t0ken"]);
    assert_eq!(files.requests(), ["GET /archive -"]);
    assert_eq!(fixture.tree(), usual_tree());
}

#[tokio::test]
async fn redirects_end_after_five() {
    let server = Server::start(Behaviour { redirect: Some(("/a".into(), "/a".into())), ..Behaviour::default() }).await;
    let origin = Origin::Http {
        url: format!("{}/a", server.url),
        digest: Digest::of(b""),
        strip_components: 0,
        credential_host: None,
    };
    let error = Fixture::new().fetch(origin).await.unwrap_err();
    assert!(matches!(error, SourceError::Redirect { .. }), "{error}");
    assert_eq!(server.requests().len(), 6);
}
