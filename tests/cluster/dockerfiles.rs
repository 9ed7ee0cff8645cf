//! Dockerfiles on the cluster: what only running their stages in real containers can show.

use std::{fs, path::PathBuf};

use minimalimage::{
    api::v1alpha1::{MinimalImage, StageState},
    domain::value::Digest,
};
use serde_json::{Value, json};

use crate::fixture::{Repository, World, builder, file_in, go_program, is_stalled, listing, message, setting};

fn spec(world: &World, dockerfile: Value) -> Value {
    json!({
        "interval": "1h", "dockerfile": dockerfile,
        "destination": {"repository": world.repository("app")}
    })
}

fn spec_from_git(world: &World, url: &str, dockerfile: Value) -> Value {
    let mut spec = spec(world, dockerfile);
    spec["source"] = json!({"git": {"url": url}});
    spec
}

fn two_stages() -> String {
    format!(
        "FROM {} AS build\nENV GO111MODULE=off CGO_ENABLED=0\nWORKDIR /src\nCOPY . .\n\
         RUN go build -trimpath -ldflags='-s -w' -o /app .\n\
         FROM scratch\nCOPY --from=build /app /app\nENTRYPOINT [\"/app\"]\n",
        builder("go")
    )
}

#[tokio::test]
async fn a_dockerfile_from_git_becomes_an_image_and_ignored_files_start_no_step() {
    let world = World::with_security("dockerfile", "baseline").await;
    let repository = Repository::new("dockerfile");
    let (file, ignore) = (two_stages(), "*.md\nDockerfile\n");
    let commit = |readme: &str, program: &str| {
        repository.commit(&[
            ("readme.md", readme),
            ("main.go", &go_program(program)),
            (".dockerignore", ignore),
            ("Dockerfile", &file),
        ])
    };
    commit("one", "hello");
    world.apply("app", spec_from_git(&world, &repository.url, json!({}))).await;
    let first = world.ready("app").await;
    let image = first.image.clone().unwrap();
    assert!(image.size < 1_900_000 && image.layers.len() == 1, "{image:?}");
    assert_eq!(world.run("first", &image.reference).await, "hello\n");
    assert_eq!(first.base.unwrap().kind, "Scratch");

    // What the ignore file hides is no input: the agent finds the artifact before the first step.
    commit("two", "hello");
    let second = world.built_again("app", "1").await;
    assert_eq!((second.stages[0].state, second.image.unwrap().digest), (StageState::Cached, image.digest));

    commit("two", "bye");
    let third = world.built_again("app", "2").await;
    assert_eq!(world.run("third", &third.image.unwrap().reference).await, "bye\n");
}

/// Users by name, modes, links, owners, a script by a here-document, a copy from an image: all seen from inside.
const WAYS: &str = r"
FROM C_IMAGE AS build
RUN groupadd -g 77 team && useradd -u 1234 -g team -m app
WORKDIR /work
COPY <<run.sh <<note /work/
#!/bin/sh
echo run by \$(id -u):\$(id -g) at \$HOME in \$PWD
run.sh
text
note
RUN chmod 4755 run.sh && ln -s run.sh link && ln note hard && mkdir -p d/e && chown 5:6 note
USER app
WORKDIR made
RUN touch mine && stat -c '%u:%g %a %n' . mine > /tmp/seen && (cd /work && sh run.sh) >> /tmp/seen
USER root
RUN stat -c '%u:%g' /work/made >> /tmp/seen

FROM C_IMAGE AS taker
RUN useradd -u 4321 taker
COPY --from=build --chown=taker /work/note /taken/
RUN stat -c '%u %a' /taken/note > /taken/seen

FROM scratch
COPY --from=build /work /work
COPY --from=build /tmp/seen /seen
COPY --from=taker /taken/seen /taken
COPY --from=BASE_IMAGE /etc/passwd /passwd
";

#[tokio::test]
async fn stages_run_as_docker_runs_them() {
    let world = World::with_security("docker-ways", "baseline").await;
    let base = format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2"));
    let text = WAYS.replace("C_IMAGE", &builder("c")).replace("BASE_IMAGE", &base);
    world.apply("app", spec(&world, json!({"inline": text}))).await;
    let image = world.ready("app").await.image.unwrap().reference;
    assert_eq!(
        file_in(&image, "seen"),
        "1234:77 755 .\n1234:77 644 mine\nrun by 1234:77 at /home/app in /work\n1234:77\n"
    );
    assert_eq!(file_in(&image, "taken"), "4321 644\n");
    assert!(file_in(&image, "passwd").contains("nonroot:x:65532"));
    let listed = listing(&image);
    for expected in [
        "-rwsr-xr-x 0/0 work/run.sh",
        "-rw-r--r-- 5/6 work/hard",
        "lrwxrwxrwx 0/0 work/link -> run.sh",
        "hrw-r--r-- 5/6 work/note link to work/hard",
        "drwxr-xr-x 1234/77 work/made",
    ] {
        assert!(listed.contains(&expected.to_owned()), "{expected} is not in\n{}", listed.join("\n"));
    }
}

