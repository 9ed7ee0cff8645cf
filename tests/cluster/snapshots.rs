//! Snapshots on the cluster: a node starts from them, and a build goes on without.

use serde_json::json;

use crate::{
    between,
    fixture::{Repository, World, builder, file_in, setting},
    operator::Recipe,
};

/// Two cuts, each behind a command that never leaves the same twice.
fn dockerfile() -> String {
    format!(
        "FROM {} AS build\nRUN cat /proc/sys/kernel/random/uuid >/first && chmod 4711 /first && rm -r /etc/alternatives\n\
         COPY lock /lock\nRUN cat /proc/sys/kernel/random/uuid >/second\n\
         COPY . /src\nRUN cat /first /second /lock /src/input >/seen && stat -c %a /first >>/seen; test ! -e /etc/alternatives\n\
         FROM scratch\nCOPY --from=build /seen /seen\n",
        builder("c")
    )
}

/// A resource whose source is in a repository; commits `lock` and `input`.
async fn world(test: &str) -> (World, Repository) {
    let world = World::with_security(test, "baseline").await;
    let repository = committed(test);
    world.apply("app", spec(&world, &repository)).await;
    (world, repository)
}

fn committed(test: &str) -> Repository {
    let repository = Repository::new(test);
    commit(&repository, "one", "source");
    repository
}

fn spec(world: &World, repository: &Repository) -> serde_json::Value {
    json!({
        "interval": "1h", "source": {"git": {"url": repository.url}},
        "dockerfile": {"snapshots": {"policy": "Always"}}, "destination": {"repository": world.repository("app")}
    })
}

fn commit(repository: &Repository, lock: &str, input: &str) {
    let [lock, input] = [lock, input].map(|text| format!("{text}\n"));
    repository.commit(&[("Dockerfile", &dockerfile()), ("lock", &lock), ("input", &input)]);
}

/// The lines of `/seen` in the image of a status.
fn seen(status: &minimalimage::api::v1alpha1::Status) -> Vec<String> {
    let text = file_in(&status.image.as_ref().unwrap().reference, "seen");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_ran_before_a_copy_does_not_run_again() {
    let (world, repository) = world("snapshots").await;
    let first = seen(&world.ready("app").await);
    assert_eq!(first[2..], ["one", "source", "4711"]);
    world.told("SnapshotKept", 2).await;

    commit(&repository, "one", "changed");
    let status = world.built_again("app", "1").await;
    let changed = seen(&status);
    assert_eq!((&changed[..2], &changed[3..]), (&first[..2], &["changed".to_owned(), "4711".to_owned()][..]));
    let snapshot = status.stages[0].snapshot.clone().unwrap();
    assert!(snapshot.starts_with(&format!("{}-cache@sha256:", world.repository("app"))), "{snapshot}");
    world.had_pods(2).await;

    // The agent finds that the newest snapshot is of another file; its place takes a Pod from the cut before.
    commit(&repository, "two", "changed");
    let other = seen(&world.built_again("app", "2").await);
    assert_eq!((&other[0], &other[2]), (&first[0], &"two".to_owned()));
    assert_ne!(other[1], first[1]);
    world.told("SnapshotKept", 3).await;
    world.had_pods(4).await;

    world.annotate("app", "minimalimage.dev/noCacheRequestedAt", "3").await;
    let forced = |image: &minimalimage::api::v1alpha1::MinimalImage| {
        let status = image.status.as_ref().unwrap();
        status.last_handled_no_cache_requested_at.is_some() && status.progress.is_none()
    };
    let forced = seen(&world.until("app", "a forced build", forced).await.status.unwrap());
    assert!(forced[0] != first[0] && forced[1] != other[1]);
}

#[tokio::test]
async fn a_snapshot_that_has_lost_a_layer_costs_no_pod() {
    let (world, repository) = world("snapshot-lost").await;
    let first = seen(&world.ready("app").await);
    world.told("SnapshotKept", 2).await;

    lose_last_layers(&world).await;
    commit(&repository, "one", "changed");
    let status = world.built_again("app", "1").await;
    assert_ne!(seen(&status)[0], first[0]);
    assert!(status.snapshot_failure.is_none() && status.stages[0].snapshot.is_none());
    world.had_pods(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_a_node_cannot_pull_is_done_without() {
    let world = World::with_security("snapshot-pull", "baseline").await.on_its_own();
    let repository = committed("snapshot-pull");
    let registry = between::registry_for_the_operator_alone().await;
    let recipe = Recipe::new(&world).await.registry(&registry);
    let _operator = recipe.start();
    let mut spec = spec(&world, &repository);
    spec["cache"] = json!({"repository": format!("{registry}/{}/cache", world.namespace)});
    world.apply("app", spec).await;
    let first = seen(&world.ready("app").await);
    world.told("SnapshotKept", 2).await;

    commit(&repository, "one", "changed");
    let status = world.built_again("app", "1").await;
    let after = seen(&status);
    assert!(after[0] != first[0] && after[3] == "changed", "{after:?}");
    assert!(status.snapshot_failure.unwrap().message.contains("builder image"));
    assert_eq!(status.stages[0].snapshot, None);
    world.told("SnapshotUnusable", 1).await;
}

/// Takes the layer of every snapshot out of the cache repository's registry, as a careless clean-up does.
async fn lose_last_layers(world: &World) {
    let repository = format!("{}-cache", world.repository("app"));
    let (host, path) = repository.split_once('/').unwrap();
    assert_eq!(host, setting("MINIMALIMAGE_REGISTRY"));
    let events = crate::fixture::kubectl(
        world,
        &["get", "events", "--field-selector=reason=SnapshotKept", "-o=jsonpath={.items[*].message}"],
    );
    let client = reqwest::Client::new();
    let mut lost = 0;
    for digest in events.split_whitespace().filter(|word| word.starts_with("sha256:")) {
        let manifest = client.get(format!("http://{host}/v2/{path}/manifests/{digest}"));
        let manifest = manifest.header("accept", minimalimage::domain::media_type::MANIFEST).send().await.unwrap();
        let manifest: serde_json::Value = manifest.json().await.unwrap();
        let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
        let deleted = client.delete(format!("http://{host}/v2/{path}/blobs/{layer}")).send().await.unwrap();
        assert!(deleted.status().is_success(), "{deleted:?}");
        lost += 1;
    }
    assert_eq!(lost, 2);
}
