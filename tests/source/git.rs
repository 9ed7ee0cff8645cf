//! Git repositories made with git itself, fetched over HTTP in both protocol versions.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use minimalimage::{
    domain::{
        git::{Commit, GitRef},
        source::{ServerCredential, SourceCredential},
        task::{FailureReason, Origin},
        value::Secret,
    },
    shell::source::{SourceError, resolve},
};
use tempfile::TempDir;

use crate::{
    Fixture, client, expected,
    server::{Behaviour, Server},
};

/// A directory of repositories to be served.
struct Repositories {
    root: TempDir,
}

impl Repositories {
    fn new() -> Self {
        Self { root: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs git in repository `name`, which is made when it is not there.
    fn git(&self, name: &str, arguments: &[&str]) -> String {
        self.git_with_input(name, arguments, b"")
    }

    fn git_with_input(&self, name: &str, arguments: &[&str], input: &[u8]) -> String {
        if !self.path(name).exists() {
            run_git(self.root.path(), &["init", "--quiet", "--initial-branch=main", name], b"");
        }
        run_git(&self.path(name), arguments, input)
    }

    /// Commits files in `name`.
    fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        self.git(name, &["status"]);
        for (path, content) in files {
            let path = self.path(name).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(name, &["add", "--all"]);
        self.git(name, &["commit", "--quiet", "--allow-empty", "--message", "x"]);
        self.git(name, &["rev-parse", "HEAD"])
    }

    /// Commits a tree given as `git mktree` reads it, whatever its names.
    fn commit_tree(&self, name: &str, tree: &[u8]) -> String {
        let tree = self.git_with_input(name, &["hash-object", "-t", "tree", "-w", "--stdin", "--literally"], tree);
        let commit = self.git(name, &["commit-tree", &tree, "-m", "x"]);
        self.git(name, &["update-ref", "refs/heads/main", &commit]);
        commit
    }

    fn behaviour(&self) -> Behaviour {
        Behaviour { root: self.root.path().to_owned(), version_2: true, ..Behaviour::default() }
    }

    async fn serve(&self) -> Server {
        Server::start(self.behaviour()).await
    }
}

fn run_git(directory: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Tester")))
        .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "tester@example.com")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need git (Debian: package git)");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn origin(server: &Server, name: &str, commit: &str) -> Origin {
    Origin::Git {
        url: format!("{}/{name}", server.url),
        commit: commit.into(),
        submodules: true,
        credential_host: None,
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..20).map(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).unwrap()).collect()
}

async fn look_up(server: &Server, reference: &GitRef) -> Result<Commit, SourceError> {
    resolve(&client(), &format!("{}/app/", server.url), reference, None).await
}

#[tokio::test]
async fn branches_tags_and_head_are_resolved_in_both_versions() {
    let repositories = Repositories::new();
    let first = repositories.commit("app", &[("a", "1")]);
    repositories.git("app", &["tag", "plain"]);
    repositories.git("app", &["tag", "--annotate", "v1", "--message", "x"]);
    let second = repositories.commit("app", &[("a", "2")]);
    repositories.git("app", &["branch", "main-other", &first]);
    for version_2 in [true, false] {
        let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
        for (reference, commit) in [
            (GitRef::Head, &second),
            (GitRef::Branch("main".parse().unwrap()), &second),
            (GitRef::Branch("main-other".parse().unwrap()), &first),
            (GitRef::Tag("plain".parse().unwrap()), &first),
            (GitRef::Tag("v1".parse().unwrap()), &first),
        ] {
            assert_eq!(look_up(&server, &reference).await.unwrap().to_string(), *commit, "{reference:?}");
        }
        let error = look_up(&server, &GitRef::Branch("v1".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::SourceInvalid);
        assert_eq!(error.to_string(), format!("unable to find branch `v1` in {}/app/", server.url));
    }
}

#[tokio::test]
async fn an_empty_repository_and_no_repository_are_told_apart() {
    let repositories = Repositories::new();
    repositories.git("app", &["status"]);
    std::fs::create_dir(repositories.path("page")).unwrap();
    for version_2 in [true, false] {
        let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
        let error = look_up(&server, &GitRef::Head).await.unwrap_err();
        assert!(matches!(error, SourceError::NoSuchRef { .. }), "{error}");
        let nothing = resolve(&client(), &format!("{}/none", server.url), &GitRef::Head, None).await.unwrap_err();
        assert!(nothing.to_string().contains("404"), "{nothing}");
        assert_eq!(nothing.reason(), FailureReason::SourceUnavailable);
    }
}

#[tokio::test]
async fn a_commit_needs_no_request() {
    let commit = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    let found = resolve(&client(), "http://127.0.0.1:1/x", &GitRef::Commit(commit), None).await;
    assert_eq!(found.unwrap(), commit);
    let error = resolve(&client(), "http://127.0.0.1:1/x", &GitRef::Head, None).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceUnavailable);
}

