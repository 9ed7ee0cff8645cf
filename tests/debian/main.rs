//! Bases of packages against an archive that the test makes: what is in them, and everything that can be wrong with an archive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

#[path = "../support/debian.rs"]
mod archive;
mod damaged;
#[path = "../support/server.rs"]
mod server;

use std::{cmp::Ordering, collections::BTreeMap, fs, path::PathBuf, process::Command};

use archive::{Archive, Deb, NOW, Times, listing};
use jiff::Timestamp;
use minimalimage::{
    api::v1alpha1::ScriptPolicy,
    domain::{
        debian::{
            base::{self, Composition, Onto, PackageSet, PackagesBase, Selection, changes},
            compose::without,
            runtimes,
            version::Version,
        },
        task::{Limits, Network},
        value::Digest,
    },
    shell::{
        chain,
        debian::{BaseError, Compose, Environment, compose, resolve},
        net::Http,
    },
};
use proptest::prelude::*;
use server::{Behaviour, Server};
use tempfile::TempDir;

/// An archive, served, and what is asked of it.
struct Bench {
    directory: TempDir,
    archive: Archive,
    server: Server,
    http: Http,
    base: PackagesBase,
    limits: Limits,
}

impl Bench {
    async fn new(install: &[&str], debs: &[Deb]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        archive.publish("test", NOW, debs);
        let server = Server::start(Behaviour { root: directory.path().to_owned(), ..Behaviour::default() }).await;
        let install: Vec<String> = install.iter().map(|name| (*name).to_owned()).collect();
        let base = PackagesBase {
            name: "test".into(),
            archives: vec![base::Archive {
                root: format!("{}/debian", server.url),
                suite: "test".into(),
                components: vec!["main".into()],
            }],
            architecture: "amd64".into(),
            frozen: false,
            keyring: Some(archive.keyring()),
            without: without(&[], &install),
            install,
            selection: Selection::default(),
            debug: false,
            config: runtimes::config(None),
        };
        let http = Http::new(&Network { allowed_ranges: vec!["127.0.0.0/8".into()], ..Network::default() }).unwrap();
        Self { directory, archive, server, http, base, limits: Limits::default() }
    }

    fn indexes(&self) -> PathBuf {
        self.directory.path().join("indexes")
    }

    async fn resolve(&self) -> Result<PackageSet, BaseError> {
        let indexes = self.indexes();
        let environment = Environment { http: &self.http, indexes: &indexes, now: Timestamp::now() };
        resolve(&self.base, environment).await
    }

    async fn compose(&self, set: &PackageSet) -> Result<Vec<u8>, BaseError> {
        self.put_together(&Composition::new(set.packages.clone(), self.base.selection.clone()), &set.urls).await
    }

    async fn put_together(&self, composition: &Composition, urls: &[String]) -> Result<Vec<u8>, BaseError> {
        let work = tempfile::tempdir().unwrap();
        let with = Compose { http: &self.http, work_dir: work.path(), limits: &self.limits };
        let base = compose(composition, urls, with).await?;
        let mut layer = Vec::new();
        base.pack(2, &mut layer).unwrap();
        Ok(layer)
    }

    async fn layer(&self) -> Vec<u8> {
        self.compose(&self.resolve().await.unwrap()).await.unwrap()
    }

    async fn files(&self) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
        listing(&self.layer().await)
    }

    /// What resolving or composing says.
    async fn refusal(&self) -> String {
        let error = match self.resolve().await {
            Ok(set) => self.compose(&set).await.unwrap_err(),
            Err(error) => error,
        };
        chain(&error).replace(&self.server.url, "URL")
    }
}

fn text(content: &[u8]) -> &str {
    std::str::from_utf8(content).unwrap()
}

