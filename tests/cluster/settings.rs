//! What a resource can say about its source and stages, as far as it takes a cluster to see that it holds.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use minimalimage::{
    api::v1alpha1::{MinimalImage, StageState, Status},
    domain::value::Digest,
};
use serde_json::{Value, json};

use crate::fixture::{Repository, World, builder, file_in, is_stalled, message, setting};

fn spec(world: &World, run: &str) -> Value {
    json!({
        "stages": [{"name": "build", "image": builder("c"), "run": run}],
        "image": {"copy": [{"from": "build", "source": "/workspace/out", "destination": "/out"}]},
        "destination": {"repository": world.repository("app")}
    })
}

/// The text of /out in the image of a status.
fn out(status: &Status) -> String {
    file_in(&status.image.as_ref().expect("an image").reference, "out")
}

/// The status after a build in which no stage's artifact was taken from the cache.
async fn built_anew(world: &World, request: &str) -> Status {
    world.annotate("app", "minimalimage.dev/noCacheRequestedAt", request).await;
    let handled = |image: &MinimalImage| {
        let status = image.status.as_ref();
        let handled = status.and_then(|status| status.last_handled_no_cache_requested_at.as_deref());
        crate::fixture::is_ready(image) && handled == Some(request)
    };
    world.until("app", "the build without cache", handled).await.status.unwrap()
}

#[tokio::test]
async fn a_build_finds_its_caches_as_it_left_them_and_stages_do_not_share_them() {
    let world = World::new("caches").await;
    // The node is this machine. A volume of the test's own, for any user to write to, as provisioners make them.
    let directory =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o777)).tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let volumes = Api::<PersistentVolume>::all(world.client.clone());
    let shape = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": ""});
    let mut volume = json!({"metadata": {"name": world.namespace}, "spec": shape});
    volume["spec"]["capacity"] = json!({"storage": "1Gi"});
    volume["spec"]["hostPath"] = json!({"path": directory.path()});
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let mut claim = json!({"metadata": {"name": "cache"}, "spec": shape});
    claim["spec"]["volumeName"] = json!(world.namespace);
    claim["spec"]["resources"] = json!({"requests": {"storage": "1Gi"}});
    world.create::<PersistentVolumeClaim>(claim).await;

    let stage = |name: &str| {
        json!({"name": name, "image": builder("c"), "run": format!("echo {name} >> /cache/log; cp /cache/log out"),
            "caches": [{"name": "c", "path": "/cache", "persistentVolumeClaim": {"claimName": "cache"}}]})
    };
    let copy = |name: &str| json!({"from": name, "source": "/workspace/out", "destination": format!("/{name}")});
    let spec = json!({
        "stages": [stage("one"), stage("two")],
        "image": {"copy": [copy("one"), copy("two")]},
        "destination": {"repository": world.repository("app")}
    });
    world.apply("app", spec).await;
    let texts = |status: &Status| {
        let reference = &status.image.as_ref().unwrap().reference;
        [file_in(reference, "one"), file_in(reference, "two")]
    };
    assert_eq!(texts(&world.ready("app").await), ["one\n", "two\n"]);
    assert_eq!(texts(&built_anew(&world, "1").await), ["one\none\n", "two\ntwo\n"]);
    volumes.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_in_caches_of_the_registry_is_there_for_the_next_build_under_each_account() {
    let world = World::with_security("registry-caches", "baseline").await;
    // The second run of the same cache sees what the first one left, and the next build what both did.
    let line = |build: &str| format!("cat /cache/log > /workspace/out || true; echo {build} >> /cache/log");
    let stages = |build: &str| {
        json!({
            "stages": [{"name": "build", "image": builder("c"), "run": line(build),
                "caches": [{"name": "c", "path": "/cache", "registry": {}}]}],
            "image": {"copy": [{"from": "build", "source": "/workspace/out", "destination": "/out"}]},
            "destination": {"repository": world.repository("app")}
        })
    };
    let dockerfile = |build: &str| {
        let text = format!(
            "FROM {} AS build\nRUN mkdir /workspace\nRUN --mount=type=cache,target=/cache {}\n\
             RUN test ! -e /cache\nFROM scratch\nCOPY --from=build /workspace/out /out\n",
            builder("c"),
            line(build)
        );
        json!({"podSecurity": "Baseline", "dockerfile": {"inline": text}, "destination": {"repository": world.repository("other")}})
    };
    for (build, said, kept) in [("one", "", 2), ("two", "one\n", 4), ("three", "one\ntwo\n", 6)] {
        world.apply("app", stages(build)).await;
        world.apply("other", dockerfile(build)).await;
        for name in ["app", "other"] {
            let status = world.ready(name).await;
            assert_eq!(out(&status), said, "{name} {build}");
        }
        world.told("CachesKept", kept).await;
    }
}