#[tokio::test]
async fn files_arrive_byte_for_byte_with_exec_bits_and_links() {
    let repositories = Repositories::new();
    std::fs::create_dir(repositories.path("x")).unwrap();
    repositories.commit("app", &[("old", "x")]);
    let app = repositories.path("app");
    std::fs::remove_file(app.join("old")).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", app.join("link")).unwrap();
    repositories.commit("app", &[(".gitattributes", "* text eol=crlf\n"), ("a/b/c.txt", "1\n2\n"), ("run.sh", "#!\n")]);
    repositories.git("app", &["update-index", "--chmod=+x", "run.sh"]);
    repositories.git("app", &["commit", "--quiet", "--message", "exec"]);
    let commit = repositories.git("app", &["rev-parse", "HEAD"]);
    for version_2 in [true, false] {
        let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
        let fixture = Fixture::new();
        let fetched = fixture.fetch(origin(&server, "app", &commit)).await.unwrap();
        let time: i64 = repositories.git("app", &["show", "--no-patch", "--format=%ct"]).parse().unwrap();
        assert_eq!((fetched.warnings, fetched.time), (Vec::new(), Some(time)));
        let tree = [
            (".gitattributes", "644 * text eol=crlf\n"),
            ("a", "dir"),
            ("a/b", "dir"),
            ("a/b/c.txt", "644 1\n2\n"),
            ("link", "-> ../../etc/passwd"),
            ("run.sh", "755 #!\n"),
        ];
        assert_eq!(fixture.tree(), expected(&tree));
    }
}