#[tokio::test]
async fn a_base_has_what_a_runtime_needs_and_nothing_else() {
    let debs = [
        Deb::new("base-files", "12", "").file("./etc/os-release", "ID=debian\n").entry(
            tar::EntryType::Directory,
            "./var/run/",
            b"",
            0o755,
        ),
        Deb::new("app", "1.2-3", "Depends: lib1 (>= 1), dpkg, perl-base | perl\n")
            .entry(tar::EntryType::Regular, "./usr/bin/app", b"program", 0o4755)
            .entry(tar::EntryType::Link, "./usr/bin/other", b"./usr/bin/app", 0o755)
            .file("./usr/share/doc/app/README", "long")
            .file("./usr/share/doc/app/copyright", "licence")
            .file("./usr/share/man/man1/app.1", "manual"),
        Deb::new("lib1", "1", "")
            .file("./lib/x86_64-linux-gnu/lib1.so.1", "library")
            .link("./lib/lib1.so", "lib1.so.1"),
        Deb::new("dpkg", "1", "").file("./usr/bin/dpkg", "no"),
        Deb::new("unwanted", "1", "").file("./usr/bin/unwanted", "no"),
    ];
    let bench = Bench::new(&["app", "base-files"], &debs).await;
    let files = bench.files().await;
    let content =
        |path: &str| text(&files.get(path).unwrap_or_else(|| panic!("{path} in {:?}", files.keys())).2).to_owned();
    assert_eq!(content("/usr/bin/app"), "program");
    assert_eq!(files["/usr/bin/app"].0, 0o755, "nothing is setuid");
    assert_eq!(content("/usr/bin/other"), "usr/bin/app", "a hard link");
    assert_eq!(content("/usr/lib/x86_64-linux-gnu/lib1.so.1"), "library");
    assert_eq!(content("/usr/lib/lib1.so"), "lib1.so.1");
    assert_eq!([content("/lib"), content("/bin"), content("/sbin")], ["usr/lib", "usr/bin", "usr/sbin"]);
    assert_eq!(content("/usr/share/doc/app/copyright"), "licence");
    for path in ["/usr/share/doc/app/README", "/usr/share/man", "/usr/bin/dpkg", "/usr/bin/unwanted", "/var/run"] {
        assert!(!files.contains_key(path), "{path}");
    }
    assert!(content("/etc/passwd").contains("nonroot:x:65532:65532:"));
    assert_eq!((files["/home/nonroot"].0, files["/home/nonroot"].1), (0o700, 65532));
    assert_eq!(files["/tmp"].0, 0o1777);
    // What scanners read: the control file as it came, and sums of what is there.
    assert!(content("/var/lib/dpkg/status.d/app").starts_with("Package: app\nVersion: 1.2-3\n"));
    let sums = content("/var/lib/dpkg/status.d/app.md5sums");
    assert!(sums.contains("  usr/bin/app\n") && !sums.contains("README"), "{sums}");
}

#[tokio::test]
async fn the_tools_of_a_debug_image_are_a_layer_of_their_own() {
    let app = Deb::new("app", "1", "").file("./usr/bin/app", "program");
    let tools = Deb::new("busybox-static", "1", "")
        .entry(tar::EntryType::Regular, "./bin/busybox", b"tools", 0o755)
        .file("./usr/share/doc/busybox-static/copyright", "licence")
        .file("./usr/share/initramfs-tools/hooks/zz-busybox", "no");
    let without = Bench::new(&["app"], &[app.clone(), tools.clone()]).await;
    let mut bench = Bench::new(&["app", "busybox-static"], &[app, tools]).await;
    bench.base.debug = true;
    let set = bench.resolve().await.unwrap();
    let [own, tools] = bench.base.compositions(&set).map(Option::unwrap);
    let [base, nothing] = without.base.compositions(&without.resolve().await.unwrap());
    assert_eq!((&own.0, nothing), (&base.unwrap().0, None), "the base is the same with it and without");
    assert_eq!(own.1, set.urls[..1]);
    let files = listing(&bench.put_together(&tools.0, &tools.1).await.unwrap());
    assert_eq!((files["/busybox/busybox"].0, text(&files["/busybox/busybox"].2)), (0o755, "tools"));
    let mut rest = Vec::new();
    for (path, (_, _, content)) in &files {
        match path.strip_prefix("/busybox/") {
            Some("busybox") => {}
            Some(_) => assert_eq!(text(content), "busybox", "{path}"),
            None => rest.push(path.as_str()),
        }
    }
    assert_eq!(
        rest,
        [
            "/busybox",
            "/usr/share/doc",
            "/usr/share/doc/busybox-static",
            "/usr/share/doc/busybox-static/copyright",
            "/var/lib/dpkg",
            "/var/lib/dpkg/status.d",
            "/var/lib/dpkg/status.d/busybox-static",
            "/var/lib/dpkg/status.d/busybox-static.md5sums",
        ]
    );
    assert!(files.contains_key("/busybox/sh"));
    let real = Command::new("busybox")
        .arg("--list")
        .output()
        .expect("this test needs busybox-static, which tests/setup installs");
    let real = String::from_utf8(real.stdout).unwrap();
    let known = files.keys().filter_map(|path| path.strip_prefix("/busybox/")).filter(|name| *name != "busybox");
    let unknown: Vec<&str> = known.filter(|name| !real.lines().any(|applet| applet == *name)).collect();
    assert_eq!(unknown, [""; 0], "Debian's busybox can do each of them");
}

