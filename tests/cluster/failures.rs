//! What goes wrong outside has a stable reason and a message that one can act on, and the last good image stays.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{LimitRange, Pod, ResourceQuota},
};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::fixture::{GATE, World, builder, file_in, is_stalled, message, setting};

fn spec(run: &str, repository: &str) -> Value {
    json!({
        "stages": [{"name": "build", "image": builder("c"), "run": run}],
        "image": {"copy": [{"from": "build", "source": "/workspace/out", "destination": "/out"}]},
        "destination": {"repository": repository}
    })
}

#[tokio::test]
async fn a_command_that_fails_stalls_with_its_words_and_a_correction_alone_helps() {
    let world = World::new("fails").await;
    let repository = world.repository("app");
    world.apply("app", spec("echo good > out", &repository)).await;
    let good = world.ready("app").await.image.unwrap();
    world.apply("app", spec("echo the last words; exit 3", &repository)).await;
    let status = world.ended("app", "StageFailed").await;
    assert!(is_stalled(&status));
    assert_eq!(status.stages[0].exit_code, Some(3));
    assert!(status.stages[0].log_tail.as_ref().unwrap().contains("the last words"), "{:?}", status.stages);
    assert!(message(&status).contains("stage build failed with exit code 3"), "{}", message(&status));
    assert_eq!(status.image.unwrap().digest, good.digest);
    // The Pod of the good build may still be on its way out.
    let of_failed = format!("job-name={}", status.stages[0].job_name.as_ref().unwrap());
    let pods = world.api::<Pod>().list(&ListParams::default().labels(&of_failed)).await.unwrap();
    assert_eq!(pods.items.len(), 1, "the failed Pod stays for its logs");
    assert_eq!(pods.items[0].metadata.deletion_timestamp, None);
    world.apply("app", spec("echo better > out", &repository)).await;
    assert_ne!(world.ready("app").await.image.unwrap().digest, good.digest);
}

#[tokio::test]
async fn an_artifact_that_is_not_there_is_named() {
    let world = World::new("missing").await;
    world.apply("app", spec("echo x > other", &world.repository("app"))).await;
    let status = world.ended("app", "ArtifactPathMissing").await;
    assert!(is_stalled(&status));
    assert!(message(&status).contains("/workspace/out"), "{}", message(&status));
}

#[tokio::test]
async fn a_builder_that_does_not_exist_is_named() {
    let world = World::new("nobuilder").await;
    let mut spec = spec("true", &world.repository("app"));
    let image = format!("{}/builders/nothing:1", setting("MINIMALIMAGE_REGISTRY"));
    spec["stages"][0]["image"] = json!(image);
    world.apply("app", spec).await;
    let status = world.ended("app", "ImageNotFound").await;
    assert!(is_stalled(&status));
    assert!(message(&status).contains(&image), "{}", message(&status));
}

#[tokio::test]
async fn a_corrected_password_alone_leads_to_ready() {
    let world = World::new("password").await;
    world.allow_secrets().await;
    world.registry_secret("push", "wrong").await;
    let repository = format!("{}/{}/app", setting("MINIMALIMAGE_REGISTRY_AUTH"), world.namespace);
    let mut spec = spec("echo x > out", &repository);
    spec["destination"]["secretRef"] = json!({"name": "push"});
    world.apply("app", spec).await;
    let status = world.ended("app", "RegistryAccessDenied").await;
    assert!(!is_stalled(&status));
    assert!(!serde_json::to_string(&status).unwrap().contains("wrong"));
    world.registry_secret("push", &setting("MINIMALIMAGE_REGISTRY_PASSWORD")).await;
    world.ready("app").await;
}

#[tokio::test]
async fn a_namespace_that_did_not_allow_its_secrets_is_told_how() {
    let world = World::new("nobinding").await;
    world.registry_secret("push", "any").await;
    let mut spec = spec("true", &world.repository("app"));
    spec["destination"]["secretRef"] = json!({"name": "push"});
    world.apply("app", spec).await;
    let status = world.ended("app", "SecretAccessDenied").await;
    let advice = format!("kubectl create rolebinding minimalimage-secrets --namespace {}", world.namespace);
    assert!(message(&status).contains(&advice), "{}", message(&status));
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let world = World::new("nosecret").await;
    world.allow_secrets().await;
    let mut spec = spec("true", &world.repository("app"));
    spec["destination"]["secretRef"] = json!({"name": "absent"});
    world.apply("app", spec).await;
    let status = world.ended("app", "ReferenceNotFound").await;
    assert!(message(&status).contains("Secret absent does not exist"), "{}", message(&status));
}

