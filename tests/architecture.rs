//! The walls of the house: who may import whom, and that no test is skipped in silence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(below), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{below} has no sources");
    found
}

/// Fails for every file below `folder` that mentions one of `words`.
fn forbid(folder: &str, words: &[&str], why: &str) {
    let offenders: Vec<_> = sources(folder)
        .into_iter()
        .flat_map(|(path, text)| {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            let found = words.iter().filter(move |word| code.contains(**word)).map(|word| (*word).to_owned());
            found.map(move |word| format!("{}: {word}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(offenders.is_empty(), "{why}\n{}", offenders.join("\n"));
}

#[test]
fn imports_go_one_way() {
    forbid("src/api", &["crate::domain", "crate::shell", "crate::cmd"], "api knows nothing of us");
    forbid("src/domain", &["crate::shell", "crate::cmd"], "domain knows only api");
    forbid("src/shell", &["crate::cmd"], "shell does not know who calls it");
}

#[test]
fn the_domain_has_no_effects() {
    let effects = [
        "std::fs",
        "std::net",
        "std::env",
        "tokio::",
        "reqwest::",
        "async fn",
        "kube::Client",
        "SystemTime::now",
        "Timestamp::now",
    ];
    forbid("src/domain", &effects, "domain is pure: time, files and networks are the shell's");
}

#[test]
fn what_runs_in_a_build_pod_or_on_a_laptop_does_not_know_the_cluster() {
    forbid("src/cmd/agent", &["shell::cluster", "kube::"], "a build Pod has no API token");
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> =
        sources("src").into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn no_test_is_ignored() {
    let mark = concat!("#[", "ignore");
    for folder in ["src", "tests"] {
        let ignored: Vec<_> =
            sources(folder).into_iter().filter(|(_, text)| text.contains(mark)).map(|(path, _)| path).collect();
        assert!(ignored.is_empty(), "{ignored:?}");
    }
}