#[tokio::test]
async fn what_is_put_onto_scratch_says_which_distribution_it_is_of() {
    let debs = [
        Deb::new("base-files", "13", "")
            .file("./usr/lib/os-release", "ID=debian\n")
            .link("./etc/os-release", "../usr/lib/os-release")
            .file("./etc/debian_version", "13.2\n")
            .file("./etc/host.conf", "no")
            .script("postinst", "somebody else's"),
        Deb::new("tzdata", "1", "")
            .file("./usr/share/zoneinfo/UTC", "zone")
            .file("./lib/tz", "old layout")
            .link("./usr/share/doc/tzdata", "tzdata-common")
            .file("./usr/share/doc/tzdata-common/copyright", "licence"),
    ];
    let mut bench = Bench::new(&["base-files", "tzdata"], &debs).await;
    bench.base.selection.onto = Some(Onto::Scratch);
    let files = bench.files().await;
    let content = |path: &str| text(&files.get(path).unwrap_or_else(|| panic!("{path}")).2).to_owned();
    assert_eq!(content("/etc/os-release"), "../usr/lib/os-release");
    assert_eq!(
        (content("/usr/lib/os-release"), content("/etc/debian_version")),
        ("ID=debian\n".into(), "13.2\n".into())
    );
    assert!(!files.contains_key("/etc/host.conf") && !files.contains_key("/etc/passwd"));
    assert_eq!(content("/usr/share/doc/tzdata"), "tzdata-common", "where its licence is");
    let sums = content("/var/lib/dpkg/status.d/tzdata.md5sums");
    assert!(sums.contains("  usr/lib/tz\n"), "where it is in the base: {sums}");
}

#[tokio::test]
async fn patterns_of_the_spec_take_more_out_and_bring_back() {
    let deb = Deb::new("app", "1", "")
        .file("./usr/share/man/man1/a.1", "a")
        .file("./usr/share/man/man1/b.1", "b")
        .file("./usr/lib/app/x", "x");
    let mut bench = Bench::new(&["app"], &[deb]).await;
    bench.base.selection = Selection {
        keep: vec!["/usr/share/man/man1/a.1".into()],
        drop: vec!["/usr/lib/app/**".into()],
        ..Selection::default()
    };
    let files = bench.files().await;
    assert!(files.contains_key("/usr/share/man/man1/a.1") && !files.contains_key("/usr/share/man/man1/b.1"));
    assert!(!files.contains_key("/usr/lib/app"));
}