#[tokio::test]
async fn a_quota_that_refuses_the_pod_is_the_reason() {
    let world = World::new("quota").await;
    world.create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).await;
    world.apply("app", spec("echo x > out", &world.repository("app"))).await;
    let status = world.ended("app", "QuotaExceeded").await;
    assert!(message(&status).contains("exceeded quota: none"), "{}", message(&status));
    world.api::<ResourceQuota>().delete("none", &kube::api::DeleteParams::default()).await.unwrap();
    world.ready("app").await;
}

#[tokio::test]
async fn a_limit_range_that_refuses_the_pod_is_the_reason() {
    let world = World::new("limits").await;
    world
        .create::<LimitRange>(json!({"metadata": {"name": "small"},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "16Mi"}}]}}))
        .await;
    world.apply("app", spec("true", &world.repository("app"))).await;
    world.ended("app", "LimitRangeViolated").await;
}

#[tokio::test]
async fn a_namespace_that_refuses_baseline_is_the_reason() {
    let world = World::new("security").await;
    let mut spec = spec("true", &world.repository("app"));
    spec["podSecurity"] = json!("Baseline");
    world.apply("app", spec).await;
    let status = world.ended("app", "PodSecurityViolated").await;
    assert!(message(&status).contains("restricted"), "{}", message(&status));
}

#[tokio::test]
async fn a_stage_that_fits_no_node_is_the_reason() {
    let world = World::new("nonode").await;
    let mut spec = spec("true", &world.repository("app"));
    spec["stages"][0]["nodeSelector"] = json!({"nowhere": "true"});
    world.apply("app", spec).await;
    world.ended("app", "Unschedulable").await;
}

#[tokio::test]
async fn a_job_that_the_api_server_does_not_take_is_the_reason() {
    let world = World::new("nojob").await;
    let mut spec = spec("true", &world.repository("app"));
    spec["stages"][0]["resources"] = json!({"limits": {"memory": "lots"}});
    world.apply("app", spec).await;
    let status = world.ended("app", "PodRejected").await;
    assert!(message(&status).contains("quantities must match"), "{}", message(&status));
}

#[tokio::test]
async fn what_the_schema_can_say_is_refused_at_apply() {
    let world = World::new("schema").await;
    let repository = world.repository("app");
    for (pointer, value, expected) in [
        ("/destination/repository", json!(format!("{repository}:latest")), "tags belong in destination.tags"),
        ("/stages/0/name", json!("source"), "is reserved for the source"),
        ("/stages/0/command", json!(["x"]), "give either run"),
        (
            "/source",
            json!({"git": {"url": "https://x.example"}, "inline": {"files": [{"path": "a", "content": ""}]}}),
            "exactly one of git",
        ),
        ("/podSecurity", json!("Privileged"), "podSecurity"),
    ] {
        let mut spec = spec("true", &repository);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        let error = world.try_apply("app", spec).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

#[tokio::test]
async fn a_changed_spec_replaces_the_running_build_and_its_late_result_is_never_pushed() {
    let world = World::new("race").await;
    let repository = world.repository("app");
    world.apply("app", spec(&format!("{GATE}; echo old > out"), &repository)).await;
    world.running("app").await;
    world.apply("app", spec("echo new > out", &repository)).await;
    // The old stage now ends well, if it is there to hear of it.
    world.open_gate("build").await;
    let status = world.ready("app").await;
    assert_eq!(status.history.len(), 1, "the old build never ended");
    assert_eq!(file_in(&status.image.unwrap().reference, "out"), "new\n");
    world.none_left::<Job>().await;
}

#[tokio::test]
async fn deleting_the_resource_takes_its_pods_along() {
    let world = World::new("delete").await;
    world.apply("app", spec("sleep 300", &world.repository("app"))).await;
    world.running("app").await;
    let images = world.api::<minimalimage::api::v1alpha1::MinimalImage>();
    images.delete("app", &kube::api::DeleteParams::default()).await.unwrap();
    world.none_left::<Pod>().await;
}
