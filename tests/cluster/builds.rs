//! A program on scratch, from nothing to a running image, and the ways in which nothing is built again.

use serde_json::json;

use crate::fixture::{Repository, Watch, World, go_program, go_spec, layers_by_origin, observed, registry_writes};

#[tokio::test]
async fn a_go_program_becomes_a_small_image_that_runs() {
    let world = World::new("go").await;
    let source = Repository::new("go");
    let commit = source.commit(&[("main.go", &go_program("one"))]);
    let repository = world.repository("app");
    let mut spec = go_spec(&json!({"git": {"url": source.url, "ref": {"branch": "main"}}}), &repository);
    spec["destination"]["tags"] = json!(["latest", "$(commitShort)"]);
    let watch = Watch::start();
    world.apply("app", spec).await;
    let status = world.ready("app").await;
    watch.print("apply to Ready");
    let image = status.image.clone().unwrap();
    assert!(image.size <= 1_900_000, "{}", image.size);
    assert_eq!(layers_by_origin(&status), [("build".to_owned(), 1)].into());
    assert!(status.builder_size.unwrap() > 500_000_000, "{:?}", status.builder_size);
    assert_eq!(status.base.as_ref().unwrap().display_name, "scratch");
    assert_eq!(status.source.as_ref().unwrap().revision, commit);
    assert_eq!(image.tags, ["latest".to_owned(), commit[..12].to_owned()]);
    assert_eq!(world.run("run", &image.reference).await, "one\n");

    // Touched, and applied again under another name of the field manager: no Pod, no registry write.
    let writes = registry_writes(&repository);
    world.annotate("app", "touched", "1").await;
    world.annotate("app", "minimalimage.dev/requestedAt", "1").await;
    let handled =
        |status: &minimalimage::api::v1alpha1::Status| status.last_handled_requested_at.as_deref() == Some("1");
    let again = world.until("app", "the request", |image| image.status.as_ref().is_some_and(handled)).await;
    assert_eq!(observed(&again), again.metadata.generation);
    let again = world.ready("app").await;
    assert_eq!(again.image.unwrap().digest, image.digest);
    assert_eq!(registry_writes(&repository), writes);
    world.had_pods(1).await;

    source.commit(&[("main.go", &go_program("two"))]);
    world.annotate("app", "minimalimage.dev/requestedAt", "2").await;
    let changed = world
        .until("app", "the new commit", |found| {
            crate::fixture::is_ready(found)
                && found
                    .status
                    .as_ref()
                    .and_then(|status| status.image.as_ref())
                    .is_some_and(|new| new.digest != image.digest)
        })
        .await;
    let reference = changed.status.unwrap().image.unwrap().reference;
    assert_eq!(world.run("run-two", &reference).await, "two\n");
}

#[tokio::test]
async fn a_commit_that_leaves_the_directory_as_it_was_runs_no_step() {
    let world = World::new("directory").await;
    let source = Repository::new("monorepo");
    source.commit(&[("app/main.go", &go_program("app")), ("README", "one")]);
    let repository = world.repository("app");
    let git = json!({"git": {"url": source.url, "ref": {"branch": "main"}}, "directory": "app"});
    world.apply("app", go_spec(&git, &repository)).await;
    let first = world.ready("app").await;
    let commit = source.commit(&[("app/main.go", &go_program("app")), ("README", "two")]);
    world.annotate("app", "minimalimage.dev/requestedAt", "1").await;
    let at = |found: &minimalimage::api::v1alpha1::MinimalImage| {
        found.status.as_ref().and_then(|status| status.source.as_ref()).is_some_and(|source| source.revision == commit)
    };
    let second = world.until("app", "the new commit", |found| crate::fixture::is_ready(found) && at(found)).await;
    let second = second.status.unwrap();
    assert_eq!(second.image.unwrap().digest, first.image.unwrap().digest);
    assert_eq!(format!("{:?}", second.stages[0].state), "Cached");
}

#[tokio::test]
async fn the_same_inputs_give_the_same_digest_with_cold_caches_in_two_namespaces() {
    for (name, files, run, artifact) in [
        (
            "go",
            vec![("main.go", go_program("same"))],
            "GO111MODULE=off go build -trimpath -o /workspace/out/app main.go",
            "/workspace/out",
        ),
        (
            "c",
            vec![("main.c", "int main(void) { return 0; }\n".to_owned())],
            "mkdir out && gcc -o out/app main.c",
            "/workspace/out",
        ),
        (
            "java",
            vec![(
                "Main.java",
                "class Main { public static void main(String[] a) { System.out.println(\"hi\"); } }\n".to_owned(),
            )],
            "javac -d out Main.java",
            "/workspace/out",
        ),
    ] {
        let files: Vec<_> = files.iter().map(|(path, content)| json!({"path": path, "content": content})).collect();
        let mut digests = Vec::new();
        for _ in 0..2 {
            let world = World::new(&format!("same-{name}")).await;
            let spec = json!({
                "source": {"inline": {"files": files}},
                "stages": [{"name": "build", "image": crate::fixture::builder(name), "run": run}],
                "image": {"copy": [{"from": "build", "source": artifact, "destination": "/app"}]},
                "destination": {"repository": world.repository("app")}
            });
            world.apply("app", spec).await;
            let status = world.ready("app").await;
            assert_eq!(format!("{:?}", status.stages[0].state), "Built");
            digests.push(status.image.unwrap().digest);
        }
        assert_eq!(digests[0], digests[1], "{name}");
    }
}
