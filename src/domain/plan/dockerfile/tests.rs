//! What plans are made of which Dockerfiles, and which are refused where.

use serde_json::{Value, json};

use super::*;
use crate::domain::{
    image::USUAL_PATH,
    mode::Mode,
    plan::{Account, Draft, LayerPlan, OutputReference, SOURCE_STAGE},
    recipe::{Owner, Parents, RunMount, SecretFile, Step},
    remote::Remote,
    value::Digest,
};

/// The draft of a spec with `dockerfile` as its `spec.dockerfile`.
fn draft(dockerfile: Value) -> DockerfilePlan {
    draft_of(json!({"dockerfile": dockerfile}))
}

fn draft_of(fields: Value) -> DockerfilePlan {
    let mut spec = json!({
        "source": {"git": {"url": "https://git.example.com/app"}},
        "destination": {"repository": "registry.example.com/app"}
    });
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    match Draft::new(&serde_json::from_value(spec).unwrap()).unwrap() {
        Draft::Dockerfile(plan) => *plan,
        Draft::Complete(_) => panic!("there is a Dockerfile"),
    }
}

/// The base images' configs: Debian without anything, a Node image with a user, one with triggers.
fn configs(open: &OpenDockerfile) -> BTreeMap<Reference, RuntimeConfig> {
    let config = |reference: &Reference| match reference.repository().path() {
        "library/node" => RuntimeConfig {
            env: vec![("PATH".into(), "/node/bin:/bin".into())],
            working_dir: "/home/node".into(),
            user: "node".into(),
            ..RuntimeConfig::default()
        },
        "library/triggers" => {
            RuntimeConfig { on_build: vec!["COPY . /src".into(), "RUN make".into()], ..RuntimeConfig::default() }
        }
        _ => RuntimeConfig::default(),
    };
    open.images().iter().map(|reference| (reference.clone(), config(reference))).collect()
}

fn try_plan(plan: &DockerfilePlan, files: &[(&str, &str)]) -> Result<Plan, DockerfileError> {
    let mut texts: BTreeMap<String, Option<String>> = plan.paths().into_iter().map(|path| (path, None)).collect();
    texts.extend(files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))));
    let open = plan.open(&texts)?;
    open.plan(&configs(&open))
}

fn plan(text: &str) -> Plan {
    try_plan(&draft(json!({})), &[("Dockerfile", text)]).unwrap()
}

fn refusal(text: &str) -> String {
    try_plan(&draft(json!({})), &[("Dockerfile", text)]).unwrap_err().to_string()
}

/// The steps of a stage in short.
fn steps(plan: &Plan, stage: &str) -> Vec<String> {
    let stage = plan.stages.iter().find(|other| other.name == stage).unwrap();
    let items = |items: &[crate::domain::recipe::CopyItem]| {
        let items = items.iter().map(|item| {
            let slash = if item.destination.directory { "/" } else { "" };
            format!("{} > {}{slash}", item.source, item.destination.path)
        });
        items.collect::<Vec<_>>().join(", ")
    };
    let short = |step: &Step| match step {
        Step::CopySource { items: list, owner, .. } => format!("source {}{}", items(list), named(owner.as_ref())),
        Step::CopyArtifact { input, owner, .. } => {
            let input = &stage.inputs[*input];
            let output =
                plan.stages.iter().find(|other| other.name == input.stage).unwrap().outputs[input.output].clone();
            format!("{} {}{}", input.stage, items(&output.items), named(owner.as_ref()))
        }
        Step::Run { command, working_dir, user, .. } => {
            format!("{working_dir}$ {}{}", command.join(" "), named(user.as_ref()))
        }
        Step::MakeDirectory { path, user } => format!("mkdir {path}{}", named(user.as_ref())),
        Step::WriteFiles { files, .. } => format!("write {}: {}", files[0].path, files[0].content.trim_end()),
    };
    stage.steps.iter().map(short).collect()
}

fn named(user: Option<&String>) -> String {
    user.map(|user| format!(" as {user}")).unwrap_or_default()
}

