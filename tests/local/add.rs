//! What ADD fetches, from servers on loopback.

use std::{fs, path::Path, process::Command};

use minimalimage::domain::value::Digest;
use serde_json::Value;

use crate::{
    server::{Behaviour, Server},
    support::{Layer, Machine, layer_texts, users},
};

/// Commits `files` to the new repository `path`; gives the commit.
fn commit(path: &Path, files: &[(&str, &str)]) -> String {
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"];
        let output = Command::new("git").arg("-C").arg(path).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "x"]);
    git(&["rev-parse", "HEAD"])
}

fn seen(machine: &Machine) -> String {
    layer_texts(&machine.path("work/layout")).into_iter().find(|(path, _)| path == "seen").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_commits_are_fetched_once_and_without_the_build_container() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("data"), "data\n").unwrap();
        let commit = commit(&root.path().join("r.git"), &[("docs/a/b", "tree\n"), ("other", "x")]);
        let server = Server::start(Behaviour { root: root.path().into(), ..Behaviour::default() }).await;
        let (url, host, digest) = (&server.url, &machine.registry.host, Digest::of(b"data\n"));
        let text = format!(
            "FROM {host}/builder:1 AS build\nADD --checksum={digest} {url}/data /in/\nADD {url}/r.git#{commit}:docs /tree\n\
             RUN --network=none cat /in/data /tree/a/b >/seen && stat -c '%a %u:%g' /in /in/data /tree/a/b >>/seen && ls -A /tree >>/seen\n\
             FROM scratch\nADD --checksum={digest} --chmod=0640 --chown=1:2 {url}/data /named\nCOPY --from=build /seen /seen\n"
        );
        machine.file("Dockerfile", &text);
        let first = machine.build(&["--output", "oci:layout"]);
        assert_eq!(seen(&machine), "data\ntree\n755 0:0\n600 0:0\n644 0:0\na\n");
        let named = layer_texts(&machine.path("work/layout")).into_iter().find(|(path, _)| path == "named");
        assert_eq!(named.unwrap().1, "data\n");
        let requests = server.requests();
        assert_eq!(requests.iter().filter(|request| request.starts_with("GET /data ")).count(), 1, "{requests:?}");
        assert!(requests.iter().all(|request| request.ends_with(" -")), "{requests:?}");
        // By now nobody needs the server.
        machine.file("Dockerfile", &format!("{text}LABEL a=b\n"));
        let second = machine.build(&[]);
        assert!(second["stages"].as_array().unwrap().iter().all(|stage| stage["cached"] == true), "{second}");
        assert_eq!(server.requests(), requests);
        assert_ne!(first["digest"], second["digest"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_is_another_file_is_told_with_its_line() {
    let machine = Machine::new(users()[0]).await;
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("data"), "other\n").unwrap();
    fs::write(root.path().join("packed"), "BZh91").unwrap();
    commit(&root.path().join("r.git"), &[("a", "x")]);
    let server = Server::start(Behaviour { root: root.path().into(), ..Behaviour::default() }).await;
    let (url, digest, packed) = (&server.url, Digest::of(b"data\n"), Digest::of(b"BZh91"));
    for (line, words) in [
        (format!("ADD --checksum={digest} {url}/data /"), "expected sha256:"),
        (format!("ADD --checksum={digest} {url}/nothing /"), "the server answered 404"),
        (
            format!("ADD --unpack --checksum={packed} {url}/packed /"),
            "unable to unpack packed: it is packed with bzip2",
        ),
        (format!("ADD {url}/r.git#0123456789abcdef0123456789abcdef01234567 /"), "unable to fetch commit 0123456789"),
    ] {
        machine.file("Dockerfile", &format!("FROM scratch\n{line}\n"));
        let error = machine.refusal(&[]);
        assert!(error.contains("Dockerfile:2: ") && error.contains(words), "{words}\n{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_unpacked_and_known_by_what_they_hold() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        let archive = |text: &str| {
            let mut archive = Layer::default();
            archive.file("dir/f", text.as_bytes(), 0o640, 1000);
            archive.finish()
        };
        let put = |bytes: &[u8]| fs::write(machine.path("work/a"), bytes).unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("b"), archive("fetched\n")).unwrap();
        let server = Server::start(Behaviour { root: root.path().into(), ..Behaviour::default() }).await;
        let (url, host, digest) = (&server.url, &machine.registry.host, Digest::of(&archive("fetched\n")));
        let text = format!(
            "FROM {host}/builder:1 AS build\nADD a /in\nADD --unpack --checksum={digest} {url}/b /fetched\n\
             ADD --checksum={digest} {url}/b /packed\n\
             RUN cat /in/dir/f /fetched/dir/f >/seen && stat -c '%a %u' /in/dir/f >>/seen && wc -c </packed >>/seen\n\
             FROM scratch\nADD a /last/\nCOPY --from=build /seen /seen\n"
        );
        machine.file("Dockerfile", &text);
        machine.file(".dockerignore", "layout\n");
        put(&archive("one\n"));
        let first = machine.build(&["--output", "oci:layout"]);
        assert_eq!(seen(&machine), "one\nfetched\n640 1000\n2048\n");
        let last = layer_texts(&machine.path("work/layout")).into_iter().find(|(path, _)| path == "last/dir/f");
        assert_eq!(last.unwrap().1, "one\n");
        // The same files, packed otherwise.
        put(&zstd::encode_all(&archive("one\n")[..], 3).unwrap());
        let planned = machine.run(&["plan", "--json", "."]);
        let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
        let second = machine.build(&[]);
        let cached = |result: &Value| result["stages"].as_array().unwrap().iter().all(|stage| stage["cached"] == true);
        assert!(cached(&second) && second["digest"] == first["digest"], "{second}");
        assert_eq!(planned["image"], first["digest"], "{planned}");
        put(&archive("two\n"));
        assert!(!cached(&machine.build(&["--output", "oci:layout"])));
        assert!(seen(&machine).starts_with("two\n"));
        assert!(fs::read_dir(machine.store().join("runs")).is_ok_and(|mut runs| runs.next().is_none()));
        machine.file(".dockerignore", "a\n");
        assert!(machine.refusal(&[]).contains("Dockerfile:"));
    }
}
