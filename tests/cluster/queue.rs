//! Builds that wait for their turn, and for what only the node can do.

use minimalimage::api::v1alpha1::MinimalImage;
use serde_json::{Value, json};

use crate::{
    between,
    fixture::{GATE, World, builder, message},
    operator::Recipe,
};

fn spec(world: &World, name: &str, run: &str) -> Value {
    json!({
        "stages": [{"name": "build", "image": builder("c"), "run": run}],
        "image": {"copy": [{"from": "build", "source": "/workspace/out", "destination": "/out"}]},
        "destination": {"repository": world.repository(name)}
    })
}

#[tokio::test]
async fn a_queued_build_says_so_and_starts_when_the_one_before_it_ends_or_is_deleted() {
    let world = World::with_own_operator("queue").await;
    let recipe = Recipe::new(&world).await.flags(&["--max-builds-per-namespace", "1"]);
    let _operator = recipe.start();
    world.apply("first", spec(&world, "first", &format!("{GATE}; echo first > out"))).await;
    world.running("first").await;
    world.apply("second", spec(&world, "second", "echo second > out")).await;
    let queued = world.ended("second", "Queued").await;
    assert_eq!(message(&queued), "1 of 1 builds run in the namespace; 0 builds wait before this one");
    assert_eq!(world.jobs().await.len(), 1);
    assert!(world.open_gate("build").await);
    world.ready("first").await;
    world.ready("second").await;

    world.apply("endless", spec(&world, "endless", "sleep 300")).await;
    world.running("endless").await;
    world.apply("third", spec(&world, "third", "echo third > out")).await;
    world.ended("third", "Queued").await;
    world.api::<MinimalImage>().delete("endless", &kube::api::DeleteParams::default()).await.unwrap();
    world.ready("third").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_only_the_operator_can_pull_is_reported_with_the_nodes_words() {
    let world = World::with_own_operator("pull").await;
    let registry = between::registry_for_the_operator_alone().await;
    let recipe = Recipe::new(&world).await.registry(&registry);
    let _operator = recipe.start();
    let mut spec = spec(&world, "app", "echo x > out");
    spec["stages"][0]["image"] = json!(format!("{registry}/builders/c:1"));
    world.apply("app", spec).await;
    let status = world.ended("app", "ImagePullFailed").await;
    let message = message(&status);
    assert!(message.contains(&registry) && message.contains("stage build: build"), "{message}");
    let with_words = |image: &MinimalImage| {
        image.status.as_ref().is_some_and(|status| crate::fixture::message(status).contains("HTTP response to HTTPS"))
    };
    world.until("app", "the node's words", with_words).await;
}
