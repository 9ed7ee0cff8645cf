//! Dockerfiles without a cluster: what their instructions do in a real sandbox.

use std::fs;

use serde_json::Value;

use crate::support::{Machine, layer_texts, only_manifest, users};

/// Every text file of the image that a build has written to `layout`, and its config.
fn image(machine: &Machine) -> (Vec<(String, String)>, Value) {
    let layout = machine.path("work/layout");
    let manifest = only_manifest(&layout);
    let blob = |digest: &Value| {
        let name = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        fs::read(layout.join("blobs/sha256").join(name)).unwrap()
    };
    (layer_texts(&layout), serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap())
}

/// Builds the Dockerfile `text`, whose `BUILDER` is a shell; gives the text of the image's `/seen`.
fn seen(machine: &Machine, text: &str, arguments: &[&str]) -> String {
    machine.file("Dockerfile", &text.replace("BUILDER", &format!("{}/builder:1", machine.registry.host)));
    let _ = fs::remove_dir_all(machine.path("work/layout"));
    machine.build(&[&["--output", "oci:layout"], arguments].concat());
    let (files, _) = image(machine);
    files.into_iter().find(|(path, _)| path == "seen").unwrap().1
}

#[tokio::test]
async fn a_dockerfile_alone_is_enough_and_is_the_same_for_everybody() {
    let mut digests = Vec::new();
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        machine.file("input", "words");
        machine.file("notes.md", "not seen");
        machine.file(".dockerignore", "*.md\nDockerfile\nlayout\n");
        let text = "ARG WHO=nobody\nFROM BUILDER AS build\nARG WHO\nWORKDIR /src\nCOPY . .\n\
                    RUN ls >/out && cat input >>/out && echo $WHO >>/out\n\
                    FROM scratch\nCOPY --from=build /out /seen\nCMD [\"/seen\"]\nEXPOSE 80\n";
        assert_eq!(seen(&machine, text, &["--build-arg", "WHO=me", "--preflight", "off"]), "input\nwordsme\n");
        let (_, config) = image(&machine);
        assert_eq!(
            (&config["config"]["Cmd"][0], config["config"]["ExposedPorts"].get("80/tcp").is_some()),
            (&"/seen".into(), true)
        );
        let result = machine.build(&["--build-arg", "WHO=me", "--preflight", "off"]);
        assert_eq!(result["stages"][0]["cached"], true);
        // What the ignore file hides is no input.
        machine.file("notes.md", "changed");
        assert_eq!(machine.build(&["--build-arg", "WHO=me", "--preflight", "off"])["stages"][0]["cached"], true);
        digests.push(result["digest"].clone());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[tokio::test]
async fn mounts_are_gone_behind_their_run() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        machine.file("dir/input", "bound ");
        machine.file("token", "hidden ");
        let text = "FROM BUILDER AS build\nRUN ! cat /proc/1/environ\nWORKDIR /work\nCOPY dir/input /work/kept\n\
                    RUN --mount=type=bind,source=dir,target=/work/dir --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t \
                    --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \
                    cat dir/input /run/secrets/token >/seen && echo $TOKEN >>/seen && echo x >/cache/x && echo y >/t/y && echo z >dir/made\n\
                    RUN env | grep -c hidden >>/seen; ls -d /cache /t /run/secrets dir/input 2>/dev/null >>/seen; ls /work/dir >>/seen; cat kept >>/seen\n\
                    FROM scratch\nCOPY --from=build /seen /seen\n";
        let seen = seen(&machine, text, &["--secret", "id=token,src=token"]);
        assert_eq!(seen, "bound hidden hidden\n0\nbound ");
    }
}

#[tokio::test]
async fn a_run_without_network_opens_no_socket() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    // Busybox' wget wants a socket before it wants an answer.
    let text = |network: &str| {
        format!(
            "FROM BUILDER AS build\nRUN --network={network} busybox wget -O - http://127.0.0.1:1/ 2>/seen; cat /seen\n\
             FROM scratch\nCOPY --from=build /seen /seen\n"
        )
    };
    let without = seen(&machine, &text("none"), &[]);
    assert!(without.contains("socket") && without.contains("Permission denied"), "{without}");
    let with = seen(&machine, &text("default"), &[]);
    assert!(!with.contains("Permission denied"), "{with}");
}

#[tokio::test]
async fn users_of_the_image_own_what_they_make() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    machine.file("file", "x");
    let text = "FROM BUILDER AS build\nUSER builder\nWORKDIR /made/by\nRUN id -u >/tmp/seen && stat -c '%u:%g %a' . >>/tmp/seen\n\
                USER 7:8\nRUN echo $(id -u):$(id -g) $HOME >>/tmp/other\nUSER root\nCOPY --chown=builder file /copied\n\
                RUN stat -c '%u:%g' /copied >>/tmp/seen && cat /tmp/other >>/tmp/seen\n\
                FROM scratch\nCOPY --from=build /tmp/seen /seen\n";
    assert_eq!(seen(&machine, text, &[]), "1000\n1000:1000 755\n1000:1000\n7:8 /\n");
}

#[tokio::test]
async fn what_cannot_be_built_is_told_with_its_place() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    machine.file("Dockerfile", "FROM scratch\nCOPPY a /a\n");
    let error = machine.refusal(&[]);
    assert!(error.contains("Dockerfile:2:1") && error.contains("COPY"), "{error}");
    let error = machine.refusal(&["--file", "Dockerfile"]);
    assert!(error.contains("use --dockerfile Dockerfile"), "{error}");
    let builder = format!("{}/builder:1", machine.registry.host);
    machine.file("Dockerfile", &format!("FROM {builder}\nRUN echo\n"));
    let error = machine.refusal(&[]);
    assert!(error.contains("Dockerfile:2:1") && error.contains("COPY --from=build"), "{error}");
    machine.file(
        "Dockerfile",
        &format!(
            "FROM {builder} AS b\nRUN --mount=type=secret,id=t,required true\nFROM scratch\nCOPY --from=b /x /x\n"
        ),
    );
    let error = machine.refusal(&[]);
    assert!(error.contains("Dockerfile:2:") && error.contains("--secret has no secret"), "{error}");
    machine.file("Dockerfile", &format!("FROM {builder}-not\nRUN echo\nFROM scratch\nCOPY --from=0 /x /x\n"));
    let error = machine.refusal(&[]);
    assert!(error.contains("Dockerfile:1:6: failed to resolve"), "{error}");
}

#[tokio::test]
async fn what_fails_is_told_with_its_line() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    let builder = format!("{}/builder:1", machine.registry.host);
    for (lines, words) in [
        ("RUN true\nRUN exit 7", "Dockerfile:3: `exit 7`"),
        ("RUN true\nCOPY nothing /x", "Dockerfile:3: the source has no nothing"),
        ("RUN mkdir /x\nCOPY --chown=nobody-here Dockerfile /x", "Dockerfile:3: the user `nobody-here` is not"),
        ("RUN true\n", "Dockerfile:5: /x does not exist after the steps"),
    ] {
        machine.file("Dockerfile", &format!("FROM {builder} AS b\n{lines}\nFROM scratch\nCOPY --from=b /x /x\n"));
        let error = machine.refusal(&[]);
        assert!(error.contains(words), "{words}\n{error}");
    }
}