const TWO_STAGES: &str = "\
FROM golang:1.26 AS build
ENV GO111MODULE=off
COPY . .
RUN CGO_ENABLED=0 go build -o /app .
FROM scratch
COPY --from=build /app /app
ENTRYPOINT [\"/app\"]
";

#[test]
fn two_stages_are_one_of_the_plan_and_one_layer() {
    let plan = plan(TWO_STAGES);
    assert_eq!(plan.stages.len(), 1);
    let stage = &plan.stages[0];
    assert_eq!((stage.name.as_str(), stage.account), ("build", Account::Root));
    assert_eq!(steps(&plan, "build"), ["source  > //", "/$ /bin/sh -c CGO_ENABLED=0 go build -o /app ."]);
    assert!(
        matches!(&stage.steps[1], Step::Run { env, .. } if env["GO111MODULE"] == "off" && env["SOURCE_DATE_EPOCH"] == "0")
    );
    assert_eq!(plan.layers, [LayerPlan::Artifact(OutputReference { stage: "build".into(), output: 0 })]);
    assert_eq!((stage.outputs[0].parents, stage.outputs[0].items[0].owner), (Parents::All, None));
    assert_eq!(plan.base, None);
    assert_eq!(plan.image.entrypoint, Some(vec!["/app".to_owned()]));
    assert_eq!(plan.image.env, [("PATH".to_owned(), USUAL_PATH.to_owned())]);
    assert_eq!(plan.images(), ["golang:1.26".parse().unwrap()]);
}

#[test]
fn only_stages_that_the_target_needs_are_run() {
    let text = "FROM a AS one\nFROM b AS two\nRUN x\nFROM c AS test\nCOPY --from=two /x /x\nRUN test\n\
                FROM scratch AS release\nCOPY --from=TWO /x /x\nCOPY --from=d:1 /y /y\nFROM e\nRUN never\n";
    let open = draft(json!({"target": "release"}));
    let plan = try_plan(&open, &[("Dockerfile", text)]).unwrap();
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["two", "image-1"]);
    assert_eq!(plan.skipped, ["one", "test", "stage-4"]);
    let by_number = try_plan(&draft(json!({"target": "3"})), &[("Dockerfile", text)]).unwrap();
    assert_eq!(by_number.stages, plan.stages);
    let error = try_plan(&draft(json!({"target": "relase"})), &[("Dockerfile", text)]).unwrap_err().to_string();
    assert!(error.contains("spec.dockerfile.target: no stage is named `relase`, there are: one, two"), "{error}");
}

#[test]
fn arguments_have_their_scopes() {
    let text = "ARG V=1\nARG BASE=base:$V\nFROM $BASE AS build\nARG V\nARG W=w$V\nENV E=${W:-x} V=env\nARG UNSET\n\
                RUN echo\nFROM scratch\nCOPY --from=build /x /x-$V\n";
    let env_of = |plan: &Plan| match &plan.stages[0].steps[0] {
        Step::Run { env, .. } => env.clone(),
        step => panic!("{step:?}"),
    };
    let default = try_plan(&draft(json!({})), &[("Dockerfile", text)]).unwrap();
    let env = env_of(&default);
    assert_eq!(default.images(), ["base:1".parse().unwrap()]);
    assert_eq!((env["W"].as_str(), env["E"].as_str(), env["V"].as_str()), ("w1", "w1", "env"));
    assert!(!env.contains_key("UNSET") && !env.contains_key("BASE"));
    // A stage does not see what another one has declared.
    assert_eq!(default.stages[0].outputs[0].items[0].destination.path.as_str(), "/x-");
    let args = json!([{"name": "V", "value": "2"}, {"name": "HTTP_PROXY", "value": "http://proxy"}]);
    let given = try_plan(&draft(json!({"args": args})), &[("Dockerfile", text)]).unwrap();
    assert_eq!(given.images(), ["base:2".parse().unwrap()]);
    assert_eq!((env_of(&given)["E"].as_str(), env_of(&given)["HTTP_PROXY"].as_str()), ("w2", "http://proxy"));
}

#[test]
fn platform_arguments_are_the_images_own() {
    let plan = plan(
        "FROM --platform=$BUILDPLATFORM go AS b\nARG TARGETOS\nARG TARGETARCH\nRUN x\nFROM scratch\nCOPY --from=b /x /x\n",
    );
    assert!(
        matches!(&plan.stages[0].steps[0], Step::Run { env, .. } if env["TARGETOS"] == "linux" && env["TARGETARCH"] == "amd64")
    );
    assert!(refusal("FROM --platform=linux/arm64 go\n").starts_with("Dockerfile:1:"));
}

