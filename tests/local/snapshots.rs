//! Snapshots without a cluster: what ran once before a copy does not run again while what it was made from is the same.

use std::fs;

use serde_json::Value;

use crate::support::{Machine, layer_texts, users};

/// Two cuts, each behind a command that leaves something that is never the same twice; the first also removes, links and opens.
const DOCKERFILE: &str = "FROM BUILDER AS build\n\
    RUN cat /proc/sys/kernel/random/uuid >/first && ln /first /hard && mkdir -m 1777 /open && rm -r /gone && busybox chmod 4711 /first\n\
    COPY lock /lock\n\
    RUN cat /proc/sys/kernel/random/uuid >/second\n\
    COPY . /src\n\
    RUN cat /first /second /lock /src/input >/seen && stat -c %h%a /first >>/seen && stat -c %a /open >>/seen && ls -d /gone 2>>/seen || true\n\
    FROM scratch\nCOPY --from=build /seen /seen\n";

/// Builds with a policy; gives the lines of the image's `/seen`.
fn build(machine: &Machine, policy: &str, arguments: &[&str]) -> Vec<String> {
    machine.resource(&format!(
        "  dockerfile: {{path: Dockerfile, snapshots: {{policy: {policy}}}}}\n  destination: {{repository: {{registry}}/app}}\n"
    ));
    let _ = fs::remove_dir_all(machine.path("home/layout"));
    machine.build(&[&["--output", "oci:../home/layout"], arguments].concat());
    let texts = layer_texts(&machine.path("home/layout"));
    texts.into_iter().find(|(path, _)| path == "seen").unwrap().1.lines().map(str::to_owned).collect()
}

/// How many steps of the first stage a build would not run.
fn spared(machine: &Machine) -> u64 {
    let plan = machine.run(&["plan", "--json", "."]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["stages"][0]["state"], "run", "{plan}");
    plan["stages"][0]["stepsInSnapshot"].as_u64().unwrap()
}

#[tokio::test]
async fn only_what_a_change_reaches_runs_again() {
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        machine.file("Dockerfile", &DOCKERFILE.replace("BUILDER", &format!("{}/builder:1", machine.registry.host)));
        machine.file("lock", "one\n");
        machine.file("input", "source\n");
        let first = build(&machine, "Always", &[]);
        assert_eq!(first[2..], ["one", "source", "24711", "1777", "ls: /gone: No such file or directory"]);

        let usage = String::from_utf8(machine.run(&["store", "du"]).stdout).unwrap();
        let count = |kind: &str| {
            let row = usage.lines().find_map(|line| line.strip_prefix(kind)).unwrap().trim();
            row.split(' ').next().unwrap().to_owned()
        };
        assert_eq!([count("snapshots"), count("saved caches")], ["6", "0"], "{usage}");

        machine.file("input", "changed\n");
        assert_eq!(spared(&machine), 3);
        let changed = build(&machine, "Always", &[]);
        assert_eq!((&changed[..2], &changed[3]), (&first[..2], &"changed".to_owned()));
        assert_eq!(changed[4..], first[4..], "modes, links and deletions are as they were");

        machine.file("lock", "two\n");
        assert_eq!(spared(&machine), 1);
        let other = build(&machine, "Always", &[]);
        assert_eq!((&other[0], &other[2]), (&first[0], &"two".to_owned()));
        assert_ne!(other[1], first[1], "what was made from another file is made anew");
        machine.file("lock", "one\n");
        machine.file("input", "again\n");
        assert_eq!(build(&machine, "Always", &[])[..2], first[..2]);

        let forced = build(&machine, "Always", &["--no-cache"]);
        assert!(forced[0] != first[0] && forced[1] != first[1]);
        machine.file("input", "once more\n");
        assert_eq!(build(&machine, "Always", &[])[..2], forced[..2], "a forced build makes new ones");
        machine.file("input", "and never\n");
        let never = build(&machine, "Never", &[]);
        assert!(never[0] != forced[0] && never[1] != forced[1]);
        machine.file("input", "nothing worth it\n");
        machine.file(
            "Dockerfile",
            &DOCKERFILE.replace("BUILDER", &format!("{}/builder:1", machine.registry.host)).replace("/hard", "/hard2"),
        );
        let quick = [build(&machine, "Auto", &[]), {
            machine.file("input", "still nothing\n");
            build(&machine, "Auto", &[])
        }];
        assert_ne!(quick[0][0], quick[1][0], "a command that takes no time is not kept");
    }
}

#[tokio::test]
async fn without_overlays_a_snapshot_goes_onto_the_copy_that_is_there() {
    let machine = Machine::new(users()[0]).await;
    machine.push_plain_builder().await;
    machine.file("Dockerfile", &DOCKERFILE.replace("BUILDER", &format!("{}/builder:1", machine.registry.host)));
    machine.file("lock", "one\n");
    machine.file("input", "source\n");
    let first = build(&machine, "Always", &["--rootfs", "copy"]);
    machine.file("input", "changed\n");
    let output = machine.run(&["build", "--rootfs", "copy", "."]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("from a snapshot") && !said.contains("pulling"), "{said}");
    assert!(said.contains("build: step 5 of 5: cat /first /second"), "{said}");
    let again = build(&machine, "Always", &["--rootfs", "copy"]);
    assert_eq!((&again[..2], &again[4..]), (&first[..2], &first[4..]));
}

#[tokio::test]
async fn a_last_stage_that_may_be_large_is_the_image_with_all_that_it_changed() {
    let text = "FROM BUILDER\nRUN rm -r /gone /emptied && echo made >/made && busybox chmod 4755 /made && ln /made /linked\n\
                COPY input /copied/\nENV A=1\nUSER builder\nWORKDIR /work/dir\nENTRYPOINT [\"/bin/sh\"]\n";
    for user in users() {
        let machine = Machine::new(user).await;
        machine.push_plain_builder().await;
        machine.file("Dockerfile", &text.replace("BUILDER", &format!("{}/builder:1", machine.registry.host)));
        machine.file("input", "words");
        let resource = |allowed: bool| {
            machine.resource(&format!(
                "  dockerfile: {{path: Dockerfile, allowLargeBase: {allowed}}}\n  destination: {{repository: {{registry}}/app}}\n"
            ));
        };
        resource(false);
        let refused = machine.refusal(&[]);
        assert!(refused.contains("Dockerfile:2:1") && refused.contains("allowLargeBase"), "{refused}");
        resource(true);
        let result = machine.build(&["--output", "oci:../home/layout"]);
        let texts = layer_texts(&machine.path("home/layout"));
        let paths: Vec<_> = texts.iter().map(|(path, _)| path.as_str()).collect();
        for path in [".wh.gone", ".wh.emptied", "made", "linked", "copied/input", "work/dir"] {
            assert!(paths.contains(&path) || paths.contains(&format!("{path}/").as_str()), "{path}: {paths:?}");
        }
        assert!(paths.contains(&"bin/busybox"), "the builder image is below");
        assert_eq!(result["layers"].as_array().unwrap().len(), 2, "{result}");
        let again = machine.build(&["--no-cache", "--dockerfile", "Dockerfile", "--allow-large-base"]);
        assert_eq!(result["digest"], again["digest"], "the same steps give the same bytes");
    }
}
