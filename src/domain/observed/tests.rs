//! Pods and Jobs as the API server shows them, and what is read from them.

use serde_json::{Value, json};

use super::*;

fn job() -> Job {
    serde_json::from_value(json!({
        "metadata": {"name": "app-build-0123abcd-0", "uid": "job-uid", "labels": {STAGE_LABEL: "build"},
            "annotations": {KEY_ANNOTATION: "0123abcd", ATTEMPT_ANNOTATION: "0"}}
    }))
    .unwrap()
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job-uid", "controller": true}]},
        "status": status
    }))
    .unwrap()
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn state(status: Value) -> JobState {
    job_fact(&job(), &[pod(status)], &[]).unwrap().state
}

fn terminated(code: i32, reason: &str, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}})
}

fn reason_of(state: &JobState) -> (Reason, bool) {
    match state {
        JobState::Waiting { reason, .. } => (*reason, true),
        JobState::Failed(failure) => (failure.reason, failure.transient),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_agents_message_counts_before_the_pod_has_ended() {
    let message = json!({"artifact": crate::domain::value::Digest::of(b"a"), "cached": true}).to_string();
    let state = state(json!({"phase": "Running", "containerStatuses": [
        container("sidecar", json!({"running": {}})), container("agent", terminated(0, "Completed", &message)),
        container("build", json!({"running": {}}))]}));
    assert!(matches!(state, JobState::Done(message) if message.cached));
}

#[test]
fn a_stage_takes_from_its_pods_start_to_its_agents_end() {
    let pod = pod(json!({"phase": "Running", "startTime": "2025-12-31T23:59:58Z",
        "containerStatuses": [container("agent", terminated(0, "Completed", ""))]}));
    let fact = job_fact(&job(), &[pod], &[]).unwrap();
    let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
    assert_eq!(seconds(fact.finished).zip(seconds(fact.started)).map(|(end, start)| end - start), Some(2));
}

#[test]
fn a_failed_step_has_its_code_and_last_lines() {
    let message = json!({"failure": {"reason": "StepFailed", "message": "m", "exitCode": 3}}).to_string();
    let state = state(json!({"phase": "Failed", "containerStatuses": [
        container("agent", terminated(1, "Error", &message)), container("build", terminated(3, "Error", "last line"))]}));
    let JobState::Failed(failure) = state else { panic!() };
    assert_eq!((failure.reason, failure.exit_code), (Reason::StageFailed, Some(3)));
    assert_eq!(failure.log_tail.as_deref(), Some("last line"));
    assert!(!failure.transient);
}

#[test]
fn the_verdict_waits_for_the_build_containers_last_words() {
    let message = json!({"failure": {"reason": "StepFailed", "message": "m", "exitCode": 3}}).to_string();
    let state = state(json!({"phase": "Running", "containerStatuses": [
        container("agent", terminated(1, "Error", &message)), container("build", json!({"running": {}}))]}));
    assert_eq!(state, JobState::Running);
}

#[test]
fn a_dead_agent_is_not_waited_for() {
    let state = state(json!({"phase": "Running", "containerStatuses": [
        container("agent", terminated(137, "OOMKilled", "")), container("build", json!({"running": {}}))]}));
    assert_eq!(reason_of(&state), (Reason::BuildInterrupted, true));
}

#[test]
fn an_agent_whose_build_container_has_ended_is_told_from_one_that_waits_for_it() {
    let both = |build: Value| {
        state(json!({"phase": "Running", "containerStatuses": [
            container("agent", json!({"running": {}})), container("build", build)]}))
    };
    let JobState::Orphaned(failure) = both(terminated(1, "Error", "unable to reach the agent")) else { panic!() };
    assert_eq!((failure.reason, failure.transient), (Reason::BuildInterrupted, true));
    assert_eq!(failure.at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(failure.log_tail.as_deref(), Some("unable to reach the agent"));
    assert_eq!(both(json!({"running": {}})), JobState::Running);
}

#[test]
fn endings_and_waits_have_stable_reasons() {
    let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "words"}});
    let running = || container("agent", json!({"running": {}}));
    let cases = [
        (json!({"phase": "Failed", "reason": "DeadlineExceeded"}), (Reason::Timeout, false)),
        (json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}), (Reason::BuildInterrupted, true)),
        (
            json!({"phase": "Failed", "containerStatuses": [
                container("agent", terminated(1, "Error", "")), container("build", terminated(137, "OOMKilled", ""))]}),
            (Reason::OutOfMemory, false),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [
                container("agent", terminated(137, "Error", "")), container("build", terminated(1, "Error", ""))]}),
            (Reason::BuildInterrupted, true),
        ),
        (json!({"phase": "Failed"}), (Reason::BuildInterrupted, true)),
        (
            json!({"phase": "Pending", "containerStatuses": [running(), container("build", waiting("ImagePullBackOff"))]}),
            (Reason::ImagePullFailed, true),
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [running(), container("build", waiting("CreateContainerConfigError"))]}),
            (Reason::ReferenceNotFound, true),
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [running(), container("build", terminated(128, "StartError", "exec"))]}),
            (Reason::PodRejected, false),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [
                container("agent", terminated(1, "Error", r#"{"failure": {"reason": "SourceInvalid", "message": "m"}}"#)),
                container("build", terminated(128, "StartError", "no /etc/passwd"))]}),
            (Reason::SourceInvalid, false),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [
                container("agent", terminated(1, "Error", r#"{"failure": {"reason": "BuildInterrupted", "message": "m"}}"#)),
                container("build", terminated(128, "StartError", "exec"))]}),
            (Reason::BuildInterrupted, true),
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]}),
            (Reason::Unschedulable, true),
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: persistentvolumeclaim \"x\" not found. not found"}]}),
            (Reason::ReferenceNotFound, true),
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [container("build", waiting("ContainerCreating"))]}),
            (Reason::Building, true),
        ),
    ];
    for (status, expected) in cases {
        assert_eq!(reason_of(&state(status.clone())), expected, "{status}");
    }
}

