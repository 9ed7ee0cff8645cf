//! Sources that need no network: ConfigMaps as the kubelet mounts them, and inline files.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use minimalimage::domain::{
    source::config_map_digest,
    task::{FailureReason, Origin},
};

use crate::{Fixture, expected};

/// Mounts keys as the kubelet does: `key -> ..data/key`, `..data -> ..2026_x`.
fn mounted(keys: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::new();
    let root = fixture.config_map.path();
    std::fs::create_dir(root.join("..2026_x")).unwrap();
    symlink("..2026_x", root.join("..data")).unwrap();
    for (key, value) in keys {
        std::fs::write(root.join("..2026_x").join(key), value).unwrap();
        symlink(format!("..data/{key}"), root.join(key)).unwrap();
    }
    fixture
}

fn data(keys: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    keys.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

fn inline(files: &[(&str, &str)]) -> Origin {
    Origin::Inline { files: files.iter().map(|(path, content)| ((*path).into(), (*content).into())).collect() }
}

#[tokio::test]
async fn a_config_map_becomes_plain_files() {
    let keys = [("main.go", "package main"), (".hidden", "")];
    let fixture = mounted(&keys);
    fixture.fetch(Origin::ConfigMap { digest: config_map_digest(&data(&keys)) }).await.unwrap();
    assert_eq!(fixture.tree(), expected(&[(".hidden", "644 "), ("main.go", "644 package main")]));
}

#[tokio::test]
async fn a_config_map_that_changed_is_refused() {
    let fixture = mounted(&[("a", "new")]);
    let digest = config_map_digest(&data(&[("a", "old")]));
    let error = fixture.fetch(Origin::ConfigMap { digest }).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::SourceInvalid);
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
    assert!(fixture.tree().is_empty());
}

#[tokio::test]
async fn inline_files_may_have_directories() {
    let fixture = Fixture::new().with_directory("src");
    fixture.fetch(inline(&[("src/a/b.txt", "1"), ("src/c", "2"), ("other", "3")])).await.unwrap();
    assert_eq!(fixture.tree(), expected(&[("a", "dir"), ("a/b.txt", "644 1"), ("c", "644 2")]));
}

#[tokio::test]
async fn inline_paths_are_checked() {
    for files in [
        &[("../a", "")][..],
        &[("/a", "")],
        &[("", "")],
        &[("a/", "")],
        &[("a", ""), ("a/b", "")],
        &[("a/../../b", "")],
    ] {
        let error = Fixture::new().fetch(inline(files)).await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::SourceInvalid, "{files:?}: {error}");
    }
    let error = Fixture::new().with_directory("srv").fetch(inline(&[("src/a", "")])).await.unwrap_err();
    assert!(error.to_string().ends_with("`srv` in the source; there are: src"), "{error}");
}