#[tokio::test]
async fn the_same_packages_are_the_same_bytes_and_newer_ones_are_named() {
    let app = |version: &str| Deb::new("app", version, "Depends: lib1\n").file("./usr/bin/app", version);
    let lib = Deb::new("lib1", "1", "").file("./usr/lib/lib1.so", "l");
    let bench = Bench::new(&["app"], &[app("1"), lib.clone()]).await;
    let first = bench.resolve().await.unwrap();
    let layer = bench.compose(&first).await.unwrap();
    // On every machine, whatever its processor. Where another digest is meant, RULES has to go up with it: the keys of bases have that
    // version, and nobody shall get the old bytes for a new key.
    assert_eq!(
        Digest::of(&layer).to_string(),
        "sha256:e498b1ceec66dfd5b48628dd797e2d6382f6c959dacad4b92e23f649d4f9cdcd"
    );
    // Another machine, another order of the index.
    let other = Bench::new(&["app"], &[lib.clone(), app("1")]).await;
    assert_eq!(other.resolve().await.unwrap().digest(), first.digest());
    assert_eq!(other.layer().await, layer);

    let later = Times { date: "Mon, 02 Nov 2026 10:00:00 UTC", ..NOW };
    bench.archive.publish("test", later, &[app("1"), app("1.1"), lib]);
    let second = bench.resolve().await.unwrap();
    assert_ne!(second.digest(), first.digest());
    assert_eq!(changes(&first.names(&bench.base), &second.names(&bench.base)), "app 1 → 1.1");
    assert_ne!(bench.compose(&second).await.unwrap(), layer);
    // And what came first is told from it.
    let seen = second.releases.iter().map(|release| (release.suite.as_str(), release.date)).collect();
    assert!(first.held_back(&seen).is_some() && second.held_back(&seen).is_none());
}

#[tokio::test]
async fn archives_that_are_not_believed_are_refused_with_the_reason() {
    let bench = Bench::new(&["app"], &[Deb::new("app", "1", "")]).await;
    let stranger = Archive::new(bench.directory.path());
    let path = bench.archive.in_release("test");
    let genuine = fs::read_to_string(&path).unwrap();
    let says = async |content: String| {
        fs::write(&path, content).unwrap();
        bench.refusal().await
    };
    let unsigned = says("Origin: Test\n".into()).await;
    assert!(unsigned.contains("test of URL/debian is not believed: it is not a signed message"), "{unsigned}");
    let changed = says(genuine.replace("Origin: Test", "Origin: Evil")).await;
    assert!(changed.contains("none of its signatures is by a key of the keyring; it is signed by"), "{changed}");
    let foreign =
        says(stranger.signed("Origin: Test\nSuite: test\nDate: Sun, 01 Nov 2026 10:00:00 UTC\nSHA256:\n")).await;
    assert!(foreign.contains("none of its signatures is by a key"), "{foreign}");
    let other = says(bench.archive.signed("Suite: other\nDate: Sun, 01 Nov 2026 10:00:00 UTC\nSHA256:\n")).await;
    assert!(other.contains("URL/debian gives  (other) where test is asked for"), "{other}");
    let empty = says(bench.archive.signed("Suite: test\nDate: Sun, 01 Nov 2026 10:00:00 UTC\nSHA256:\n")).await;
    assert!(empty.contains("test of URL/debian has no packages of main for amd64"), "{empty}");
    let undated = says(bench.archive.signed("Suite: test\nSHA256:\n")).await;
    assert!(undated.contains("its Release file has no usable field Date"), "{undated}");
}

#[tokio::test]
async fn an_expired_archive_counts_only_when_it_is_frozen() {
    let mut bench = Bench::new(&["app"], &[Deb::new("app", "1", "")]).await;
    let expired = Times { valid_until: Some("Sun, 01 Nov 2026 20:00:00 UTC"), ..NOW };
    bench.archive.publish("test", expired, &[Deb::new("app", "1", "")]);
    let message = bench.refusal().await;
    assert!(message.contains("was valid until 2026-11-01T20:00:00Z and has not been renewed"), "{message}");
    bench.base.frozen = true;
    assert_eq!(bench.resolve().await.unwrap().names(&bench.base), ["app=1"]);
}