#[test]
fn directories_users_and_shells_hold_until_changed() {
    let text = "FROM node:20 AS build\nWORKDIR app\nCOPY package.json .\nCOPY --chown=node:node a.js /home/node/app\n\
                USER root\nWORKDIR /srv\nRUN a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN b\nRUN [\"c\", \"d\"]\nUSER 7:8\nRUN e\n\
                FROM scratch\nCOPY --from=build /srv/ /srv/\n";
    assert_eq!(
        steps(&plan(text), "build"),
        [
            "mkdir /home/node/app as node",
            "source package.json > /home/node/app/",
            "source a.js > /home/node/app/ as node:node",
            "mkdir /srv",
            "/srv$ /bin/sh -c a",
            "/srv$ /bin/bash -c b",
            "/srv$ c d",
            "/srv$ /bin/bash -c e as 7:8",
        ]
    );
}

#[test]
fn a_stage_from_a_stage_goes_on_where_that_ended() {
    let text = "FROM node AS deps\nWORKDIR /a\nRUN one\nFROM deps AS build\nRUN two\nFROM scratch AS base\nENV A=1\nLABEL l=1\n\
                COPY --from=build /a/x /x\nFROM base\nLABEL m=$A\nCMD [\"/x\"]\n";
    let plan = plan(text);
    let user = " as node";
    assert_eq!(
        steps(&plan, "build"),
        [format!("mkdir /a{user}"), format!("/a$ /bin/sh -c one{user}"), format!("/a$ /bin/sh -c two{user}")]
    );
    assert_eq!(plan.stages.len(), 1);
    assert_eq!(plan.image.labels, [("l".to_owned(), "1".to_owned()), ("m".to_owned(), "1".to_owned())].into());
    assert_eq!(plan.image.cmd, Some(vec!["/x".to_owned()]));
    // A CMD of before was for another program.
    let text = "FROM scratch AS base\nCMD [\"old\"]\nFROM base\nENTRYPOINT [\"/x\"]\n";
    assert_eq!(self::plan(text).image.cmd, None);
    assert_eq!(self::plan(&format!("{text}CMD [\"new\"]\n")).image.cmd, Some(vec!["new".to_owned()]));
}

#[test]
fn here_documents_are_scripts_files_or_the_shells_business() {
    let text = "FROM a AS b\nARG N=1\nRUN <<EOF\necho $N\nEOF\nRUN cat <<A >/a && cat <<-'B' >/b\n$N\nA\n\tx\nB\n\
                COPY <<one <<\"two\" /etc/\nn=$N\none\nn=$N\ntwo\nFROM scratch\nCOPY --from=b /a /a\nCOPY --chmod=600 <<F /f\nf\nF\n";
    let plan = plan(text);
    let steps = steps(&plan, "b");
    assert_eq!(steps[0], "/$ /bin/sh -c echo $N\n");
    assert_eq!(steps[1], "/$ /bin/sh -c cat <<A >/a && cat <<-'B' >/b\n$N\nA\n\tx\nB");
    assert_eq!(steps[2], "write /etc/one: n=1");
    let LayerPlan::Files(files) = &plan.layers[1] else { panic!("{:?}", plan.layers) };
    assert_eq!((files[0].path.as_str(), files[0].mode, files[0].content.as_str()), ("/f", 0o600, "f\n"));
}

#[test]
fn copies_know_directories_owners_modes_and_exclusions() {
    let text = "FROM a AS b\nCOPY x /opt/tool/\nCOPY y /opt/tool\nCOPY a.c b.c /usr/local/bin\nCOPY /up/../z ../w\n\
                COPY --chown=1000 --chmod=0640 --exclude=*.md docs /docs\nCOPY --parents src/./a/b.c /p/\n\
                FROM scratch\nCOPY --from=0 /opt /opt\n";
    let plan = plan(text);
    assert_eq!(
        steps(&plan, "b"),
        [
            "source x > /opt/tool/",
            "source y > /opt/tool/",
            "source a.c > /usr/local/bin/, b.c > /usr/local/bin/",
            "source z > /w",
            "source docs > /docs as 1000:1000",
            "source src/a/b.c > /p/",
        ]
    );
    let item = |step: usize| match &plan.stages[0].steps[step] {
        Step::CopySource { items, .. } => items[0].clone(),
        step => panic!("{step:?}"),
    };
    let docs = item(4);
    assert_eq!((docs.owner, docs.mode.clone()), (Some(Owner { uid: 1000, gid: 1000 }), Some(Mode::Bits(0o640))));
    assert_eq!(docs.exclude, ["*.md"]);
    assert_eq!(item(5).parents, Some(1));
    assert_eq!(item(0).owner, Some(Owner::default()));
}