#[test]
fn refusals_of_the_pod_come_as_events_of_the_job() {
    for (message, expected) in [
        (r#"pods "x" is forbidden: exceeded quota: q, requested: pods=1"#, Reason::QuotaExceeded),
        (r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": ..."#, Reason::PodSecurityViolated),
        (r#"pods "x" is forbidden: maximum memory usage per Container is 1Gi"#, Reason::LimitRangeViolated),
        (
            r#"pods "x" is forbidden: error looking up service account ns/y: serviceaccount "y" not found"#,
            Reason::ReferenceNotFound,
        ),
        (
            r#"Pod "x" is invalid: spec.containers[1].resources.requests: Invalid value: "128Mi": must be less than or equal to memory limit of 16Mi"#,
            Reason::LimitRangeViolated,
        ),
        ("something else", Reason::PodRejected),
    ] {
        let event: Event = serde_json::from_value(
            json!({"metadata": {}, "involvedObject": {}, "reason": "FailedCreate", "message": message}),
        )
        .unwrap();
        let fact = job_fact(&job(), &[], &[event]).unwrap();
        assert_eq!(reason_of(&fact.state).0, expected, "{message}");
    }
}

#[test]
fn a_foreign_pod_is_not_believed() {
    let mut foreign = pod(json!({"phase": "Failed", "reason": "DeadlineExceeded"}));
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    let fact = job_fact(&job(), &[foreign], &[]).unwrap();
    assert!(matches!(fact.state, JobState::Waiting { reason: Reason::Building, .. }));
}

#[test]
fn a_vanished_pod_of_a_finished_job_is_an_interruption() {
    let mut job = job();
    job.status = serde_json::from_value(json!({"conditions": [{"type": "Complete", "status": "True"}]})).unwrap();
    assert_eq!(reason_of(&job_fact(&job, &[], &[]).unwrap().state), (Reason::BuildInterrupted, true));
}
