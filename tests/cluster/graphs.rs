//! Several stages: side by side, in a chain, and straight from the source.

use serde_json::{Value, json};

use crate::fixture::{Repository, World, builder, go_program, layers_by_origin};

fn states(status: &minimalimage::api::v1alpha1::Status) -> Vec<(String, String)> {
    status.stages.iter().map(|stage| (stage.name.clone(), format!("{:?}", stage.state))).collect()
}

#[tokio::test]
async fn two_builders_run_side_by_side_into_one_image() {
    let world = World::new("two").await;
    let spec = json!({
        "source": {"inline": {"files": [
            {"path": "go/main.go", "content": go_program("go")},
            {"path": "c/main.c", "content": "#include <stdio.h>\nint main(void) { puts(\"c\"); return 0; }\n"}]}},
        "stages": [
            {"name": "go", "image": builder("go"), "copy": [{"from": "source", "source": "go", "destination": "/workspace/"}],
             "env": [{"name": "CGO_ENABLED", "value": "0"}], "run": "go build -ldflags='-s -w' -o /workspace/app main.go"},
            {"name": "c", "image": builder("c"), "copy": [{"from": "source", "source": "c", "destination": "/workspace/"}],
             "run": "gcc -static -s -o /workspace/app main.c"}],
        "image": {"copy": [
            {"from": "go", "source": "/workspace/app", "destination": "/bin/go-app"},
            {"from": "c", "source": "/workspace/app", "destination": "/bin/c-app", "mode": "0555", "owner": "65532:65532"},
            {"from": "source", "source": "c/main.c", "destination": "/src/"}],
            "files": [{"path": "/etc/motd", "content": "hello\n"}],
            "command": ["/bin/c-app"]},
        "destination": {"repository": world.repository("app")}
    });
    world.apply("app", spec).await;
    let both = |image: &minimalimage::api::v1alpha1::MinimalImage| {
        let stages = image.status.iter().flat_map(|status| &status.stages);
        stages.filter(|stage| ["go", "c"].contains(&stage.name.as_str()) && stage.job_name.is_some()).count() == 2
    };
    world.until("app", "two stages at once", both).await;
    let status = world.ready("app").await;
    assert_eq!(
        layers_by_origin(&status),
        [("go", 1), ("c", 1), ("source", 1), ("files", 1)].map(|(name, count)| (name.to_owned(), count)).into()
    );
    let image = status.image.unwrap();
    assert_eq!(world.run("run", &image.reference).await, "c\n");
    assert_eq!(image.file_count, 4);
}

#[tokio::test]
async fn a_changed_middle_with_an_equal_result_stops_there() {
    let chain = |comment: &str, repository: &str| -> Value {
        let take = |from: &str| json!([{"from": from, "source": "/workspace/out", "destination": "/workspace/in"}]);
        json!({
            "stages": [
                {"name": "first", "image": builder("c"), "run": "echo first > out"},
                {"name": "middle", "image": builder("c"), "copy": take("first"), "run": format!("# {comment}\ncat in > out; echo middle >> out")},
                {"name": "last", "image": builder("c"), "copy": take("middle"), "run": "cat in > out; echo last >> out"}],
            "image": {"copy": [{"from": "last", "source": "/workspace/out", "destination": "/out"}]},
            "destination": {"repository": repository}
        })
    };
    let world = World::new("chain").await;
    let repository = world.repository("app");
    world.apply("app", chain("one", &repository)).await;
    let first = world.ready("app").await;
    assert!(states(&first).iter().all(|(_, state)| state == "Built"), "{:?}", states(&first));
    world.apply("app", chain("two", &repository)).await;
    let second = world.ready("app").await;
    let expected = [("first", "Cached"), ("middle", "Built"), ("last", "Cached")]
        .map(|(name, state)| (name.to_owned(), state.to_owned()));
    assert_eq!(states(&second), expected);
    assert_eq!(first.image.unwrap().digest, second.image.unwrap().digest);
}

#[tokio::test]
async fn every_kind_of_source_gives_the_same_artifact() {
    let world = World::new("sources").await;
    world.allow_secrets().await;
    let git = Repository::private("kinds");
    git.commit(&[("hello.txt", "hello\n")]);
    let host = crate::fixture::setting("GIT_URL");
    world
        .create::<k8s_openapi::api::core::v1::Secret>(json!({
            "metadata": {"name": "git-login", "annotations": {"minimalimage.dev/host": host}},
            "stringData": {"username": crate::fixture::setting("GIT_USER"), "password": crate::fixture::setting("GIT_PASSWORD")}
        }))
        .await;
    world
        .create::<k8s_openapi::api::core::v1::ConfigMap>(
            json!({"metadata": {"name": "files"}, "data": {"hello.txt": "hello\n"}}),
        )
        .await;
    let sources = [
        json!({"inline": {"files": [{"path": "hello.txt", "content": "hello\n"}]}}),
        json!({"configMap": {"name": "files"}}),
        json!({"git": {"url": git.url, "secretRef": {"name": "git-login"}}}),
    ];
    let mut digests = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let name = format!("source-{index}");
        let spec = json!({
            "source": source,
            "image": {"copy": [{"from": "source", "source": "hello.txt", "destination": "/hello.txt"}]},
            "destination": {"repository": world.repository(&name)}
        });
        world.apply(&name, spec).await;
        digests.push(world.ready(&name).await.image.unwrap().digest);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