#[test]
fn the_config_is_what_docker_would_write() {
    let text = "FROM gcr.io/distroless/static\nMAINTAINER me\nEXPOSE 80 53/udp 8000-8001\nVOLUME /data [\"x\"]\nUSER 1\nSTOPSIGNAL SIGINT\n\
                HEALTHCHECK --interval=5s --retries=2 CMD [\"/check\"]\nONBUILD COPY . .\nCMD run it\n";
    let config = plan(text).image;
    assert_eq!(config.ports, ["80/tcp", "53/udp", "8000/tcp", "8001/tcp"]);
    assert_eq!(config.user.as_deref(), Some("1"));
    assert_eq!(config.cmd, Some(["/bin/sh", "-c", "run it"].map(str::to_owned).to_vec()));
    assert_eq!(
        config.healthcheck,
        Some(json!({"Test": ["CMD", "/check"], "Interval": 5_000_000_000_u64, "Retries": 2}))
    );
    assert_eq!(config.on_build, Some(vec!["COPY . .".to_owned()]));
    assert_eq!(config.author.as_deref(), Some("me"));
    assert_eq!(config.working_dir, None);
}

#[test]
fn triggers_of_the_base_run_first() {
    let plan = plan("FROM triggers AS b\nRUN x\nFROM scratch\nCOPY --from=b /x /x\n");
    assert_eq!(steps(&plan, "b"), ["source  > /src", "/$ /bin/sh -c make", "/$ /bin/sh -c x"]);
}

#[test]
fn files_of_the_context_are_layers_and_the_ignore_file_counts() {
    let draft = draft(json!({"path": "build/Dockerfile"}));
    assert_eq!(draft.paths(), ["build/Dockerfile", "build/Dockerfile.dockerignore", ".dockerignore"]);
    let text = "FROM scratch\nCOPY web /srv\n";
    let files = [("build/Dockerfile", text), (".dockerignore", "# comment\n*.md\n\n!README.md\n")];
    let plan = try_plan(&draft, &files).unwrap();
    assert_eq!(
        (plan.stages[0].name.as_str(), plan.stages[0].ignore.as_slice()),
        (SOURCE_STAGE, &["*.md".to_owned(), "!README.md".to_owned()][..])
    );
    let own = [files[0], files[1], ("build/Dockerfile.dockerignore", "x\n")];
    assert_eq!(try_plan(&draft, &own).unwrap().stages[0].ignore, ["x"]);
    let error = try_plan(&draft, &[("Dockerfile", text)]).unwrap_err().to_string();
    assert!(error.contains("build/Dockerfile") && error.contains("spec.dockerfile.path"), "{error}");
}

#[test]
fn names_fit_kubernetes_and_do_not_meet() {
    let text = "FROM a AS my_Stage.1\nFROM b AS my-stage_1\nFROM c AS source\nFROM d\nFROM scratch\n\
                COPY --from=my_stage.1 /x /1\nCOPY --from=my-stage_1 /x /2\nCOPY --from=source /x /3\nCOPY --from=3 /x /4\n";
    let plan = plan(text);
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["my-stage-1", "my-stage-1-1", "source-2", "stage-3"]);
    let plan = self::plan(
        "FROM a AS a-2\nFROM b AS a\nFROM c AS a_\nFROM scratch\nCOPY --from=0 /x /0\nCOPY --from=1 /x /1\nCOPY --from=2 /x /2\n",
    );
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["a-2", "a", "a-3"]);
}