#[tokio::test]
async fn what_a_dockerfile_cannot_be_is_told_with_its_place() {
    let world = World::with_security("docker-wrong", "baseline").await;
    let large = format!("FROM {} AS build\nRUN make\nENTRYPOINT [\"/app\"]\n", builder("c"));
    world.apply("large", spec(&world, json!({"inline": large}))).await;
    let status = world.ended("large", "FinalStageNotMinimal").await;
    assert!(is_stalled(&status) && message(&status).contains("spec.dockerfile.inline:2:1"), "{}", message(&status));
    world.apply("typo", spec(&world, json!({"inline": "FROM scratch\nCOPPY a /a\n"}))).await;
    let status = world.ended("typo", "DockerfileInvalid").await;
    assert!(message(&status).contains("inline:2:1") && message(&status).contains("COPY"), "{}", message(&status));
    let repository = Repository::new("docker-wrong");
    repository.commit(&[("readme.md", "no Dockerfile")]);
    world.apply("app", spec_from_git(&world, &repository.url, json!({"path": "build/Dockerfile"}))).await;
    let status = world.ended("app", "DockerfileInvalid").await;
    assert!(message(&status).contains("build/Dockerfile"), "{}", message(&status));
    // A commit is the way out; nothing of the resource is touched but the request to look now.
    repository.commit(&[("build/Dockerfile", "FROM scratch\nCOPY build /build\n")]);
    assert_eq!(world.built_again("app", "1").await.image.unwrap().file_count, 1);
}

#[tokio::test]
async fn a_restricted_namespace_says_what_a_dockerfile_needs() {
    let world = World::new("docker-restricted").await;
    let repository = Repository::new("docker-restricted");
    repository.commit(&[("main.go", &go_program("hello")), ("Dockerfile", &two_stages())]);
    world.apply("app", spec_from_git(&world, &repository.url, json!({}))).await;
    let refused = |image: &MinimalImage| {
        let conditions = image.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.reason == "PodSecurityViolated")
    };
    let status = world.until("app", "the refusal", refused).await.status.unwrap();
    assert!(message(&status).contains("run as root in their container"), "{}", message(&status));
    // The same work where a restricted user may write.
    let text = two_stages().replace("/src", "/workspace").replace("/app .", "/workspace/app .");
    let text = text.replace("=build /app", "=build /workspace/app");
    repository.commit(&[("main.go", &go_program("hello")), ("Dockerfile", &text)]);
    let mut spec = spec_from_git(&world, &repository.url, json!({}));
    spec["podSecurity"] = json!("Restricted");
    world.apply("app", spec).await;
    let image = world.ready("app").await.image.unwrap();
    assert_eq!(world.run("app", &image.reference).await, "hello\n");
}

#[tokio::test]
async fn what_add_names_is_fetched_by_agents_and_told_with_its_line_where_it_is_wrong() {
    let world = World::with_security("docker-add", "baseline").await;
    let name = format!("{}.tar", world.namespace);
    let file = PathBuf::from(setting("FILES_ROOT")).join(&name);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(8);
    header.set_mode(0o640);
    header.set_uid(9);
    header.set_gid(9);
    archive.append_data(&mut header, "dir/f", &b"fetched\n"[..]).unwrap();
    fs::write(&file, archive.into_inner().unwrap()).unwrap();
    let digest = Digest::of(&fs::read(&file).unwrap()).to_string();
    let url = format!("{}/files/{name}", setting("GIT_URL"));
    let repository = Repository::new("docker-add");
    let commit = repository.commit(&[("docs/a", "tree\n")]);
    let (c, tree) = (builder("c"), &repository.url);
    // A stage that nobody needs has a row in status too, and may be called as fetched ones are.
    let text = |digest: &str| {
        format!(
            "FROM {c} AS add-1\nRUN false\nFROM {c} AS build\nADD {tree}#{commit}:docs /tree\nRUN cat /tree/a >/out\n\
             FROM scratch\nADD --unpack --checksum={digest} {url} /\nCOPY --from=build /out /out\n"
        )
    };
    world.apply("app", spec(&world, json!({"inline": text(&digest), "pod": {"timeout": "3m"}}))).await;
    let status = world.ready("app").await;
    let rows: Vec<_> = status.stages.iter().map(|stage| (stage.name.as_str(), stage.state)).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert!(rows.contains(&("add-1", StageState::Skipped)), "{rows:?}");
    let image = status.image.unwrap().reference;
    assert_eq!((file_in(&image, "dir/f"), file_in(&image, "out")), ("fetched\n".to_owned(), "tree\n".to_owned()));
    assert!(listing(&image).contains(&"-rw-r----- 9/9 dir/f".to_owned()), "{:?}", listing(&image));

    let other = Digest::of(b"another file").to_string();
    world.apply("app", spec(&world, json!({"inline": text(&other)}))).await;
    let status = world.ended("app", "SourceInvalid").await;
    let told = message(&status);
    assert!(is_stalled(&status) && told.contains("inline:7: ") && told.contains(&digest), "{told}");
    fs::remove_file(file).unwrap();
}
