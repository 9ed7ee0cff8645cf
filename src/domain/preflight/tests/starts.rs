//! How programs are started: what of it does not depend on compilers.

use tar::EntryType::{Directory, Regular, Symlink};

use super::super::{
    Question, Severity, Start, check,
    resolve::{Looks, Lost},
};
use super::{elves::Maker, files, judge, layers::layer, said};
use crate::{api::v1alpha1::Preflight, domain::value::Platform};

const MISSING: &str = "/app is a script for /bin/sh, which the base debian:12 does not have: use a base with a shell, or start a \
                       program instead of a script";

fn program() -> Vec<u8> {
    let mut program = Maker { interpreter: Some("/l"), ..Maker::default() }.bytes();
    // Static: what was its loader is a segment of no kind.
    program[64 + 2 * 56] = 0;
    program
}

#[test]
fn modes_decide_what_a_problem_does() {
    let script = files([layer(&[("app", Regular, b"#!/bin/sh\n")])]);
    // Regular files of these archives are not executable, which root cannot change.
    let findings = judge(&script, &["/app"], |_| {});
    assert!(findings.is_refused() && said(&findings)[0].contains("(mode 0644, owner 0:0)"), "{findings:?}");
    let platform = Platform::linux("amd64");
    let start = Start { entrypoint: vec!["/app".into()], ..Start::default() };
    let ask = |mode| {
        let found = check(&Question { files: &script, start: &start, platform: &platform, base: "b", mode });
        (found.sentences(Severity::Refusal).count(), found.sentences(Severity::Warning).count())
    };
    assert_eq!(
        [Preflight::Enforce, Preflight::Strict, Preflight::Warn, Preflight::Off].map(ask),
        [(1, 0), (1, 0), (0, 1), (0, 0)]
    );
    let other = Platform { os: "wasip1".into(), ..platform.clone() };
    let question = Question { files: &script, start: &start, platform: &other, base: "b", mode: Preflight::Strict };
    assert_eq!(check(&question).list, []);
}

#[test]
fn a_config_is_read_as_runtimes_do() {
    let config =
        br#"{"config": {"Entrypoint": ["/a"], "Cmd": ["b"], "User": "u", "WorkingDir": "/w", "Env": ["A=1", "A=2"]}}"#;
    let start = Start::parse(config);
    assert_eq!((start.entrypoint, start.cmd), (vec!["/a".to_owned()], vec!["b".to_owned()]));
    let start = Start::parse(config);
    assert_eq!(
        (start.variable("A"), start.config.user.as_str(), start.config.working_dir.as_str()),
        (Some("2"), "u", "/w")
    );
    assert_eq!(Start::parse(b"x"), Start::default());
}

#[test]
fn users_come_from_the_images_own_files() {
    let passwd = &b"app:x:1000:1000::/:\n"[..];
    for (user, passwd, expected) in [
        ("app", passwd, None),
        ("1000", b"", None),
        ("other", passwd, Some("the user `other` is not in the image's /etc/passwd")),
        ("1000:staff", passwd, Some("the group `staff` is not in the image's /etc/group")),
    ] {
        let all = files([layer(&[("etc/passwd", Regular, passwd), ("app", Symlink, b"/proc/self/exe")])]);
        let findings = judge(&all, &["/app"], |start| start.config.user = user.into());
        match expected {
            None => assert_eq!(said(&findings), Vec::<String>::new(), "{user}"),
            Some(words) => assert!(findings.is_refused() && said(&findings)[0].starts_with(words), "{findings:?}"),
        }
    }
}

#[test]
fn there_is_no_verdict_on_what_is_mounted_or_not_named() {
    let empty = files([]);
    for (entrypoint, is_refused) in [
        (&[][..], false),
        (&["/proc/self/exe"], false),
        (&["/dev/shm/app"], false),
        (&["/product"], true),
        (&["app"], true),
    ] {
        assert_eq!(judge(&empty, entrypoint, |_| {}).is_refused(), is_refused, "{entrypoint:?}");
    }
}

#[test]
fn a_way_that_is_not_walked_to_its_end_is_no_verdict() {
    let all = files([layer(&[("a/b/c", Regular, b"")])]);
    let resolve = |path: &[u8], looks| all.resolve(path, None, &Looks::new(looks)).map(|found| found.path.is_some());
    assert_eq!(resolve(b"/a/b/c", 100), Ok(true));
    assert_eq!(resolve(b"/a/b/d", 100), Err(Lost::Missing));
    assert_eq!(resolve(b"/a/b/d", 3), Err(Lost::Outside));
    assert_eq!(resolve(&b"/a/..".repeat(1000), 100_000), Err(Lost::Impossible));
    // Each link is the next one twice, and the last a directory: a million ways in all.
    let names: Vec<String> = (0..20).map(|link| format!("l{link}")).collect();
    let targets: Vec<String> = (1..=20).map(|link| format!("l{link}/../l{link}")).collect();
    let links = names.iter().zip(&targets).map(|(name, to)| (name.as_str(), Symlink, to.as_bytes()));
    let all = files([layer(&links.chain([("l20/", Directory, &b""[..])]).collect::<Vec<_>>())]);
    let findings = judge(&all, &["/l0"], |_| {});
    assert!(said(&findings)[0].contains("links lead in a circle"), "{findings:?}");
}