#[test]
fn images_are_known_by_where_they_are_named() {
    let draft = draft(json!({}));
    let text = "ARG OF=b\nFROM a AS a\nFROM $OF AS b\nCOPY --from=a /x /\nFROM scratch\nCOPY --from=b /x /\nCOPY --from=nosuch /x /\n\
                COPY --from=r.example.com/c /x /\n";
    let open = draft.open(&BTreeMap::from([("Dockerfile".to_owned(), Some(text.to_owned()))])).unwrap();
    let places: Vec<_> = open.images().iter().map(|image| open.place_of(image)).collect();
    let expected = [
        "Dockerfile:2:6",
        "Dockerfile:3:6",
        "Dockerfile:7:13: no stage is named `nosuch`, so it is an image",
        "Dockerfile:8:13",
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_last_stage_that_runs_something_is_refused_with_the_way_out() {
    let error =
        try_plan(&draft(json!({})), &[("Dockerfile", "FROM ubuntu\nCOPY . .\nRUN make\nENTRYPOINT [\"/app\"]\n")]);
    let error = error.unwrap_err();
    assert!(matches!(error, DockerfileError::NotMinimal { .. }));
    let text = error.to_string();
    assert!(text.starts_with("Dockerfile:3:1: RUN in the stage that becomes the image"), "{text}");
    assert!(text.contains("COPY --from=build"), "{text}");
    // What a parent stage ran counts too.
    assert!(refusal("FROM ubuntu AS a\nRUN make\nFROM a\nCMD x\n").starts_with("Dockerfile:2:1: RUN"));
}

#[test]
fn what_cannot_be_done_is_said_with_its_place() {
    for (text, place, words) in [
        ("FROM scratch\nCOPY --from=nosuch:$V /x /x\n", "2:", "variables are not filled in"),
        ("FROM scratch\nCOPY --from=1 /x /x\n", "2:", "there is no stage 1: stages count from 0 to 0"),
        ("FROM scratch\nCOPY --from=0 /x /x\n", "2:", "only copy from stages before it"),
        ("FROM x AS build\nFROM scratch\nCOPY --from=biuld /x /x\n", "3:", "did you mean build"),
        ("FROM scratch\nCOPY --chown=app:app x /x\n", "2:", "needs numbers"),
        ("FROM scratch\nCOPY --chmod=u+y x /x\n", "2:", "expected permission bits"),
        ("FROM scratch\nADD https://example.com/x /x\n", "2:5:", "add --checksum=sha256:"),
        ("FROM scratch\nADD a https://example.com/r.git#v1 /x/\n", "2:7:", "`v1` can move"),
        ("FROM scratch\nADD --checksum=sha256:0 a /x\n", "2:", "is for addresses"),
        ("FROM scratch\nADD --checksum=sha256:0 https://h/a https://h/b /x/\n", "2:", "an ADD of its own"),
        ("FROM scratch\nADD --checksum=sha256:0 <<EOF /x\na\nEOF\n", "2:", "is for addresses"),
        ("FROM scratch\nEXPOSE http\n", "2:", "is no port"),
        ("FROM $NOTHING\n", "1:", "FROM is empty"),
        ("FROM a AS b\nRUN --network=host x\nFROM scratch\nCOPY --from=b /x /x\n", "2:", "leave --network=host out"),
        ("FROM scratch AS a\nCOPY x /x\nFROM scratch\nCOPY --from=a /x /x\n", "1:", "no container"),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(&format!("Dockerfile:{place}")) && error.contains(words), "{text}\n{error}");
    }
    // Several at once.
    let error = refusal("FROM scratch\nEXPOSE http\nCOPY --chmod=x a /a\n");
    assert_eq!(error.matches("Dockerfile:").count(), 2, "{error}");
}

#[test]
fn a_restricted_build_is_checked_before_it_runs() {
    let draft = draft_of(json!({"podSecurity": "Restricted", "dockerfile": {}}));
    let fine = "FROM go AS b\nWORKDIR /workspace\nCOPY . .\nRUN make\nFROM scratch\nCOPY --from=b /workspace/x /x\n";
    assert_eq!(try_plan(&draft, &[("Dockerfile", fine)]).unwrap().stages[0].account, Account::Restricted);
    for (text, words) in [
        ("FROM go AS b\nWORKDIR /src\nFROM scratch\nCOPY --from=b /x /x\n", "/src cannot be written"),
        ("FROM go AS b\nCOPY . /src\nFROM scratch\nCOPY --from=b /x /x\n", "/src cannot be written"),
        ("FROM node AS b\nRUN x\nFROM scratch\nCOPY --from=b /x /x\n", "another user"),
    ] {
        let error = try_plan(&draft, &[("Dockerfile", text)]).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("Baseline"), "{error}");
    }
}

#[test]
fn what_the_spec_adds_is_in_the_image() {
    let draft = draft_of(json!({
        "dockerfile": {"inline": "FROM scratch\nLABEL a=1 b=1\nCOPY <<F /f\nf\nF\n"},
        "image": {"labels": {"b": "2"}, "annotations": {"n": "v"}, "files": [{"path": "/g", "content": "g"}]}
    }));
    let plan = try_plan(&draft, &[]).unwrap();
    assert_eq!(plan.image.labels, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into());
    assert_eq!(plan.image.annotations["n"], "v");
    assert!(matches!(&plan.layers[..], [LayerPlan::Files(files)] if files.len() == 2));
    assert!(plan.stages.is_empty());
}

