//! What builds give.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::support::{Layer, Machine, layer_texts, only_manifest, stranger, users};

fn cached(result: &Value) -> Vec<bool> {
    result["stages"].as_array().unwrap().iter().map(|stage| stage["cached"].as_bool().unwrap()).collect()
}

fn crane(arguments: &[&str]) -> String {
    let cache = std::env::var_os("MINIMALIMAGE_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/minimalimage"), PathBuf::from);
    let output = Command::new(cache.join("bin/crane")).args(arguments).output();
    let output = output.expect("this test needs crane, which tests/setup installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn everybody_gets_the_same_digest_and_the_second_build_runs_nothing() {
    let mut digests = Vec::new();
    for user in users() {
        let machine = Machine::new(user).await;
        machine.file("input", "words");
        machine.file(".git/config", "not a part of the source");
        machine.stage("cat input >out; test ! -e .git");
        let first = machine.build(&[]);
        assert_eq!(cached(&first), [false]);
        let second = machine.build(&[]);
        assert_eq!((cached(&second), &second["digest"]), (vec![true], &first["digest"]));
        machine.file(".git/config", "still not");
        assert_eq!(cached(&machine.build(&[])), [true]);
        assert_eq!(cached(&machine.build(&["--no-cache"])), [false]);
        machine.file("input", "other words");
        let changed = machine.build(&[]);
        assert_eq!(cached(&changed), [false]);
        assert_ne!(changed["digest"], first["digest"]);
        digests.push(first["digest"].clone());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[tokio::test]
async fn foreign_tools_read_every_output() {
    let machine = Machine::new(users()[0]).await;
    machine.stage("echo content >out");
    let outputs = ["oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"];
    let flags: Vec<&str> = outputs.iter().flat_map(|output| ["--output", output]).collect();
    let result = machine.build(&[&flags[..], &["--metadata-file", "metadata.json"]].concat());
    let digest = result["digest"].as_str().unwrap();
    let metadata: Value = serde_json::from_slice(&fs::read(machine.path("work/metadata.json")).unwrap()).unwrap();
    assert_eq!(metadata, result);

    let path = |name: &str| machine.path("work").join(name).display().to_string();
    let to = |tag: &str| format!("{}/copy:{tag}", machine.registry.host);
    crane(&["push", &path("layout"), &to("layout")]);
    assert_eq!(crane(&["digest", &to("layout")]), digest);
    crane(&["validate", "--tarball", &path("docker.tar")]);
    crane(&["push", &path("docker.tar"), &to("docker")]);
    let config = |reference: &str| -> Value { serde_json::from_str(&crane(&["config", reference])).unwrap() };
    assert_eq!(config(&to("docker")), config(&to("layout")));

    fs::create_dir(machine.path("unpacked")).unwrap();
    let archive = fs::File::open(machine.path("work/oci.tar")).unwrap();
    tar::Archive::new(archive).unpack(machine.path("unpacked")).unwrap();
    assert_eq!(only_manifest(&machine.path("unpacked")), only_manifest(&machine.path("work/layout")));
}

#[tokio::test]
async fn a_pushed_image_has_its_digest_and_tags() {
    let machine = Machine::new(users()[0]).await;
    machine.push_image("base", &[Layer::default().finish()], json!({"Env": ["A=b"]})).await;
    machine.stage("echo content >out");
    let text = fs::read_to_string(machine.path("work/minimalimage.yaml")).unwrap();
    let base = format!("image:\n    base: {{image: {{reference: \"{}/base:1\"}}}}\n    copy:", machine.registry.host);
    let text = text.replace("image:\n    copy:", &base).replace("/app}", "/app, tags: [latest, two]}");
    machine.file("minimalimage.yaml", &text);
    let result = machine.build(&["--push"]);
    for tag in ["latest", "two"] {
        let reference = format!("{}/app:{tag}", machine.registry.host);
        assert_eq!(crane(&["digest", &reference]), result["digest"].as_str().unwrap());
        crane(&["validate", "--remote", &reference]);
    }
    let listed = String::from_utf8(machine.run(&["images"]).stdout).unwrap();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{listed}");
    assert_eq!(rows[0], ["REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "COMPRESSED", "BASE"]);
    assert!(rows[1][0].ends_with("/app") && rows[1].last().unwrap().ends_with("/base:1"), "{listed}");
}

#[tokio::test]
async fn files_are_no_commit_that_a_tag_could_name() {
    let machine = Machine::new(users()[0]).await;
    machine.stage("echo content >out");
    let text = fs::read_to_string(machine.path("work/minimalimage.yaml")).unwrap();
    let text = text
        .replace("/app}", "/app, tags: [latest, \"$(commit)\", \"v-$(commitShort)\"]}")
        .replace("spec:\n", "spec:\n  source: {git: {url: \"https://git.example.com/app.git\"}, directory: app}\n");
    machine.file("minimalimage.yaml", &text);
    let result = machine.build(&[]);
    assert_eq!(result["tags"].as_array().unwrap().len(), 1);
    let said = String::from_utf8(machine.run(&["build", "."]).stderr).unwrap();
    assert!(said.contains("the tag $(commit) is left out"), "{said}");
}

#[tokio::test]
async fn layers_are_unpacked_as_the_specification_says() {
    for user in users() {
        let machine = Machine::new(user).await;
        let script = "ls -d /gone || true\nls /emptied\nstat -c '%n %u %a %h %Y' /etc/owned\ncat /usr/lib/through-a-link; echo\n\
                      test -L /lib && echo link";
        let lines = machine.lines(script, "");
        assert_eq!(
            lines,
            ["ls: /gone: No such file or directory", "new", "/etc/owned 1234 640 2 1000000000", "1", "link",]
        );
    }
}

#[tokio::test]
async fn where_there_are_no_overlays_stages_get_a_copy_with_the_same_files() {
    for user in users() {
        let machine = Machine::new(user).await;
        let paths = "/bin /etc /emptied /gone /usr";
        let script = format!("for f in $(find {paths} | sort); do stat -c '%n %f %u:%g' $f; done >out; ls / >>out");
        machine.stage(&script);
        let overlay = machine.build(&[]);
        let copied = machine.build(&["--no-cache", "--rootfs", "copy"]);
        assert_eq!(copied["digest"], overlay["digest"]);
        if user.uid != 0 {
            continue;
        }
        // An overlay cannot be over another one's files.
        let script = "mkdir lower upper work-of-it store && mount -t overlay overlay \
                      -o lowerdir=lower,upperdir=upper,workdir=work-of-it store && cd work && \
                      exec ../minimalimage build --json --store ../store .";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).current_dir(machine.directory.path());
        let output = command.env("HOME", machine.path("home")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("each stage gets a copy"), "{said}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["digest"], overlay["digest"]);
    }
}

#[tokio::test]
async fn files_of_the_spec_are_not_silently_replaced() {
    let machine = Machine::new(users()[0]).await;
    machine.file("a", "of the directory");
    machine.resource(
        "  source: {inline: {files: [{path: a, content: of the spec}]}}\n  image: {copy: [{from: source, source: a, destination: /a}]}\n  \
         destination: {repository: r.example.com/app}\n",
    );
    let said = |arguments: &[&str]| String::from_utf8(machine.run(arguments).stderr).unwrap();
    assert!(said(&["build", "."]).contains("spec.source.inline are not used"));
    assert!(!said(&["build"]).contains("not used"));
}

#[tokio::test]
async fn stages_have_a_pods_environment() {
    for user in users() {
        let machine = Machine::new(user).await;
        let lines = machine.lines(
            "id\npwd\necho $HOME $HOSTNAME $FROM_IMAGE\ngrep ^build: /etc/passwd\nstat -c '%a %g' /workspace",
            "",
        );
        assert_eq!(
            lines,
            [
                "uid=65532(build) gid=0(root) groups=0(root),65532",
                "/workspace",
                "/home/build build yes",
                "build:x:65532:0:build:/home/build:/bin/sh",
                "2777 65532",
            ]
        );
        let lines = machine.lines("id\necho $HOME", "  podSecurity: Baseline");
        assert_eq!(lines, ["uid=1000(builder) gid=1000(builder) groups=1000(builder)", "/tmp"]);
    }
}

#[tokio::test]
async fn values_from_secrets_are_the_callers_and_caches_stay() {
    let machine = Machine::new(users()[0]).await;
    let more = "    env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n    \
                caches: [{name: c, path: /workspace/cache, persistentVolumeClaim: {claimName: claim}}]";
    machine.stage_with("echo $TOKEN >out; echo x >>cache/count; wc -l <cache/count", more);
    let refusal = machine.refusal(&[]);
    assert!(refusal.contains("set them in the environment: TOKEN"), "{refusal}");
    for count in ["1", "2"] {
        let output = machine.command(&["build", "--no-cache", "."]).env("TOKEN", "t").output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(&format!("build | {count}\n")), "{log}");
    }
}

#[tokio::test]
async fn caches_of_the_registry_are_in_the_store_here() {
    for user in users() {
        let machine = Machine::new(user).await;
        let more = "    caches: [{name: c, path: /workspace/cache, registry: {}}]";
        let count = |build: &str| {
            let lines = machine.lines(&format!("echo {build} >>cache/log; busybox wc -l <cache/log"), more);
            lines[0].trim().to_owned()
        };
        assert_eq!([count("one"), count("two"), count("three")], ["1", "2", "3"]);

        let docker = |build: &str| {
            machine.file(
                "Dockerfile",
                &format!(
                    "FROM {}/builder:1 AS build\nUSER root\nRUN --mount=type=cache,target=/c echo {build} >>/c/log && cp /c/log /out\n\
                     FROM scratch\nCOPY --from=build /out /\n",
                    machine.registry.host
                ),
            );
            let _ = fs::remove_dir_all(machine.path("home/layout"));
            machine.build(&["--dockerfile", "Dockerfile", "--output", "oci:../home/layout"]);
            layer_texts(&machine.path("home/layout")).pop().unwrap().1
        };
        assert_eq!([docker("one"), docker("two")], ["one\n", "one\ntwo\n"]);
        let usage = String::from_utf8(machine.run(&["store", "du"]).stdout).unwrap();
        let row = usage.lines().find(|line| line.starts_with("saved caches")).unwrap();
        assert!(!row.contains(" 0B"), "{usage}");
    }
}

#[tokio::test]
async fn stages_that_wait_for_nobody_run_at_the_same_time() {
    let machine = Machine::new(users()[0]).await;
    let stage = |name: &str| {
        format!(
            "  - name: {name}\n    image: {{registry}}/builder:1\n    \
             run: cat /proc/uptime; sleep 3; cat /proc/uptime; echo {name} >out\n"
        )
    };
    let copy = |from: &str| format!("    - {{from: {from}, source: /workspace/out, destination: /{from}}}\n");
    machine.resource(&format!(
        "  stages:\n{}{}  image:\n    copy:\n{}{}  destination: {{repository: {{registry}}/app}}\n",
        stage("a"),
        stage("b"),
        copy("a"),
        copy("b")
    ));
    let output = machine.run(&["build", "."]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    // When each stage began and ended, by the machine's clock.
    let times = |stage: &str| -> Vec<f64> {
        let lines = log.lines().filter_map(|line| line.strip_prefix(&format!("{stage} | ")));
        lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let (a, b) = (times("a"), times("b"));
    assert!(a[0] < b[1] && b[0] < a[1], "{log}");
}

#[tokio::test]
async fn builds_at_the_same_time_share_a_store() {
    let machine = Machine::new(users()[0]).await;
    machine.stage("echo same >out");
    let children: Vec<_> = (0..4).map(|_| machine.command(&["build", "--quiet", "."]).spawn().unwrap()).collect();
    let mut digests: Vec<String> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        digests.push(String::from_utf8(output.stdout).unwrap());
    }
    digests.dedup();
    assert!(matches!(&digests[..], [digest] if digest.starts_with("sha256:") && digest.lines().count() == 1));
}

#[tokio::test]
async fn a_failing_step_says_its_code_and_its_last_lines() {
    let machine = Machine::new(users()[0]).await;
    machine.stage("echo some words; echo the reason >&2; exit 7");
    let refusal = machine.refusal(&[]);
    assert!(refusal.contains("build | some words\n"), "{refusal}");
    // Standard output and standard error are two pipes: which of their lines comes first is open.
    let (_, last) = refusal.split_once("stage build failed with exit code 7; its last lines:\n").expect(&refusal);
    assert!(last.contains("the reason") && last.contains("some words"), "{refusal}");
    machine.stage("true");
    let refusal = machine.refusal(&[]);
    assert!(refusal.contains("/workspace/out does not exist"), "{refusal}");
    machine.stage_with("sleep 100000", "    timeout: 1s");
    let refusal = machine.refusal(&[]);
    assert!(refusal.contains("took longer than its timeout of 1 s"), "{refusal}");
}

#[tokio::test]
async fn what_cannot_be_built_is_refused_with_a_reason() {
    let machine = Machine::new(users()[0]).await;
    machine.stage_with("true", "    colour: red");
    let refusal = machine.refusal(&[]);
    assert!(refusal.contains("minimalimage.yaml") && refusal.contains("colour"), "{refusal}");
    machine.stage_with("true", "    copy: [{from: nobody, source: /a, destination: /tmp/a}]");
    assert!(machine.refusal(&[]).contains("no stage is named `nobody`"));
    machine.stage_with("true", "  source: {configMap: {name: files}}");
    let output = machine.run(&["build"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("CONTEXT"));
    assert_eq!(machine.run(&["build", "--output", "floppy:a"]).status.code(), Some(2));
    machine.stage("true");
    assert!(machine.refusal(&["--runtime", "no-such-runtime"]).contains("apt-get install runc"));
}

#[tokio::test]
async fn pruning_keeps_the_images() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.stage("echo content >out");
        let first = machine.build(&[]);
        let usage = String::from_utf8(machine.run(&["store", "du"]).stdout).unwrap();
        assert!(usage.contains("builder layers") && usage.contains("artifacts"), "{usage}");
        let said = String::from_utf8(
            machine
                .command(&["store", "prune", "--dry-run"])
                .env("MINIMALIMAGE_REGISTRIES_FILE", "none")
                .output()
                .unwrap()
                .stdout,
        )
        .unwrap();
        assert!(said.starts_with("would free"), "{said}");
        assert!(machine.run(&["store", "prune"]).status.success());
        assert_eq!(fs::read_dir(machine.store().join("chains")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(machine.store().join("blobs")).unwrap().count(), 3);
        let second = machine.build(&[]);
        assert_eq!((cached(&second), &second["digest"]), (vec![false], &first["digest"]));
    }
}

#[tokio::test]
async fn without_subordinate_ids_there_is_only_root() {
    if let Some(user) = stranger() {
        let machine = Machine::new(user).await;
        machine.stage("id -u >out");
        let refusal = machine.refusal(&[]);
        assert!(refusal.contains("/etc/owned") && refusal.contains("uidmap"), "{refusal}");
        machine.push_plain_builder().await;
        let output = machine.run(&["build", "--pull", "."]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("warning: stages run as root"), "{said}");
        assert_eq!(machine.lines("id -u", ""), ["0"]);
    }
}