#[tokio::test]
async fn files_that_are_not_what_the_archive_says_are_refused() {
    let app = Deb::new("app", "1", "").file("./usr/bin/app", "a");
    let bench = Bench::new(&["app"], std::slice::from_ref(&app)).await;
    let package = bench.archive.root.join(app.path());
    let bytes = app.bytes();
    for (content, problem) in [
        (bytes[..bytes.len() - 10].to_vec(), "it is truncated"),
        ([&bytes[..], b"more"].concat(), "it is too large"),
        ([&bytes[..bytes.len() - 1], b"x"].concat(), "its digest is another one"),
    ] {
        fs::write(&package, content).unwrap();
        let message = bench.refusal().await;
        assert!(
            message.contains(problem) && message.contains("app_1_amd64.deb is not what its archive says"),
            "{message}"
        );
    }
    fs::remove_file(&package).unwrap();
    let gone = bench.refusal().await;
    assert!(gone.contains("failed to read URL/debian/pool/app_1_amd64.deb") && gone.contains("answered 404"), "{gone}");

    // An index that was changed, at both of its names.
    fs::remove_dir_all(bench.indexes()).unwrap();
    let directory = bench.archive.root.join("dists/test/main/binary-amd64");
    for entry in fs::read_dir(directory.join("by-hash/SHA256")).unwrap() {
        fs::write(entry.unwrap().path(), "other").unwrap();
    }
    let index = bench.refusal().await;
    assert!(index.contains("is not what its archive says"), "{index}");
    // A mirror without names by hash.
    fs::remove_dir_all(directory.join("by-hash")).unwrap();
    assert!(bench.resolve().await.is_ok());
}

#[tokio::test]
async fn a_mirror_that_fails_for_a_moment_is_asked_again() {
    let bench = Bench::new(&["app"], &[Deb::new("app", "1", "").file("./usr/bin/app", "a")]).await;
    let root = bench.directory.path().to_owned();
    let weak = Server::start(Behaviour { root, statuses: vec![503, 502], ..Behaviour::default() }).await;
    let mut weakly = bench;
    weakly.base.archives[0].root = format!("{}/debian", weak.url);
    assert!(weakly.files().await.contains_key("/usr/bin/app"));
    assert!(weak.requests().len() > 4, "{:?}", weak.requests());
}

#[tokio::test]
async fn packages_that_are_made_to_do_harm_are_refused() {
    use tar::EntryType::{Block, Char, Fifo, Link, Regular};
    let app = || Deb::new("app", "1", "");
    let long = "a".repeat(90);
    let cases = [
        (app().file("../../etc/passwd", "x"), "app has a file at ../../etc/passwd"),
        (app().file("/etc/passwd", "x"), "app has a file at /etc/passwd"),
        (app().file("./usr/../../x", "x"), "app has a file at usr/../../x"),
        (app().file("./usr/.wh.bin", "x"), "app has a file at usr/.wh.bin"),
        (
            app().link("./usr/lib/x", "/etc").file("./usr/lib/x/passwd", "x"),
            "app: /usr/lib/x is copied both as a directory and as something else",
        ),
        (app().entry(Char, "./dev/null", b"", 0o666), "/dev/null is a device"),
        (app().entry(Block, "./usr/x", b"", 0o666), "/usr/x is a device"),
        (app().entry(Fifo, "./usr/x", b"", 0o666), "/usr/x is a device"),
        (app().entry(Link, "./usr/x", b"../../etc/shadow", 0o644), "app has a file at ../../etc/shadow"),
        (app().entry(Link, "./usr/x", b"usr/y", 0o644), "which the base has not"),
        (app().entry(Regular, &format!("./usr/{long}"), &vec![0; 3 << 20], 0o644), "unpack to more than 1048576 bytes"),
    ];
    for (deb, expected) in cases {
        let mut bench = Bench::new(&["app"], &[deb]).await;
        bench.limits = Limits { source_bytes: 1 << 20, source_entries: 10, ..Limits::default() };
        let message = bench.refusal().await;
        assert!(message.contains(expected), "{message}, not {expected}");
    }
    let many = (0..20).fold(app(), |deb, number| deb.file(&format!("./usr/f{number}"), ""));
    let mut bench = Bench::new(&["app"], &[many]).await;
    bench.limits = Limits { source_entries: 10, ..Limits::default() };
    let message = bench.refusal().await;
    assert!(message.contains("the packages have more than 10 files"), "{message}");
}