#[test]
fn mounts_are_there_for_one_run_alone() {
    let text = "FROM go AS tools\nRUN make tools\nFROM go AS build\nWORKDIR /src\n\
                RUN --mount=type=bind,target=. --mount=from=tools,source=/bin/tool,target=/tool --mount=type=cache,target=/root/.cache \
                --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=npmrc,target=/root/.npmrc,mode=0440 \
                --mount=type=secret,id=other --network=none make\n\
                FROM scratch\nCOPY --from=build /out /out\n";
    let from = |key: &str| json!({"secretKeyRef": {"name": "s", "key": key}});
    let secrets = json!([{"id": "unused", "valueFrom": from("u")}, {"id": "token", "valueFrom": from("t")},
        {"id": "npmrc", "valueFrom": from("n")}]);
    let plan = try_plan(&draft(json!({"secrets": secrets})), &[("Dockerfile", text)]).unwrap();
    assert_eq!(
        steps(&plan, "build"),
        ["mkdir /src", "source  > /src", "tools /bin/tool > /tool", "/src$ /bin/sh -c make"]
    );
    let build = plan.stages.iter().find(|stage| stage.name == "build").unwrap();
    assert!(matches!(build.steps[1], Step::CopySource { transient: true, .. }));
    assert!(matches!(build.steps[2], Step::CopyArtifact { transient: true, .. }));
    let Step::Run { mounts, offline: true, .. } = &build.steps[3] else { panic!("{:?}", build.steps) };
    let root = Owner::default();
    let secret = |index, path: Option<(&str, u32)>, env: Option<&str>| RunMount::Secret {
        variable: format!("MINIMALIMAGE_SECRET_{index}"),
        file: path.map(|(path, mode)| SecretFile { path: path.parse().unwrap(), mode, owner: root }),
        env: env.map(str::to_owned),
    };
    assert_eq!(
        mounts[..],
        [
            RunMount::Cache {
                path: "/root/.cache".parse().unwrap(),
                index: 0,
                volume: false,
                mode: 0o755,
                owner: root
            },
            secret(1, None, Some("TOKEN")),
            secret(2, Some(("/root/.npmrc", 0o440)), None),
        ]
    );
    // Only what a stage uses is in its Pod.
    let names = |name: &str| -> Vec<String> {
        let stage = plan.stages.iter().find(|stage| stage.name == name).unwrap();
        stage.settings.iter().flat_map(|settings| &settings.env).map(|variable| variable.name.clone()).collect()
    };
    assert_eq!(names("build"), ["MINIMALIMAGE_SECRET_1", "MINIMALIMAGE_SECRET_2"]);
    assert!(names("tools").is_empty());
    for (flag, words) in [
        ("type=secret,id=other,required", "spec.dockerfile.secrets has no secret"),
        ("type=ssh,required", "no SSH agent"),
        ("type=cache,target=/c,from=tools", "begins with files"),
    ] {
        let text = text.replace("--network=none", &format!("--mount={flag}"));
        let error = try_plan(&draft(json!({})), &[("Dockerfile", &text)]).unwrap_err().to_string();
        assert!(error.starts_with("Dockerfile:5:") && error.contains(words), "{error}");
    }
}

#[test]
fn a_here_document_can_be_a_program() {
    let plan =
        plan("FROM a AS b\nRUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF\nFROM scratch\nCOPY --from=b /x /x\n");
    let Step::Run { command, mounts, .. } = &plan.stages[0].steps[0] else { panic!("{:?}", plan.stages[0].steps) };
    assert_eq!(command[..], ["/tmp/.heredoc-EOF"]);
    let script =
        |mount: &RunMount| matches!(mount, RunMount::Script { content, .. } if content.ends_with("print(1)\n"));
    assert!(mounts.iter().any(script));
}

#[test]
fn what_a_dockerfile_grows_to_is_bounded() {
    let large = "x".repeat(60_000);
    let many = |line: &dyn Fn(usize) -> String, count: usize| (0..count).map(line).collect::<String>();
    for text in [
        format!("FROM scratch\nENV A={large}\n{}", many(&|index| format!("ENV B{index}=$A\n"), 200)),
        format!("FROM a AS b\nENV A={large}\n{}FROM scratch\nCOPY --from=b /x /x\n", many(&|_| "RUN x\n".into(), 200)),
        "FROM scratch\nEXPOSE 1-65535\n".to_owned(),
        format!("FROM a AS b\nCOPY {}/d/\nFROM scratch\nCOPY --from=b /x /x\n", "a ".repeat(9000)),
        format!(
            "FROM a AS s0\nCOPY {}/d/\n{}FROM scratch\nCOPY --from=s60 /x /x\n",
            "a ".repeat(300),
            many(&|index| format!("FROM s{index} AS s{}\n", index + 1), 60)
        ),
        format!("FROM scratch\n{}", many(&|index| format!("VOLUME /v{index}\n"), 3000)),
        format!("FROM scratch\n{}", many(&|index| format!("ENV V{index}=1\n"), 3000)),
    ] {
        let error = refusal(&text);
        assert!(error.contains("MiB") || error.contains("not possible"), "{error}");
        assert!(error.len() < 1_000_000);
    }
}

