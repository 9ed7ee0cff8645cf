//! Tests of [`super`] on real directories.

use serde_json::json;

use super::*;
use crate::domain::{
    artifact::{ArtifactConfig, Layer, OutputReport, manifest},
    media_type::LAYER,
};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path().join("store"))).unwrap();
    (directory, store)
}

fn key(text: &str) -> Key {
    serde_json::from_value(json!(Digest::of(text.as_bytes()))).unwrap()
}

#[test]
fn blobs_are_found_by_digest_and_checked() {
    let (_directory, store) = store();
    let digest = store.write(b"content").unwrap();
    assert_eq!(store.read(digest).unwrap().unwrap(), b"content");
    assert_eq!(store.read(Digest::of(b"other")).unwrap(), None);
    fs::write(store.blob(digest), b"something else").unwrap();
    assert!(matches!(store.read(digest), Err(StoreError::Damaged(_))));
}

#[test]
fn a_blob_that_is_not_finished_is_not_there() {
    let (_directory, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write(b"half").unwrap();
    drop(writer);
    assert!(!store.has(Digest::of(b"half")));
    assert_eq!(fs::read_dir(store.root.join("partial")).unwrap().count(), 0);
}

#[test]
fn keys_lead_to_artifacts_that_are_there() {
    let (_directory, store) = store();
    let blob = store.write(b"layer").unwrap();
    let layer =
        Layer { media_type: LAYER.into(), digest: blob, compressed_size: 5, diff_id: blob, size: 5, index: None };
    let report = OutputReport { diff_id: blob, size: 5, file_count: 0, largest_files: Vec::new() };
    let config = ArtifactConfig { outputs: vec![report] }.to_bytes();
    store.write(&config).unwrap();
    let manifest = store.write(&manifest(&config, &[layer])).unwrap();
    store.record(&key("a"), manifest).unwrap();
    store.record(&key("b"), Digest::of(b"gone")).unwrap();
    assert_eq!(store.known(&key("a")).map(|artifact| artifact.digest), Some(manifest));
    assert_eq!((store.known(&key("b")), store.known(&key("c"))), (None, None));
    // Without one of its layers it has to be made again.
    fs::remove_file(store.blob(blob)).unwrap();
    assert_eq!(store.known(&key("a")), None);
}

#[test]
fn runs_of_living_builds_stay_and_others_go() {
    let (_directory, store) = store();
    let run = store.run_directory().unwrap();
    let dead = store.run_directory().unwrap();
    fs::write(dead.path().join("file"), "left").unwrap();
    let path = dead.path().to_owned();
    // As after kill -9: the lock is free, the directory is there.
    let RunDirectory { .. } = &dead;
    let copy = path.with_extension("copy");
    fs::rename(&path, &copy).unwrap();
    drop(dead);
    fs::rename(&copy, &path).unwrap();
    fs::write(path.with_extension("lock"), "").unwrap();
    assert_eq!(store.abandoned(), Vec::<PathBuf>::new());
    assert!(!path.exists() && run.path().exists());
}

#[test]
fn pruning_waits_for_no_build_and_keeps_images() {
    let (_directory, store) = store();
    let in_use = store.in_use().unwrap();
    assert!(matches!(store.exclusive(), Err(StoreError::Busy)));
    drop(in_use);
    let layer = store.write(b"layer").unwrap();
    let config = store.write(b"config").unwrap();
    let other = store.write(b"other").unwrap();
    let manifest = json!({"config": {"digest": config}, "layers": [{"digest": layer}]});
    let digest = store.write(manifest.to_string().as_bytes()).unwrap();
    store
        .add_image(&BuiltImage {
            repository: "example.com/a".into(),
            tag: "latest".into(),
            digest,
            created: 0,
            size: 5,
            compressed_size: 5,
            base: "scratch".into(),
        })
        .unwrap();
    let hold = store.exclusive().unwrap();
    assert_eq!(store.prunable(&hold), [store.blob(other)]);
}

#[test]
fn a_new_run_is_never_taken_for_an_abandoned_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path().to_owned())).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                drop(store.abandoned());
            }
        });
        let runs: Vec<_> = (0..300).map(|_| store.run_directory().unwrap()).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(runs.iter().all(|run| run.path().is_dir()));
    });
}