#[tokio::test]
async fn only_the_directory_is_visible_and_a_wrong_one_is_named() {
    let repositories = Repositories::new();
    let commit = repositories.commit("app", &[("apps/server/main.go", "x"), ("apps/web/index", "y"), ("file", "z")]);
    let server = repositories.serve().await;
    let fixture = Fixture::new().with_directory("./apps/server/");
    fixture.fetch(origin(&server, "app", &commit)).await.unwrap();
    assert_eq!(fixture.tree(), expected(&[("main.go", "644 x")]));
    for (directory, message) in [
        ("apps/sever", "unable to find directory `apps/sever` in the source; there are: apps/server"),
        ("file", "`file` is a file or symbolic link, but the source's directory is to be there"),
        ("../x", "`../x` leads upwards"),
    ] {
        let error = Fixture::new().with_directory(directory).fetch(origin(&server, "app", &commit)).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::SourceInvalid);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn an_unadvertised_commit_is_found_by_id_or_by_history() {
    let repositories = Repositories::new();
    let first = repositories.commit("app", &[("a", "1")]);
    repositories.commit("app", &[("a", "2")]);
    let absent = "0123456789abcdef0123456789abcdef01234567";
    for version_2 in [true, false] {
        let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
        let fixture = Fixture::new();
        fixture.fetch(origin(&server, "app", &first)).await.unwrap();
        assert_eq!(fixture.tree(), expected(&[("a", "644 1")]));
        let error = Fixture::new().fetch(origin(&server, "app", absent)).await.unwrap_err();
        assert!(matches!(error, SourceError::NoSuchCommit { .. }), "{error}");
        assert!(error.to_string().contains(absent), "{error}");
    }
}

#[tokio::test]
async fn a_large_pack_and_many_objects_are_refused() {
    let repositories = Repositories::new();
    // Hex of a counter's digest does not compress below half.
    let noise: String =
        (0..3000_u32).map(|i| minimalimage::domain::value::Digest::of(&i.to_be_bytes()).hex()).collect();
    let commit = repositories.commit("app", &[("noise", &noise), ("zeros", &"0".repeat(300_000))]);
    let server = repositories.serve().await;
    for (bytes, entries, message) in [
        (50_000, 100, "50000 bytes, still packed"),
        (250_000, 100, "250000 bytes"),
        (1 << 20, 1, "1 files and directories"),
        (1 << 20, 0, "0 Git objects"),
    ] {
        let fixture = Fixture::new().with_limits(bytes, entries);
        let error = fixture.fetch(origin(&server, "app", &commit)).await.unwrap_err();
        assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn hostile_tree_entries_are_refused() {
    let repositories = Repositories::new();
    let blob = hex(&repositories.git_with_input("app", &["hash-object", "-w", "--stdin"], b"evil"));
    let empty = hex(&repositories.git_with_input("app", &["hash-object", "-t", "tree", "-w", "--stdin"], b""));
    let entry = |mode: &str, name: &str, id: &[u8]| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", id].concat();
    let inner = entry("100644", "x", &blob);
    let inner = hex(&repositories.git_with_input("app", &["hash-object", "-t", "tree", "-w", "--stdin"], &inner));
    let server = repositories.serve().await;
    for (name, tree) in [
        ("..", entry("40000", "..", &inner)),
        (".", entry("100644", ".", &blob)),
        (".git", entry("40000", ".git", &empty)),
        (".GiT", entry("100644", ".GiT", &blob)),
        ("a/b", entry("100644", "a/b", &blob)),
        ("/etc/x", entry("100644", "/etc/x", &blob)),
        ("link twice", [entry("120000", "l", &blob), entry("40000", "l", &inner)].concat()),
        ("device", entry("20000", "d", &blob)),
    ] {
        let commit = repositories.commit_tree("app", &tree);
        let fixture = Fixture::new();
        let error = fixture.fetch(origin(&server, "app", &commit)).await.expect_err(name);
        assert_eq!(error.reason(), FailureReason::SourceInvalid, "{name}: {error}");
        assert!(!fixture.into.path().parent().unwrap().join("x").exists(), "{name}");
    }
}

#[tokio::test]
async fn submodules_are_filled_recursively_also_by_relative_url() {
    let repositories = Repositories::new();
    let deepest = repositories.commit("group/deepest", &[("d", "deepest")]);
    let add = |name: &str, url: &str, path: &str, commit: &str| {
        let modules = format!("[submodule \"s\"]\n\tpath = {path}\n\turl = {url}\n");
        repositories.commit(name, &[(".gitmodules", &modules)]);
        repositories.git(name, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        repositories.git(name, &["commit", "--quiet", "--message", "submodule"]);
        repositories.git(name, &["rev-parse", "HEAD"])
    };
    let library = add("group/library", "../deepest", "deep", &deepest);
    let app = add("app", "../group/library", "lib/x", &library);
    let server = repositories.serve().await;
    let fixture = Fixture::new();
    fixture.fetch(origin(&server, "app", &app)).await.unwrap();
    let tree = fixture.tree();
    assert_eq!(tree.get("lib/x/deep/d").map(String::as_str), Some("644 deepest"));
    let inside = Fixture::new().with_directory("lib/x/deep");
    inside.fetch(origin(&server, "app", &app)).await.unwrap();
    assert_eq!(inside.tree(), expected(&[("d", "644 deepest")]));
    let without = Fixture::new();
    let Origin::Git { url, commit, .. } = origin(&server, "app", &app) else { unreachable!() };
    without.fetch(Origin::Git { url, commit, submodules: false, credential_host: None }).await.unwrap();
    assert_eq!(without.tree().get("lib/x").map(String::as_str), Some("dir"));
    assert_eq!(without.tree().len(), 3);
    let ssh = add("ssh", "git@example.com:x/y", "z", &deepest);
    let error = Fixture::new().fetch(origin(&server, "ssh", &ssh)).await.unwrap_err();
    assert!(error.to_string().contains("submodule `z`: addresses with `ssh`"), "{error}");
}

#[tokio::test]
async fn submodules_that_go_on_for_ever_end() {
    let repositories = Repositories::new();
    let mut commit = repositories.commit("app", &[("a", "x")]);
    for _ in 0..9 {
        repositories.commit("app", &[(".gitmodules", "[submodule \"s\"]\npath = s\nurl = ./\n")]);
        repositories.git("app", &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},s")]);
        repositories.git("app", &["commit", "--quiet", "--message", "deeper"]);
        commit = repositories.git("app", &["rev-parse", "HEAD"]);
    }
    let server = repositories.serve().await;
    let error = Fixture::new().fetch(origin(&server, "app", &commit)).await.unwrap_err();
    assert!(matches!(error, SourceError::Submodule { .. }), "{error}");
}

fn private(repositories: &Repositories) -> Behaviour {
    // user:password
    Behaviour { authorization: Some("Basic dXNlcjpwYXNzd29yZA==".into()), ..repositories.behaviour() }
}

#[tokio::test]
async fn a_private_repository_wants_the_right_credentials() {
    let repositories = Repositories::new();
    let commit = repositories.commit("app", &[("a", "1")]);
    let server = Server::start(private(&repositories)).await;
    let Origin::Git { url, commit, .. } = origin(&server, "app", &commit) else { unreachable!() };
    let task = |host: Option<&String>| Origin::Git {
        url: url.clone(),
        commit: commit.clone(),
        submodules: false,
        credential_host: host.cloned(),
    };
    let right = Fixture::new().with_secret(&[("username", "user"), ("password", "password\n")]);
    right.fetch(task(Some(&server.url))).await.unwrap();
    assert_eq!(right.tree(), expected(&[("a", "644 1")]));
    let other = "https://git.example.com".to_owned();
    for (fixture, host, advice) in [
        (Fixture::new(), None, "give a Secret"),
        (Fixture::new().with_secret(&[("token", "wrong")]), Some(&server.url), "are valid"),
        (Fixture::new().with_secret(&[("token", "wrong")]), Some(&other), "for another host"),
        (Fixture::new().with_secret(&[("x", "wrong")]), Some(&server.url), "none of the keys"),
    ] {
        let error = fixture.fetch(task(host)).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::SourceAccessDenied);
        assert!(error.to_string().contains(advice) && !error.to_string().contains("script"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_without_taking_credentials_along() {
    let repositories = Repositories::new();
    repositories.commit("app", &[("a", "1")]);
    let target = repositories.serve().await;
    let behaviour =
        Behaviour { redirect: Some(("/old".into(), format!("{}/app", target.url))), ..private(&repositories) };
    let server = Server::start(behaviour).await;
    let password = Secret::new("password");
    let credential = SourceCredential::Basic { username: "user".into(), password };
    let credential = ServerCredential::new(&server.url, credential).unwrap();
    resolve(&client(), &format!("{}/old", server.url), &GitRef::Head, Some(&credential)).await.unwrap();
    assert_eq!(server.requests(), ["GET /old/info/refs?service=git-upload-pack Basic dXNlcjpwYXNzd29yZA=="]);
    assert_eq!(target.requests(), ["GET /app/info/refs?service=git-upload-pack -", "POST /app/git-upload-pack -"]);
}

#[tokio::test]
async fn passing_troubles_are_tried_again() {
    let repositories = Repositories::new();
    let commit = repositories.commit("app", &[("a", "1")]);
    let server = Server::start(Behaviour { statuses: vec![503, 429], ..repositories.behaviour() }).await;
    assert_eq!(look_up(&server, &GitRef::Head).await.unwrap().to_string(), commit);
}

#[tokio::test]
async fn lfs_pointers_are_left_and_told_of() {
    let repositories = Repositories::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let commit = repositories.commit("app", &[("big.bin", pointer)]);
    let server = repositories.serve().await;
    let fetched = Fixture::new().fetch(origin(&server, "app", &commit)).await.unwrap();
    assert_eq!(fetched.warnings.len(), 1);
    assert!(fetched.warnings[0].contains("`big.bin`"), "{fetched:?}");
}

#[tokio::test]
async fn an_answer_that_ends_early_is_tried_later() {
    let repositories = Repositories::new();
    let commit = repositories.commit("app", &[("a", "1")]);
    for cut in [0, 20, 400, 500] {
        let server = Server::start(Behaviour { cut: Some(cut), ..repositories.behaviour() }).await;
        let error = Fixture::new().fetch(origin(&server, "app", &commit)).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::SourceUnavailable, "{cut}: {error}");
    }
}

#[tokio::test]
async fn sha_256_repositories_are_refused_clearly() {
    let repositories = Repositories::new();
    run_git(repositories.root.path(), &["init", "--quiet", "--object-format=sha256", "app"], b"");
    repositories.commit("app", &[("a", "1")]);
    for version_2 in [true, false] {
        let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
        let error = look_up(&server, &GitRef::Head).await.unwrap_err();
        assert!(error.to_string().contains("only SHA-1 is supported"), "{error}");
    }
}

#[test]
fn fetching_can_move_between_threads() {
    fn is_send(_: &impl Send) {}
    is_send(&resolve(&client(), "", &GitRef::Head, None));
    let fixture = Fixture::new();
    is_send(&fixture.fetch(Origin::Inline { files: std::collections::BTreeMap::new() }));
}

#[tokio::test]
async fn a_silent_server_does_not_hold_the_fetch() {
    let repositories = Repositories::new();
    let commit = repositories.commit("app", &[("a", "1")]);
    let server = Server::start(Behaviour { stall: true, ..repositories.behaviour() }).await;
    let fixture = Fixture { time: std::time::Duration::from_millis(100), ..Fixture::new() };
    let error = fixture.fetch(origin(&server, "app", &commit)).await.unwrap_err();
    assert!(matches!(error, SourceError::TooSlow { .. }), "{error}");
    assert_eq!(error.reason(), FailureReason::SourceUnavailable);
}

#[tokio::test]
async fn single_files_are_read_with_and_without_a_server_that_filters() {
    let repositories = Repositories::new();
    repositories.git("app", &["status"]);
    std::os::unix::fs::symlink("Dockerfile", repositories.path("app").join("link")).unwrap();
    let files = [("Dockerfile", "FROM top"), ("sub/Dockerfile", "FROM sub"), ("sub/.dockerignore", "*.md")];
    let commit = repositories.commit("app", &files);
    for filters in ["true", "false"] {
        repositories.git("app", &["config", "uploadpack.allowFilter", filters]);
        for version_2 in [true, false] {
            let server = Server::start(Behaviour { version_2, ..repositories.behaviour() }).await;
            let origin = || origin(&server, "app", &commit);
            let sub = Fixture::new().with_directory("sub");
            let read = sub.read(origin(), &["Dockerfile", ".dockerignore", "none", "none/at/all"]).await.unwrap();
            let found = [Some("FROM sub".to_owned()), Some("*.md".to_owned()), None, None];
            assert_eq!(read, found, "{filters} {version_2}");
            let link = Fixture::new().read(origin(), &["link"]).await.unwrap_err();
            assert!(link.to_string().contains("symbolic link"), "{link}");
        }
    }
}