#[test]
fn directories_above_a_known_one_are_known() {
    let plan = plan("FROM a AS b\nWORKDIR /a/b\nCOPY f /a\nFROM scratch\nCOPY --from=b /x /x\n");
    assert_eq!(steps(&plan, "b")[1], "source f > /a/");
}

#[test]
fn everything_wrong_is_said_at_once_in_the_order_of_the_file() {
    let error = refusal(
        "FROM a AS build\nRUN --network=host x\nFROM b\nCOPY --from=biuld /x /x\nEXPOSE http\nRUN make\nCOPY --chmod=x a /a\n",
    );
    let lines: Vec<&str> =
        error.split("Dockerfile:").skip(1).map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["4", "5", "6", "7"], "{error}");
}

#[test]
fn steps_and_copies_know_their_lines() {
    let plan = plan(
        "FROM a AS b\nRUN --mount=type=bind,source=x,target=/x make\n\nCOPY y /y\nWORKDIR /z\nFROM scratch\nCOPY --from=b /out /out\n",
    );
    let places = &plan.stages[0].places;
    let step = |line: u32| format!("Dockerfile:{line}");
    assert_eq!(places.steps, [step(2), step(2), step(4), step(5)]);
    assert_eq!(places.sources["/out"], step(7));
}

#[test]
fn mounts_are_checked_before_a_restricted_build_runs() {
    let draft = draft_of(json!({"podSecurity": "Restricted", "dockerfile": {"secrets": [
        {"id": "t", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}));
    for (mount, path) in [
        ("type=secret,id=t", Some("/run/secrets/t")),
        ("type=cache,target=/root/.cache", Some("/root/.cache")),
        ("type=secret,id=t,env=T", None),
        ("type=secret,id=t,target=/tmp/t", None),
    ] {
        let text = format!("FROM go AS b\nRUN --mount={mount} x\nFROM scratch\nCOPY --from=b /x /x\n");
        let error = try_plan(&draft, &[("Dockerfile", &text)]).err().map(|error| error.to_string());
        match path {
            Some(path) => {
                let error = error.unwrap();
                assert!(error.starts_with(&format!("Dockerfile:2:1: {path} cannot be written")), "{error}");
            }
            None => assert_eq!(error, None, "{mount}"),
        }
    }
}

#[test]
fn what_nothing_in_the_image_can_read_is_told() {
    let text = "FROM go AS b\nCMD x\nFROM scratch\nCOPY --from=b /x /x\nENTRYPOINT x\n";
    let warnings = plan(text).warnings;
    assert!(
        matches!(&warnings[..], [warning] if warning.starts_with("Dockerfile:5:1: scratch has no shell")),
        "{warnings:?}"
    );
}

#[test]
fn directories_of_a_layer_below_keep_their_owner() {
    let plan = plan("FROM a AS b\nRUN x\nFROM scratch\nCOPY --from=b --chown=7 /data /data\nCOPY c /data/c/\n");
    let source = plan.stages.iter().find(|stage| stage.name == SOURCE_STAGE).unwrap();
    assert_eq!(source.outputs[0].lower, ["/data".parse().unwrap()]);
}

#[test]
fn of_an_argument_and_a_variable_the_later_one_holds() {
    let text =
        "FROM a AS b\nARG N=1\nENV N=2\nRUN x\nARG N=3\nRUN y\nFROM b AS c\nRUN z\nFROM scratch\nCOPY --from=c /x /x\n";
    let plan = plan(text);
    let values: Vec<&str> = plan.stages[0]
        .steps
        .iter()
        .map(|step| match step {
            Step::Run { env, .. } => env["N"].as_str(),
            step => panic!("{step:?}"),
        })
        .collect();
    assert_eq!(values, ["2", "3", "2"]);
}

#[test]
fn what_is_given_and_not_taken_or_wanted_and_not_given_is_doubtful() {
    let text = "ARG BASE=golang\nFROM $BASE:1.26 AS build\nARG VERSION\nRUN --mount=type=secret,id=token make\n\
                FROM build AS again\nFROM scratch\nCOPY --from=again /x /x\nCOPY --from=build /x /y\n";
    let args = json!([{"name": "BASE", "value": "golang"}, {"name": "VERSIN", "value": "1"}, {"name": "NO_PROXY", "value": "*"}]);
    let secrets = json!([{"id": "tokn", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    let plan = try_plan(&draft(json!({"args": args, "secrets": secrets})), &[("Dockerfile", text)]).unwrap();
    assert_eq!(
        plan.warnings,
        [
            "Dockerfile: no ARG takes the build argument VERSIN, did you mean VERSION?",
            "Dockerfile:4:13: no secret with the id `token` is given, the RUN does without, did you mean tokn?",
            "Dockerfile: no RUN that is needed mounts the secret tokn",
        ]
    );
}

#[test]
fn caches_are_found_by_their_ids_in_every_stage_of_one_resource() {
    let text = "FROM golang:1.26 AS a\nRUN --mount=type=cache,target=/x --mount=type=cache,id=both,target=/y one\n\
                FROM golang:1.26 AS b\nRUN --mount=type=cache,id=both,target=/z --mount=type=cache,id=/x,target=/w two\n\
                FROM scratch\nCOPY --from=a /o /a\nCOPY --from=b /o /b\n";
    let plan = try_plan(&draft(json!({})), &[("Dockerfile", text)]).unwrap();
    let keys = |index: usize, resource: &str| plan.cache_keys(&plan.stages[index], resource);
    assert_eq!(plan.stages[0].caches, ["/x", "both"]);
    let mut of_b = keys(1, "n/r");
    of_b.reverse();
    assert_eq!(keys(0, "n/r"), of_b);
    assert_ne!(keys(0, "n/r"), keys(0, "n/other"));
    assert_ne!(keys(0, "n/r")[0], keys(0, "n/r")[1]);
}

#[test]
fn what_add_fetches_is_a_stage_without_a_container() {
    let (digest, commit) = (Digest::of(b""), "0123456789abcdef0123456789abcdef01234567");
    let text = format!(
        "ARG AT=https://example.com\nFROM a AS add-1\nARG AT\nRUN before\nADD --checksum={digest} $AT/a*b /in/\n\
         ADD --chmod=0644 x $AT/r.git#{commit}:docs y /all/\nRUN make\n\
         FROM scratch\nARG AT\nADD --checksum={digest} --chown=1:2 $AT/a*b /file\nCOPY --from=add-1 /out /out\n"
    );
    let plan = plan(&text);
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["add-1-1", "add-2", "add-1"]);
    assert_eq!(
        steps(&plan, "add-1")[1..4],
        [r"add-1-1 a\*b > /in/", "source x > /all/", "add-2  > /all/"].map(str::to_owned)
    );
    assert_eq!(steps(&plan, "add-1")[4], "source y > /all/");
    let [file, git, stage] = &plan.stages[..] else { panic!("{names:?}") };
    assert!(matches!(&git.remote, Some(Remote::Git { directory, submodules: true, .. }) if directory == "docs"));
    assert!(!git.uses_source() && stage.uses_source());
    // Both copies are of one download.
    assert_eq!(file.outputs.len(), 2);
    let modes =
        file.outputs.iter().map(|output| (output.items[0].mode.clone(), output.items[0].owner)).collect::<Vec<_>>();
    assert_eq!(modes, [(Some(Mode::Bits(0o600)), Some(Owner { uid: 1, gid: 2 })), (Some(Mode::Bits(0o600)), None)]);
    assert_eq!(file.places.sources.values().collect::<Vec<_>>(), ["Dockerfile:10"]);
    // Named for where it comes first, and never like a stage that is only shown.
    let names = |text: &str| {
        let plan = try_plan(&draft(json!({})), &[("Dockerfile", text)]).unwrap();
        let names = plan.stages.iter().map(|stage| stage.name.clone()).chain(plan.skipped);
        names.collect::<Vec<_>>()
    };
    let add = |host: &str| format!("ADD --checksum={digest} https://{host}/f /{host}\n");
    let text = format!("FROM a AS Add-1\nFROM a AS add-1\nFROM scratch\n{}{}", add("z"), add("b"));
    assert_eq!(names(&text), ["add-1-2", "add-2", "add-1", "add-1-1"]);
    // As many as status has rows for.
    let many = |count: usize| format!("FROM scratch\n{}", (1..=count).map(|n| add(&n.to_string())).collect::<String>());
    assert_eq!(names(&many(127)).len(), 127);
    assert!(refusal(&many(128)).contains("are too many: 128 are possible"));
    // It never changes, so a stage can be cut behind it.
    assert_eq!(plan.snapshots(stage).cuts, [1]);
}
