//! Caches between agent and wrapper: what the next build finds, and that nothing which goes wrong with one reaches the stage.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use minimalimage::domain::{
    recipe::{Owner, RunMount, Step},
    task::StageTask,
    value::Digest,
};

use crate::{
    sources,
    support::{Memory, Outcome, Pod, mounting, output, shell, task},
};

const FILL: &str = "echo old >/c/deep/kept; touch -d @1000000000.5 /c/deep/kept";

/// Runs `line` with the cache at `path` of the container.
fn with_cache(pod: &Pod, path: &str, volume: bool, line: &str) -> Step {
    let mount = RunMount::Cache { path: path.parse().unwrap(), index: 0, volume, mode: 0o750, owner: Owner::default() };
    let line = line.replace("/c", pod.path("root").join(path.trim_start_matches('/')).to_str().unwrap());
    mounting(mount, &line)
}

/// A stage that gives all of its container, with these steps.
fn stage(steps: Vec<Step>) -> StageTask {
    let mut task = task(steps, vec![output("/", "/all/")]);
    task.caches = vec![task.recipe.exact_key(None)];
    task
}

async fn built(pod: &Pod, memory: &Memory, steps: Vec<Step>) -> Outcome {
    let outcome = pod.run(&stage(steps), memory).await;
    assert_eq!(outcome.message.failure, None, "{outcome:?}");
    outcome
}

/// The repository behind a build that has filled the cache.
async fn filled() -> Memory {
    let (pod, memory) = (Pod::new(), sources());
    let steps = vec![
        with_cache(&pod, "/c", false, &format!("mkdir /c/deep; {FILL}")),
        // Another place, the same cache.
        with_cache(&pod, "/var/other", false, "cat /c/deep/kept; ln -s kept /c/deep/link"),
    ];
    let outcome = built(&pod, &memory, steps).await;
    let sent = outcome.message.caches.unwrap();
    assert_eq!(sent.numbers, [0]);
    let artifact = memory.artifact(outcome.message.artifact.unwrap());
    let files = memory.files(&artifact.layers[0]);
    let names: Vec<_> = files.iter().map(|(path, ..)| path.trim_end_matches('/')).collect();
    assert!(!names.iter().any(|name| name.contains("deep") || name.contains("caches")), "{names:?}");
    let cached = memory.artifact(sent.artifact).layers.into_iter().next();
    Memory { cached, ..memory }
}

#[tokio::test]
async fn the_next_build_finds_what_the_last_one_left_with_its_times() {
    let memory = filled().await;
    let pod = Pod::new();
    let look = "test $(stat -c %.1Y /c/deep/kept) = 1000000000.5; cat /c/deep/link >out; stat -c %a /c >>out";
    let outcome = built(&pod, &memory, vec![with_cache(&pod, "/c", false, look)]).await;
    assert_eq!(std::fs::read_to_string(pod.path("root/workspace/out")).unwrap(), "old\n750\n");
    assert!(outcome.log.contains("/c comes with 4B"), "{}", outcome.log);
    // Nothing new: nothing is sent.
    assert_eq!(outcome.message.caches, None);
}

#[tokio::test]
async fn a_cache_is_sent_again_when_enough_is_new() {
    let memory = filled().await;
    for (bytes, sent) in [(0, false), (100, true)] {
        let pod = Pod::new();
        let line = format!("head -c {bytes} /dev/zero >/c/more");
        let outcome = built(&pod, &memory, vec![with_cache(&pod, "/c", false, &line)]).await;
        assert_eq!(outcome.message.caches.is_some(), sent, "{bytes}");
    }
}

#[tokio::test]
async fn a_volume_is_filled_where_it_is_and_sent_from_there() {
    let memory = filled().await;
    let pod = Pod::new();
    std::fs::create_dir(pod.path("root/volume")).unwrap();
    let steps = vec![
        with_cache(&pod, "/volume", true, "cat /c/deep/kept; echo more words than before >/c/more"),
        with_cache(&pod, "/volume", true, "cat /c/more"),
    ];
    let outcome = built(&pod, &memory, steps).await;
    let sent = memory.artifact(outcome.message.caches.unwrap().artifact);
    let files = memory.files(&sent.layers[0]);
    assert!(files.iter().any(|(path, ..)| path == "deep/kept") && files.iter().any(|(path, ..)| path == "more"));
}

#[tokio::test]
async fn a_build_without_cache_begins_with_an_empty_one() {
    let memory = filled().await;
    let pod = Pod::new();
    let mut task = stage(vec![with_cache(&pod, "/c", false, "test -z \"$(ls /c)\"")]);
    task.no_cache = true;
    let outcome = pod.run(&task, &memory).await;
    assert_eq!(outcome.message.failure, None, "{outcome:?}");
}

#[tokio::test]
async fn a_stage_that_fails_sends_nothing() {
    let pod = Pod::new();
    let steps = vec![with_cache(&pod, "/c", false, &format!("mkdir /c/deep; {FILL}")), shell("exit 3")];
    let outcome = pod.run(&stage(steps), &sources()).await;
    assert_eq!((outcome.wrapper_code, outcome.message.caches), (3, None));
}

#[tokio::test]
async fn a_cache_that_is_broken_too_large_or_cannot_be_kept_costs_itself_alone() {
    let broken = filled().await;
    let layer = broken.cached.clone().unwrap();
    for bytes in [b"no gzip".to_vec(), Vec::new()] {
        broken.blobs.lock().unwrap().insert(layer.digest, bytes.into());
        let pod = Pod::new();
        let outcome = built(&pod, &broken, vec![with_cache(&pod, "/c", false, "test -z \"$(ls /c)\"")]).await;
        assert!(outcome.log.contains("the cache /c is not kept"), "{}", outcome.log);
    }
    // Not what the record says, though it can be unpacked.
    let mut other = filled().await;
    other.cached.as_mut().unwrap().diff_id = Digest::of(b"other");
    let pod = Pod::new();
    built(&pod, &other, vec![with_cache(&pod, "/c", false, "test -z \"$(ls /c)\"")]).await;

    for (line, said) in [("truncate -s 3G /c/large", "2.00GB is the most"), ("mkfifo /c/pipe", "a device or a FIFO")] {
        let pod = Pod::new();
        let outcome = built(&pod, &sources(), vec![with_cache(&pod, "/c", false, line)]).await;
        assert_eq!(outcome.message.caches, None, "{line}");
        assert!(outcome.log.contains(said), "{}", outcome.log);
    }
}