#[test]
fn programs_that_only_start_others_are_looked_through() {
    let program = program();
    let mut entries = Vec::new();
    for name in ["sbin/tini", "sbin/dumb-init", "bin/env"] {
        entries.push((name, Regular, &program[..]));
    }
    let mut all = layer(&entries);
    all.make_executable();
    let all = files([all]);
    for (entrypoint, missing) in [
        (&["tini", "-s", "--", "/app"][..], true),
        (&["/sbin/tini", "-p", "SIGTERM", "/app"], true),
        (&["dumb-init", "--rewrite", "15:3", "/app"], true),
        (&["env", "A=b", "-i", "/app"], true),
        (&["env", "-u", "A", "/app"], true),
        (&["tini", "--", "env", "/app"], true),
        // It may be anywhere.
        (&["env", "PATH=/opt", "app"], false),
        (&["tini"], false),
        (&["env"], false),
    ] {
        let findings = judge(&all, entrypoint, |_| {});
        let expected: Vec<String> = missing
            .then(|| "/app is not in the image: copy it there, or correct the name".into())
            .into_iter()
            .collect();
        assert_eq!(said(&findings), expected, "{entrypoint:?}");
    }
}

#[test]
fn what_java_and_python_cannot_be_held_to_passes() {
    let program = program();
    let mut all = layer(&[("usr/bin/java", Regular, &program), ("usr/bin/python3.11", Regular, &program)]);
    all.make_executable();
    let all = files([all]);
    for (entrypoint, is_refused) in [
        (&["java", "-jar", "/app.jar"][..], true),
        (&["java", "-Dx=y", "--add-opens", "a/b=c", "-jar", "/app.jar"], true),
        (&["java", "@options", "-jar", "/app.jar"], false),
        (&["java", "-cp", "/app.jar", "Main"], false),
        (&["java", "-m", "module"], false),
        (&["java", "-jar"], false),
        (&["python3.11", "/app.py"], true),
        (&["python3.11", "-u", "-X", "dev", "/app.py"], true),
        (&["python3.11", "-m", "app"], false),
        (&["python3.11", "-um", "app"], false),
        (&["python3.11", "-c", "print()"], false),
        (&["python3.11", "-"], false),
        (&["python3.11"], false),
    ] {
        assert_eq!(judge(&all, entrypoint, |_| {}).is_refused(), is_refused, "{entrypoint:?}");
    }
}

#[test]
fn java_is_known_by_the_file_beside_it() {
    let program = program();
    let class = [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 55];
    for (release, needs) in [
        ("JAVA_VERSION=\"1.8.0_392\"\n", Some("was compiled for Java 11, but the base debian:12 has Java 8")),
        (
            "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"10.0.2\"\n",
            Some("was compiled for Java 11, but the base debian:12 has Java 10"),
        ),
        ("JAVA_VERSION=\"11\"\n", None),
        ("JAVA_VERSION=\"21-ea\"\n", None),
        ("JAVA_VERSION=\"next\"\n", None),
        ("", None),
    ] {
        let mut all = layer(&[
            ("opt/java/bin/java", Regular, &program),
            ("opt/java/release", Regular, release.as_bytes()),
            ("usr/bin/java", Symlink, b"/opt/java/bin/java"),
            ("classes/Main.class", Regular, &class),
        ]);
        all.make_executable();
        let findings = judge(&files([all]), &["java", "-cp", "/classes", "Main"], |_| {});
        assert_eq!(findings.is_refused(), needs.is_some(), "{release}");
        assert!(said(&findings).iter().all(|said| needs.is_some_and(|needs| said.contains(needs))), "{findings:?}");
    }
}

#[test]
fn only_strict_holds_other_files_to_the_same() {
    let library = Maker { needed: vec!["libnowhere.so.1"], ..Maker::default() }.bytes();
    let plugin = layer(&[("plugin.so", Regular, &library)]);
    let all = files([plugin.clone()]);
    let platform = Platform::linux("amd64");
    let start = Start::default();
    let ask = |mode| check(&Question { files: &all, start: &start, platform: &platform, base: "scratch", mode });
    let sentence = "/plugin.so needs libnowhere.so.1, which an image from scratch does not have: copy it from the stage, or use a \
                    base that has it";
    assert_eq!(said(&ask(Preflight::Enforce)), [sentence]);
    assert_eq!([Preflight::Enforce, Preflight::Strict].map(|mode| ask(mode).is_refused()), [false, true]);
    // Of the base it is nobody's business here.
    let base = super::FileIndex::default().with(plugin, super::Origin::Base);
    let question = Question { files: &base, start: &start, platform: &platform, base: "b", mode: Preflight::Strict };
    assert_eq!(check(&question).list, []);
    // Whoever loads it may have loaded what it needs before.
    let there = files([layer(&[("plugin.so", Regular, &library), ("opt/libnowhere.so.1", Regular, &library)])]);
    assert!(!check(&Question { files: &there, ..question }).is_refused());
}

#[test]
fn a_script_names_what_is_missing() {
    let mut all = layer(&[("app", Regular, b"#!/bin/sh\n")]);
    all.make_executable();
    assert_eq!(said(&judge(&files([all]), &["/app"], |_| {})), [MISSING]);
}