#[tokio::test]
async fn files_that_are_no_packages_are_refused() {
    let control = "Package: app\nVersion: 1\nArchitecture: amd64\n";
    let good = archive::gzip(&[0; 1024]);
    let zeros = |count: usize| archive::gzip(&vec![0_u8; count]);
    let cases = [
        (b"not an archive at all".to_vec(), "it is no Debian package"),
        (b"!<arch>\n".to_vec(), "it is truncated or broken"),
        (archive::archive(&[("debian-binary", b"2.0\n".to_vec())]), "it is truncated or broken"),
        (archive::archive(&[("control.tar.bz2", b"BZh9".to_vec())]), "control.tar.bz2 is a bzip2 file"),
        (archive::archive(&[("control.tar.gz", good.clone())]), "it has no file `control`"),
        (archive::archive(&[("control.tar.gz", zeros(80 << 20))]), "it has no file `control`"),
        (archive::archive(&[("control.tar", vec![b'x'; 2048])]), "control.tar is of an unknown kind"),
        (
            {
                let mut bytes = archive::archive(&[("control.tar.gz", good)]);
                bytes.truncate(80);
                bytes
            },
            "it is truncated: control.tar.gz should have",
        ),
    ];
    for (bytes, expected) in cases {
        let bench = Bench::new(&["app"], &[]).await;
        bench.archive.publish_files("test", NOW, &[(control.to_owned(), "pool/app.deb".into(), bytes)]);
        let message = bench.refusal().await;
        assert!(
            message.contains("the package app 1 cannot be unpacked: ") && message.contains(expected),
            "{message}, not {expected}"
        );
    }
}

#[tokio::test]
async fn two_packages_with_one_path_need_a_word_on_it() {
    let first = Deb::new("aa", "1", "").file("./usr/x", "first");
    let second = |fields: &str| Deb::new("bb", "1", fields).file("./usr/x", "second");
    let bench = Bench::new(&["aa", "bb"], &[first.clone(), second("")]).await;
    let message = bench.refusal().await;
    assert!(message.contains("/usr/x is both in aa and in bb"), "{message}");
    let bench = Bench::new(&["aa", "bb"], &[first.clone(), second("Replaces: aa (<< 2)\n")]).await;
    assert_eq!(text(&bench.files().await["/usr/x"].2), "second");
    let kept = Deb::new("aa", "1", "Replaces: bb\n").file("./usr/x", "first");
    let bench = Bench::new(&["aa", "bb"], &[kept, second("")]).await;
    assert_eq!(text(&bench.files().await["/usr/x"].2), "first");
}

/// Versions of all kinds, many of them near each other.
fn versions() -> impl Strategy<Value = String> {
    let part = "[0-9]{1,2}([a-z~+.]{1,2}[0-9]{0,2}){0,3}";
    (prop::option::of("[0-2]"), part, prop::option::of(part)).prop_map(|(epoch, upstream, revision)| {
        let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
        let revision = revision.map(|revision| format!("-{revision}")).unwrap_or_default();
        format!("{epoch}{upstream}{revision}")
    })
}

#[test]
fn versions_are_in_the_order_that_dpkg_sees() {
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(a in versions(), b in versions())| {
        let (first, second): (Version, Version) = (a.parse().unwrap(), b.parse().unwrap());
        let says = |relation: &str| {
            Command::new("dpkg").args(["--compare-versions", &a, relation, &b]).status().unwrap().success()
        };
        let theirs = if says("lt") { Ordering::Less } else if says("eq") { Ordering::Equal } else { Ordering::Greater };
        prop_assert_eq!(first.compare(&second), theirs, "{} and {}", a, b);
    });
}

#[tokio::test]
async fn a_script_that_nobody_has_looked_at_is_named_and_never_run() {
    let deb = Deb::new("app", "1", "")
        .file("./usr/bin/app", "a")
        .script("postinst", "#!/bin/sh\ntouch /tmp/ran\n")
        .script("prerm", "exit 1\n");
    let mut bench = Bench::new(&["app"], &[deb]).await;
    let message = bench.refusal().await;
    assert!(
        message.contains("set spec.image.base.packages.scripts: Ignore if") && message.ends_with("or leave out app 1"),
        "{message}"
    );
    bench.base.selection.scripts = ScriptPolicy::Ignore;
    assert!(bench.files().await.contains_key("/usr/bin/app"));
}
