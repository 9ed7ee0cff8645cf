//! One build Pod for real: the agent in this process, the wrapper in another, a socket between them, a shell as builder.

mod caches;
mod snapshots;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::atomic::Ordering,
};

use minimalimage::{
    domain::{
        recipe::Step,
        task::{AgentMessage, FailureReason, StageTask},
        value::Digest,
        wire::{Frame, WrapperFailure},
    },
    shell::socket::Channel,
};
use rustix::process::{Pid, Signal, kill_process};
use support::{Memory, Pod, against, item, output, shell, task};

/// Not a test of its own: the entry of the wrapper's process.
#[test]
fn wrapper_process() {
    support::be_the_wrapper();
}

/// Not a test of its own either.
#[test]
fn agent_process() {
    support::be_a_hanging_agent();
}

fn sources() -> Memory {
    Memory { source: vec![("main.txt", "hello\n"), ("lib/a.txt", "a\n")], ..Memory::default() }
}

fn copy_all() -> Step {
    Step::CopySource { items: vec![item(".", "/workspace/")], owner: None, transient: false, names: None }
}

#[tokio::test]
async fn a_stage_becomes_an_artifact_with_the_same_bytes_each_time() {
    let steps = vec![
        copy_all(),
        shell(
            "mkdir out; tr a-z A-Z < main.txt > out/upper; cp -r lib out/; ln out/upper out/hard; ln -s upper out/soft",
        ),
        shell("chmod 755 out/upper; echo \"$LITERAL $HOSTNAME ${KUBERNETES_PORT-none}\" > out/env; umask > out/umask"),
    ];
    let task = task(steps, vec![output("/workspace/out", "/app"), output("/workspace/main.txt", "/etc/")]);
    let mut digests = Vec::new();
    for _ in 0..2 {
        let memory = sources();
        let outcome = Pod::new().run(&task, &memory).await;
        assert_eq!((outcome.agent_code, outcome.wrapper_code, &outcome.message.failure), (0, 0, &None), "{outcome:?}");
        assert_eq!(outcome.message.source_time, Some(support::SOURCE_TIME));
        let artifact = memory.artifact(outcome.message.artifact.unwrap());
        let files = memory.files(&artifact.layers[0]);
        let file = |path: &str, mode, content: &str| (path.to_owned(), mode, 0, content.to_owned());
        let expected = [
            file("app/", 0o755, ""),
            file("app/env", 0o644, "from the recipe build none\n"),
            file("app/hard", 0o755, "HELLO\n"),
            file("app/lib/", 0o755, ""),
            file("app/lib/a.txt", 0o644, "a\n"),
            file("app/soft", 0o777, ""),
            file("app/umask", 0o644, "0022\n"),
            file("app/upper", 0o755, ""),
        ];
        assert_eq!(files, expected);
        assert_eq!(memory.files(&artifact.layers[1])[1], file("etc/main.txt", 0o644, "hello\n"));
        assert_eq!((artifact.outputs[0].file_count, artifact.outputs[0].size), (5, 6 + 27 + 2 + 5));
        digests.push((outcome.message.artifact, outcome.message.source, memory.keys.lock().unwrap().clone()));
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn the_key_follows_the_files_that_the_steps_see() {
    let task = task(
        vec![Step::CopySource { items: vec![item("lib", "/workspace/")], owner: None, transient: false, names: None }],
        vec![output("/workspace", "/w")],
    );
    let mut keys = Vec::new();
    for source in [
        vec![("lib/a", "1"), ("other", "1")],
        vec![("lib/a", "1"), ("other", "2"), ("unseen", "")],
        vec![("lib/a", "2")],
        vec![("lib/b", "1")],
    ] {
        let memory = Memory { source, known: Some(Digest::of(b"known")), ..Memory::default() };
        Pod::new().agent(&task, &memory).await;
        keys.extend(memory.keys.lock().unwrap().iter().copied());
    }
    assert_eq!(keys[0], keys[1], "what no step sees does not count");
    assert!(keys[0] != keys[2] && keys[0] != keys[3] && keys[2] != keys[3]);
}

#[tokio::test]
async fn a_known_key_ends_the_stage_before_its_first_step() {
    let task = task(vec![copy_all(), shell("touch ran")], vec![output("/workspace", "/w")]);
    let memory = Memory { known: Some(Digest::of(b"known")), ..sources() };
    let pod = Pod::new();
    // The wrapper may come before the agent looks, or after it has gone.
    for _ in 0..2 {
        let (code, message) = pod.agent(&task, &memory).await;
        assert_eq!((code, message.cached, message.artifact), (0, true, memory.known));
        let status = pod.wrapper().wait().unwrap();
        assert_eq!(status.code(), Some(0));
    }
    let outcome = Pod::new().run(&task, &memory).await;
    assert_eq!((outcome.agent_code, outcome.wrapper_code, outcome.message.cached), (0, 0, true));
    let fresh = Pod::new();
    let outcome = fresh.run(&StageTask { no_cache: true, ..task }, &memory).await;
    assert!(!outcome.message.cached && fresh.path("root/workspace/ran").exists());
}

#[tokio::test]
async fn an_artifact_of_one_stage_is_unpacked_in_the_next() {
    let memory = sources();
    let first = task(vec![copy_all()], vec![output("/workspace/lib", "/opt/deps/")]);
    let outcome = Pod::new().run(&first, &memory).await;
    let artifact = memory.artifact(outcome.message.artifact.unwrap());
    let mut second = task(
        vec![
            Step::CopyArtifact { input: 0, owner: None, transient: false, names: None },
            shell("cat ../opt/deps/a.txt > result"),
        ],
        vec![output("/workspace/result", "/result")],
    );
    second.recipe.inputs = vec![artifact.layers[0].diff_id];
    second.inputs = artifact.layers.clone();
    second.source = None;
    let outcome = Pod::new().run(&second, &memory).await;
    assert_eq!((outcome.wrapper_code, outcome.message.source), (0, None), "{outcome:?}");
    let artifact = memory.artifact(outcome.message.artifact.unwrap());
    assert_eq!(memory.files(&artifact.layers[0])[0].3, "a\n");

    // Another content under the same digest is noticed.
    second.inputs[0].diff_id = Digest::of(b"else");
    let outcome = Pod::new().run(&second, &memory).await;
    assert_eq!(outcome.message.failure.unwrap().reason, FailureReason::RegistryUnavailable);
}

#[tokio::test]
async fn a_failing_step_gives_its_code_and_its_last_words_without_secrets() {
    let steps = vec![shell("echo one; echo \"token is $TOKEN\" >&2; exit 42"), shell("touch never")];
    let pod = Pod::new();
    let outcome = pod.run(&task(steps, vec![]), &sources()).await;
    assert_eq!((outcome.agent_code, outcome.wrapper_code), (1, 42));
    let failure = outcome.message.failure.unwrap();
    assert_eq!((failure.reason, failure.exit_code), (FailureReason::StepFailed, Some(42)));
    assert!(outcome.log.contains("token is s3cret-token"), "the log itself is untouched: {}", outcome.log);
    assert!(outcome.last_words.contains("token is ***") && !outcome.last_words.contains("s3cret"));
    assert!(!pod.path("root/workspace/never").exists());
}

#[tokio::test]
async fn a_step_killed_by_a_signal_and_one_that_is_not_there_have_a_shells_codes() {
    let absent = Step::Run {
        command: vec!["/no/such/tool".into()],
        env: std::collections::BTreeMap::default(),
        working_dir: "/".parse().unwrap(),
        user: None,
        mounts: Vec::new(),
        offline: false,
    };
    for (step, code) in [(shell("kill -9 $$"), 137), (absent, 127)] {
        let outcome = Pod::new().run(&task(vec![step], vec![]), &sources()).await;
        assert_eq!((outcome.wrapper_code, outcome.message.failure.unwrap().exit_code), (code, Some(code)));
    }
}

#[tokio::test]
async fn what_steps_leave_running_is_killed_before_files_are_collected() {
    // Detached in every way that a shell knows; each would write into the output for ever.
    let line = "mkdir out; for i in 1 2 3; do (setsid sh -c 'echo $$ >> pids; while :; do echo x >> out/grows; done' &) ; done; \
                while [ \"$(wc -l < pids 2>/dev/null || echo 0)\" -lt 3 ]; do :; done; cp pids ../pids";
    let pod = Pod::new();
    let outcome = pod.run(&task(vec![shell(line)], vec![output("/workspace/out", "/o")]), &sources()).await;
    assert_eq!((outcome.wrapper_code, &outcome.message.failure), (0, &None), "{outcome:?}");
    for id in fs::read_to_string(pod.path("root/pids")).unwrap().lines() {
        assert!(!std::path::Path::new("/proc").join(id).exists(), "{id} still runs");
    }
}

#[tokio::test]
async fn tools_find_a_home_that_they_can_write() {
    let line = "mkdir -p \"$HOME/.m2\" && touch \"$HOME/.m2/settings.xml\"";
    let uid = rustix::process::geteuid().as_raw();
    let entry = |home: &str| Some(format!("x:x:{uid}:0::{home}:/bin/sh\n"));
    // Without an entry, with a good one, and with one that leads to a place where no directory can be.
    let cases = [(None, "tmp/home"), (entry("/home/x"), "home/x"), (entry("/etc/passwd/none"), "tmp/home")];
    for (users, home) in cases {
        let pod = Pod::new();
        if let Some(users) = &users {
            fs::create_dir(pod.path("root/etc")).unwrap();
            fs::write(pod.path("root/etc/passwd"), users).unwrap();
        }
        let outcome = pod.run(&task(vec![shell(line)], vec![]), &sources()).await;
        assert_eq!(outcome.wrapper_code, 0, "{outcome:?}");
        assert!(pod.path("root").join(home).join(".m2/settings.xml").exists(), "{users:?}");
    }
}

#[tokio::test]
async fn steps_trust_the_operators_certificates_beside_the_images_own() {
    let pod = Pod::new();
    fs::create_dir_all(pod.path("root/etc/ssl/certs")).unwrap();
    fs::write(pod.path("root/etc/ssl/certs/ca-certificates.crt"), "IMAGE").unwrap();
    let steps = vec![shell("cat \"$SSL_CERT_FILE\" > certificates")];
    let mut task = task(steps, vec![output("/workspace/certificates", "/c")]);
    task.inject_ca = true;
    task.network.ca_certificates = Some("OPERATOR".into());
    let memory = sources();
    let outcome = pod.run(&task, &memory).await;
    let artifact = memory.artifact(outcome.message.artifact.unwrap());
    assert_eq!(memory.files(&artifact.layers[0])[0].3, "IMAGE\nOPERATOR");
}

#[tokio::test]
async fn a_wrapper_killed_from_within_is_an_interrupted_build() {
    let outcome = Pod::new().run(&task(vec![shell("kill -9 $PPID")], vec![]), &sources()).await;
    assert_eq!((outcome.agent_code, outcome.wrapper_code), (1, 137));
    assert_eq!(outcome.message.failure.unwrap().reason, FailureReason::BuildInterrupted);
}

#[tokio::test]
async fn a_missing_artifact_is_named_with_what_is_near() {
    let steps = vec![shell("mkdir target; touch target/app-1.0.jar")];
    let outcome = Pod::new().run(&task(steps, vec![output("/workspace/target/app.jar", "/app.jar")]), &sources()).await;
    let failure = outcome.message.failure.unwrap();
    assert_eq!((outcome.wrapper_code, failure.reason), (1, FailureReason::ArtifactPathMissing));
    assert!(failure.message.contains("/workspace/target/app.jar") && failure.message.contains("app-1.0.jar"));
}

#[tokio::test]
async fn a_lost_upload_is_begun_anew_and_too_many_are_a_failure() {
    let steps = vec![shell("head -c 3000000 /dev/zero > zeros; echo x > x")];
    let task = task(steps, vec![output("/workspace", "/w"), output("/workspace/x", "/x")]);
    let whole = Pod::new().run(&task, &sources()).await.message.artifact;
    let memory = sources();
    memory.faults.store(2, Ordering::SeqCst);
    let outcome = Pod::new().run(&task, &memory).await;
    assert_eq!((outcome.wrapper_code, outcome.message.artifact), (0, whole), "{:?}", outcome.message);
    memory.faults.store(3, Ordering::SeqCst);
    let outcome = Pod::new().run(&task, &memory).await;
    assert_eq!(outcome.message.failure.unwrap().reason, FailureReason::RegistryUnavailable);
}

#[tokio::test]
async fn the_stage_source_needs_no_build_container() {
    let mut task = task(vec![], vec![output("lib", "/srv/")]);
    task.recipe.image = None;
    let memory = sources();
    let (code, message) = Pod::new().agent(&task, &memory).await;
    assert_eq!(code, 0, "{message:?}");
    let names: Vec<_> = memory.files(&memory.artifact(message.artifact.unwrap()).layers[0]);
    let names: Vec<_> = names.into_iter().map(|(path, mode, ..)| (path, mode)).collect();
    assert_eq!(names, [("srv/".to_owned(), 0o755), ("srv/a.txt".to_owned(), 0o644)]);
    task.recipe.outputs = vec![output("absent", "/srv/")];
    let (code, message) = Pod::new().agent(&task, &memory).await;
    assert_eq!((code, message.failure.unwrap().reason), (1, FailureReason::SourceInvalid));
}

#[tokio::test]
async fn a_second_connection_disturbs_nothing() {
    let pod = Pod::new();
    let socket = pod.agent_settings().socket;
    let wrapper = tokio::task::spawn_blocking(move || {
        let limit = std::time::Duration::from_secs(10);
        let mut first = Channel::connect(&socket, limit, || false).unwrap().unwrap();
        assert!(matches!(first.receive().unwrap(), Frame::Setup(_)));
        if let Ok(second) = UnixStream::connect(&socket) {
            assert!(Channel::new(second).receive().is_err());
        }
        first.send(&Frame::Done).unwrap();
        assert_eq!(first.receive().unwrap(), Frame::End);
    });
    let (code, message) = pod.agent(&task(vec![], vec![]), &sources()).await;
    wrapper.await.unwrap();
    assert_eq!((code, message.failure), (0, None));
}

#[tokio::test]
async fn a_wrapper_that_breaks_the_protocol_fails_the_stage() {
    let step = WrapperFailure::Step { step: usize::MAX, exit_code: -5 };
    for (frame, reason) in [
        (Frame::SendOutput(0), FailureReason::ArtifactInvalid),
        (Frame::Want(7), FailureReason::ArtifactInvalid),
        (Frame::Data(vec![1]), FailureReason::ArtifactInvalid),
        (Frame::End, FailureReason::ArtifactInvalid),
        (Frame::Failed(step), FailureReason::StepFailed),
    ] {
        let pod = Pod::new();
        let socket = pod.agent_settings().socket;
        let sent = frame.clone();
        let wrapper = tokio::task::spawn_blocking(move || {
            let mut channel = Channel::connect(&socket, std::time::Duration::from_secs(10), || false).unwrap().unwrap();
            channel.receive().unwrap();
            channel.send(&sent).unwrap();
            assert!(channel.receive().is_err(), "the agent hangs up");
        });
        let (code, message) = pod.agent(&task(vec![shell("true")], vec![]), &sources()).await;
        wrapper.await.unwrap();
        assert_eq!((code, message.failure.unwrap().reason), (1, reason), "{frame:?}");
    }
}

#[tokio::test]
async fn a_terminated_wrapper_passes_the_signal_on_and_starts_no_other_step() {
    let steps = vec![
        shell("trap 'echo caught > caught; exit 0' TERM; echo re''ady; while :; do :; done"),
        shell("touch never"),
    ];
    let pod = Pod::new();
    let mut wrapper = pod.wrapper();
    let id = Pid::from_child(&wrapper);
    let log = BufReader::new(wrapper.stdout.take().unwrap());
    let signaller = tokio::task::spawn_blocking(move || {
        let ready = log.lines().any(|line| line.unwrap().contains("ready"));
        assert!(ready);
        kill_process(id, Signal::TERM).unwrap();
    });
    let (code, message) = pod.agent(&task(steps, vec![]), &sources()).await;
    signaller.await.unwrap();
    assert_eq!((code, message.failure.unwrap().exit_code), (1, Some(143)));
    assert_eq!(wrapper.wait().unwrap().code(), Some(143));
    assert!(pod.path("root/workspace/caught").exists() && !pod.path("root/workspace/never").exists());
}

#[test]
fn a_terminated_agent_says_so_at_once() {
    let pod = Pod::new();
    let mut agent = pod.hanging_agent();
    let log = BufReader::new(agent.stdout.take().unwrap());
    assert!(log.lines().any(|line| line.unwrap().contains("fetching")));
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(1));
    let message: AgentMessage = serde_json::from_slice(&fs::read(pod.path("agent.log")).unwrap()).unwrap();
    assert_eq!(message.failure.unwrap().reason, FailureReason::BuildInterrupted);
}

#[tokio::test]
async fn hostile_and_lost_outputs_never_become_artifacts() {
    let task = task(vec![], vec![output("/workspace", "/w")]);
    let garbage = against(&task, |channel| {
        let mut writer = channel.data_writer();
        writer.write_all(&[7; 4096]).unwrap();
        // The agent may have hung up already.
        let _ = writer.finish();
    });
    assert_eq!(garbage.await, FailureReason::ArtifactInvalid);
    assert_eq!(against(&task, |_| {}).await, FailureReason::BuildInterrupted);
    let foreign = against(&task, |channel| channel.send(&Frame::Want(0)).unwrap());
    assert_eq!(foreign.await, FailureReason::ArtifactInvalid);
}

#[tokio::test]
async fn all_outputs_of_a_stage_share_one_limit() {
    let steps = vec![shell("head -c 50000 /dev/zero > a; head -c 50000 /dev/zero > b")];
    let mut task = task(steps, vec![output("/workspace/a", "/a"), output("/workspace/b", "/b")]);
    task.limits.artifact_bytes = 110_000;
    assert_eq!(Pod::new().run(&task, &sources()).await.message.failure, None);
    task.limits.artifact_bytes = 90_000;
    let failure = Pod::new().run(&task, &sources()).await.message.failure.unwrap();
    assert_eq!(failure.reason, FailureReason::ArtifactInvalid);
}
