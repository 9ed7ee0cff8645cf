//! `minimalimage lint` as people call it.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn lint(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_minimalimage"))
        .arg("lint")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_clean_file_prints_nothing() {
    let output = lint(&["--strict", "-"], "FROM scratch\nCOPY app /\nENTRYPOINT [\"/app\"]\n");
    assert_eq!((printed(&output), output.status.code()), (String::new(), Some(0)));
}

#[test]
fn warnings_fail_only_when_strict() {
    let expected = "-:1:6: unpinned-image: golang has no tag, so it is whatever is latest; add a version or a digest\n";
    for (arguments, code) in [(&["-"][..], 0), (&["--strict", "-"], 1)] {
        let output = lint(arguments, "FROM golang\n");
        assert_eq!((printed(&output), output.status.code()), (expected.to_owned(), Some(code)));
    }
}

#[test]
fn what_a_build_refuses_fails() {
    let text = "FROM golang:1 AS build\nRUN --mount=type=secret,id=token,required --network=host make\nFROM debian:13\nCOPY --from=build /app /app\n";
    let output = lint(&["-"], text);
    assert!(printed(&output).starts_with("-:2:"), "{}", printed(&output));
    assert!(printed(&output).contains(": refused: the node's network is not given to builds"), "{}", printed(&output));
    assert_eq!(output.status.code(), Some(1));
    let output = lint(&["-"], "FROM golang:1\nRUN make\n");
    assert!(printed(&output).starts_with("-:2:1: not-minimal: RUN in the stage"), "{}", printed(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn syntax_errors_fail_and_are_printed_for_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a"), "FROM a:1\nCOPPY x y\n").unwrap();
    std::fs::write(path("b"), "FROM a:1\nRUN\n").unwrap();
    let output = lint(&[&path("a"), &path("b")], "");
    let expected = format!(
        "{}:2:1: syntax: unknown instruction `COPPY`, did you mean COPY?\n{}:2:1: syntax: RUN needs a command\n",
        path("a"),
        path("b")
    );
    assert_eq!((printed(&output), output.status.code()), (expected, Some(1)));
}

#[test]
fn json_has_every_part_of_a_finding() {
    let output = lint(&["--format", "json", "-"], "FROM a:1\nCOPPY x y\n");
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        findings,
        serde_json::json!([{
            "file": "-", "line": 2, "column": 1, "severity": "error", "rule": "syntax",
            "message": "unknown instruction `COPPY`", "suggestion": "COPY", "text": "COPPY",
        }])
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = lint(&["/no/such/Dockerfile"], "");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("failed to read /no/such/Dockerfile"), "{error}");
    assert_eq!(output.status.code(), Some(1));
}
