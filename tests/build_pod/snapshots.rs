//! Snapshots between agent and wrapper: what is kept, and that nothing which goes wrong with one reaches the stage.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use std::{sync::atomic::Ordering, time::Duration};

use minimalimage::{
    domain::{
        recipe::{RunMount, SecretFile, Step},
        snapshot::SnapshotTask,
        task::StageTask,
        wire::Frame,
    },
    shell::socket::Channel,
};

use crate::{
    copy_all, sources,
    support::{Memory, Pod, mounting, output, shell, task},
};

/// A stage that can be cut before its third step.
fn cut(first: Step) -> StageTask {
    let steps = vec![first, shell("echo kept >kept; mkdir -p /tmp"), copy_all(), shell("cat kept main.txt >out")];
    let snapshots = SnapshotTask { cuts: vec![2], always: true, ..SnapshotTask::default() };
    StageTask { snapshots, ..task(steps, vec![output("/workspace/out", "/out")]) }
}

fn with_secret() -> Step {
    let path = "/run/secrets/token".parse().unwrap();
    let file = Some(SecretFile { path, mode: 0o400, owner: minimalimage::domain::recipe::Owner::default() });
    let secret = RunMount::Secret { variable: "TOKEN".into(), file, env: None };
    mounting(secret, "true")
}

#[tokio::test]
async fn a_snapshot_holds_what_the_steps_before_its_cut_changed_and_no_secret() {
    let memory = sources();
    let outcome = Pod::new().run(&cut(with_secret()), &memory).await;
    assert_eq!(outcome.message.failure, None, "{outcome:?}");
    let made = outcome.message.snapshots.unwrap();
    assert_eq!(made.numbers, [2]);
    let files = memory.files(&memory.artifact(made.artifact).layers[0]);
    let names: Vec<_> = files.iter().map(|(path, ..)| path.trim_end_matches('/')).collect();
    assert!(names.contains(&"workspace/kept") && !names.contains(&"workspace/main.txt"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("token")), "{names:?}");
    assert!(!files.iter().any(|(.., content)| content.contains("s3cret-token")));
}

#[tokio::test]
async fn steps_that_a_snapshot_has_do_not_run() {
    let mut task = cut(shell("exit 7"));
    task.snapshots.start = 2;
    let pod = Pod::new();
    std::fs::create_dir(pod.path("root/workspace")).unwrap();
    std::fs::write(pod.path("root/workspace/kept"), "from the snapshot\n").unwrap();
    let memory = Memory { start: 2, ..sources() };
    let outcome = pod.run(&task, &memory).await;
    assert_eq!((&outcome.message.failure, &outcome.message.snapshots), (&None, &None), "{outcome:?}");
    let artifact = memory.artifact(outcome.message.artifact.unwrap());
    assert_eq!(memory.files(&artifact.layers[0])[0].3, "from the snapshot\nhello\n");
}

#[tokio::test]
async fn a_failing_stage_keeps_its_snapshot_all_the_same() {
    let mut task = cut(shell("true"));
    task.recipe.steps.push(shell("exit 3"));
    let outcome = Pod::new().run(&task, &sources()).await;
    assert_eq!((outcome.wrapper_code, outcome.message.snapshots.map(|made| made.numbers)), (3, Some(vec![2])));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_kept_costs_itself_alone() {
    let memory = sources();
    memory.faults.store(1, Ordering::SeqCst);
    let outcome = Pod::new().run(&cut(shell("head -c 3000000 /dev/zero >zeros")), &memory).await;
    assert_eq!((&outcome.message.failure, outcome.message.snapshots), (&None, None), "{:?}", outcome.log);
    assert!(outcome.message.artifact.is_some());
    let memory = sources();
    let outcome = Pod::new().run(&cut(shell("mkfifo pipe")), &memory).await;
    assert_eq!((&outcome.message.failure, outcome.message.snapshots), (&None, None));
    assert!(outcome.log.contains("/workspace/pipe is a device or a FIFO"), "{}", outcome.log);
}

#[tokio::test]
async fn what_lies_on_a_snapshot_that_is_missing_is_not_kept_either() {
    let zeros = |name: &str| shell(&format!("head -c 3000000 /dev/urandom >{name}"));
    let steps = vec![zeros("one"), copy_all(), zeros("two"), copy_all(), shell("cat main.txt >out")];
    for (faults, kept) in [(0, Some(vec![1, 3])), (1, None)] {
        let memory = sources();
        memory.faults.store(faults, Ordering::SeqCst);
        let snapshots = SnapshotTask { cuts: vec![1, 3], always: true, ..SnapshotTask::default() };
        let task = StageTask { snapshots, ..task(steps.clone(), vec![output("/workspace/out", "/out")]) };
        let outcome = Pod::new().run(&task, &memory).await;
        assert_eq!(outcome.message.failure, None, "{outcome:?}");
        assert_eq!(outcome.message.snapshots.map(|sent| sent.numbers), kept);
    }
}

#[tokio::test]
async fn a_snapshot_that_comes_twice_or_late_ends_the_stage() {
    let copies = |cuts: Vec<usize>, frames: Vec<Frame>| async move {
        let pod = Pod::new();
        let socket = pod.agent_settings().socket;
        let wrapper = tokio::task::spawn_blocking(move || {
            let mut channel = Channel::connect(&socket, Duration::from_secs(10), || false).unwrap().unwrap();
            channel.receive().unwrap();
            for frame in frames {
                // The agent may have hung up.
                let _ = channel.send(&frame);
            }
            while channel.receive().is_ok() {}
        });
        let mut task = cut(shell("true"));
        task.snapshots.cuts = cuts;
        let (_, message) = pod.agent(&task, &sources()).await;
        wrapper.await.unwrap();
        message.failure.unwrap().message
    };
    let archive = || vec![Frame::Snapshot(2), Frame::Data(vec![0; 1024]), Frame::DataEnd];
    let twice = copies(vec![2], [archive(), archive()].concat()).await;
    let late = copies(vec![2], [vec![Frame::Want(2)], archive()].concat()).await;
    for said in [twice, late] {
        assert!(said.contains("an archive that has come already"), "{said}");
    }
}

#[tokio::test]
async fn hostile_snapshots_are_never_kept() {
    let header = |kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for (what, bytes) in [
        ("a device", [header(tar::EntryType::Char, 0), vec![0; 1024]].concat()),
        ("an endless file", header(tar::EntryType::Regular, 1 << 62)),
        ("an archive that ends early", header(tar::EntryType::Regular, 10)),
        ("no archive", vec![7; 512]),
        ("something behind the end", [vec![0; 1024], vec![7; 512]].concat()),
    ] {
        let pod = Pod::new();
        let socket = pod.agent_settings().socket;
        let wrapper = tokio::task::spawn_blocking(move || {
            let mut channel = Channel::connect(&socket, Duration::from_secs(10), || false).unwrap().unwrap();
            channel.receive().unwrap();
            for frame in [Frame::Snapshot(2), Frame::Data(bytes), Frame::DataEnd, Frame::Done] {
                channel.send(&frame).unwrap();
            }
            assert_eq!(channel.receive().unwrap(), Frame::End);
        });
        let mut task = cut(shell("true"));
        task.recipe.outputs.clear();
        let (code, message) = pod.agent(&task, &sources()).await;
        wrapper.await.unwrap();
        assert_eq!((code, message.snapshots), (0, None), "{what}");
    }
}