#[tokio::test]
async fn source_and_registry_over_https_with_a_private_authority_which_stages_see_on_request() {
    let world = World::new("authority").await;
    let source = Repository::new("authority");
    source.commit(&[("hello.txt", "hello\n")]);
    let url = source.url.replace(&setting("GIT_URL"), &setting("GIT_TLS_URL"));
    assert!(url.starts_with("https://"), "{url}");
    let mut spec = json!({
        "source": {"git": {"url": url, "ref": {"branch": "main"}}},
        "stages": [
            {"name": "with", "image": builder("c"), "caCertificates": true, "run": "cat hello.txt \"$SSL_CERT_FILE\" > out"},
            {"name": "without", "image": builder("c"), "run": "echo \"${SSL_CERT_FILE:-none}\" > out"}],
        "image": {"copy": [
            {"from": "with", "source": "/workspace/out", "destination": "/with"},
            {"from": "without", "source": "/workspace/out", "destination": "/without"}]},
    });
    let repository = format!("{}/{}/app", setting("MINIMALIMAGE_REGISTRY_TLS"), world.namespace);
    spec["destination"] = json!({"repository": repository});
    world.apply("app", spec).await;
    let reference = world.ready("app").await.image.unwrap().reference;
    assert_eq!(file_in(&reference, "without"), "none\n");
    let bundle = file_in(&reference, "with");
    let authority = fs::read_to_string(setting("MINIMALIMAGE_CA")).unwrap();
    let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(bundle.starts_with("hello\n"));
    assert!(lines(&bundle).contains(&lines(authority.trim())), "the bundle of {} bytes lacks it", bundle.len());
    assert!(bundle.matches("BEGIN CERTIFICATE").count() > 50, "the usual authorities are there too");
}

#[tokio::test]
async fn a_tool_that_asks_java_for_its_home_directory_can_write_there() {
    let world = World::new("home").await;
    let program = r#"
        import java.nio.file.*;
        class Main {
            public static void main(String[] arguments) throws Exception {
                String home = System.getProperty("user.home");
                Path repository = Files.createDirectories(Paths.get(home, ".m2", "repository"));
                Files.write(repository.resolve("file"), "kept".getBytes());
                System.out.println(System.getProperty("user.name") + " " + home + " "
                    + new String(Files.readAllBytes(repository.resolve("file"))));
            }
        }"#;
    let mut spec = spec(&world, "javac Main.java && java Main > out");
    spec["source"] = json!({"inline": {"files": [{"path": "Main.java", "content": program}]}});
    spec["stages"][0]["image"] = json!(builder("jdk"));
    world.apply("app", spec).await;
    assert_eq!(out(&world.ready("app").await), "build /home/build kept\n");
}

#[tokio::test]
async fn an_archive_is_taken_as_its_digest_says_and_refused_otherwise() {
    let world = World::new("archive").await;
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("app-1.0")).unwrap();
    fs::write(tree.path().join("app-1.0/hello.txt"), "from the archive\n").unwrap();
    let name = format!("{}.tar.gz", world.namespace);
    let archive = PathBuf::from(setting("FILES_ROOT")).join(&name);
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(&archive).arg("--directory").arg(tree.path()).arg("app-1.0");
    let tar = tar.status().unwrap();
    assert!(tar.success());
    let digest = Digest::of(&fs::read(&archive).unwrap()).to_string();
    let url = format!("{}/files/{name}", setting("GIT_URL"));
    let mut spec = spec(&world, "cp hello.txt out");
    spec["source"] = json!({"http": {"url": url, "digest": digest, "stripComponents": 1}});
    world.apply("app", spec.clone()).await;
    assert_eq!(out(&world.ready("app").await), "from the archive\n");

    let expected = Digest::of(b"another archive").to_string();
    spec["source"]["http"]["digest"] = json!(expected);
    world.apply("app", spec).await;
    let status = world.ended("app", "SourceInvalid").await;
    assert!(is_stalled(&status));
    assert!(message(&status).contains(&digest) && message(&status).contains(&expected), "{}", message(&status));
    fs::remove_file(archive).unwrap();
}

#[tokio::test]
async fn a_request_without_cache_runs_the_stage_again() {
    let world = World::new("nocache").await;
    world.apply("app", spec(&world, "date +%s%N > out")).await;
    let first = world.ready("app").await;
    let second = built_anew(&world, "1").await;
    assert_eq!(second.stages[0].state, StageState::Built);
    world.had_pods(2).await;
    assert_ne!(first.image.unwrap().digest, second.image.as_ref().unwrap().digest);
    // What was made anew is what later builds find.
    world.apply("twin", spec(&world, "date +%s%N > out")).await;
    let twin = world.ready("twin").await;
    assert_eq!((twin.stages[0].state, twin.image.unwrap().digest), (StageState::Cached, second.image.unwrap().digest));
}

#[tokio::test]
async fn suspending_ends_a_running_build_and_resuming_builds() {
    let world = World::new("suspend").await;
    let map = |seconds: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pace"}, "data": {"seconds": seconds}});
    let set = async |seconds: &str| {
        let params = PatchParams::apply("test").force();
        world.api::<ConfigMap>().patch("pace", &params, &Patch::Apply(map(seconds))).await.unwrap();
    };
    set("300").await;
    let mut spec = spec(&world, "sleep $SECONDS_TO_GO; echo x > out");
    let from = json!({"configMapKeyRef": {"name": "pace", "key": "seconds"}});
    spec["stages"][0]["env"] = json!([{"name": "SECONDS_TO_GO", "valueFrom": from}]);
    world.apply("app", spec.clone()).await;
    world.running("app").await;
    spec["suspend"] = json!(true);
    let generation = world.apply("app", spec.clone()).await.metadata.generation;
    let idle = |image: &MinimalImage| {
        image
            .status
            .as_ref()
            .is_some_and(|status| Some(status.observed_generation) == generation && status.progress.is_none())
    };
    let suspended = world.until("app", "the end of the build", idle).await.status.unwrap();
    assert!(suspended.image.is_none());
    let reconciling = suspended.conditions.iter().find(|condition| condition.type_ == "Reconciling");
    assert_eq!(reconciling, None);
    world.none_left::<Pod>().await;
    set("0").await;
    spec["suspend"] = json!(false);
    world.apply("app", spec).await;
    world.ready("app").await;
}

#[tokio::test]
async fn a_stage_that_takes_too_long_is_ended() {
    let world = World::new("timeout").await;
    let mut spec = spec(&world, "echo begun; sleep 300");
    spec["stages"][0]["timeout"] = json!("4s");
    world.apply("app", spec).await;
    let status = world.ended("app", "Timeout").await;
    assert!(is_stalled(&status));
    assert!(message(&status).contains("stage build"), "{}", message(&status));
}

#[tokio::test]
async fn a_stage_over_its_memory_limit_is_told_so() {
    let world = World::new("memory").await;
    let mut spec = spec(&world, "head -c 400000000 /dev/zero | tail -c 300000000 > out");
    spec["stages"][0]["resources"] = json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}});
    world.apply("app", spec).await;
    let status = world.ended("app", "OutOfMemory").await;
    assert!(is_stalled(&status));
    assert!(message(&status).contains("resources.limits.memory"), "{}", message(&status));
}

#[tokio::test]
async fn a_secret_reaches_the_command_and_not_the_log_in_status() {
    let world = World::new("masked").await;
    let token = "correct-horse-battery";
    world.create::<Secret>(json!({"metadata": {"name": "login"}, "stringData": {"token": token}})).await;
    let mut spec = spec(&world, "echo \"the token is $TOKEN\"; [ ${#TOKEN} = 21 ] && exit 7; exit 8");
    let from = json!({"secretKeyRef": {"name": "login", "key": "token"}});
    spec["stages"][0]["env"] = json!([{"name": "TOKEN", "valueFrom": from}]);
    world.apply("app", spec).await;
    let status = world.ended("app", "StageFailed").await;
    assert_eq!(status.stages[0].exit_code, Some(7));
    let tail = status.stages[0].log_tail.clone().unwrap();
    assert!(tail.contains("the token is ***"), "{tail}");
    assert!(!serde_json::to_string(&status).unwrap().contains(token));
}
