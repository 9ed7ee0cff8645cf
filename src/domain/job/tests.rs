//! What Jobs look like.

use serde_json::{Value, json};

use super::*;
use crate::domain::plan::{Draft, Pins, Plan};

fn rendered(change: impl FnOnce(&mut Value), settings: &Settings) -> Value {
    rendered_from(None, change, settings)
}

fn rendered_from(start: Option<Start>, change: impl FnOnce(&mut Value), settings: &Settings) -> Value {
    let mut spec = json!({
        "source": {"git": {"url": "https://git.example.com/app", "secretRef": {"name": "git-login"}}},
        "stages": [{"name": "build", "image": "golang:1.26", "run": "make",
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}],
            "caches": [{"name": "go", "path": "/tmp/go", "persistentVolumeClaim": {"claimName": "claim"}}]}],
        "image": {"copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}]},
        "destination": {"repository": "registry.example.com/app", "secretRef": {"name": "push"}}
    });
    change(&mut spec);
    let plan = Draft::new(&serde_json::from_value(spec).unwrap()).unwrap().complete().unwrap();
    rendered_stage(&plan, &plan.stages[0], start, settings)
}

fn rendered_stage(plan: &Plan, stage: &StagePlan, start: Option<Start>, settings: &Settings) -> Value {
    let pins = Pins {
        images: plan.images().into_iter().map(|image| (image.clone(), Digest::of(b"builder"))).collect(),
        revision: Some("c".into()),
        packages: None,
        certificates: None,
    };
    let recipe = plan.recipe(stage, &pins, &BTreeMap::new()).unwrap();
    let key = recipe.quick_key(Some("c"));
    let source = plan
        .outline
        .source
        .as_ref()
        .map(|source| SourceTask { origin: source.origin("c", None).unwrap(), directory: source.directory.clone() });
    let task = task(stage, recipe, source, Vec::new(), (&plan.outline.cache, false), settings);
    let run = StageRun { stage: stage.clone(), key, attempt: 0, generation: 1, task, start };
    let refs = References {
        source_secret: Some("git-login".into()),
        cache_secret: Some("push".into()),
        pull_secrets: vec!["pull".into()],
        ..References::default()
    };
    let owner = JobOwner { name: "app".into(), namespace: "ns".into(), uid: "uid".into() };
    serde_json::to_value(render(&owner, &run, &refs, settings)).unwrap()
}

fn container<'a>(job: &'a Value, name: &str) -> &'a Value {
    let containers = job["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    containers.iter().find(|container| container["name"] == name).unwrap()
}

fn mounts(container: &Value) -> Vec<&str> {
    container["volumeMounts"].as_array().unwrap().iter().map(|mount| mount["name"].as_str().unwrap()).collect()
}

#[test]
fn restricted_pods_meet_the_restricted_standard() {
    let job = rendered(|_| {}, &Settings::default());
    let annotations = &job["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "build");
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for name in ["agent", "build"] {
        let security = &container(&job, name)["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
    }
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(job["spec"]["backoffLimit"], 0);
    assert_eq!(pod["activeDeadlineSeconds"], 3600);
}

#[test]
fn credentials_are_mounted_in_the_agent_alone() {
    let job = rendered(|_| {}, &Settings::default());
    let agent = mounts(container(&job, "agent"));
    assert!(agent.contains(&"source-secret") && agent.contains(&"registry-secret"));
    let build = mounts(container(&job, "build"));
    assert!(!build.iter().any(|mount| mount.contains("secret")), "{build:?}");
    let names: Vec<_> =
        container(&job, "build")["env"].as_array().unwrap().iter().map(|env| env["name"].clone()).collect();
    assert_eq!(names, ["HOME", "TOKEN"]);
}

#[test]
fn what_add_fetches_gets_no_credential_of_the_source() {
    let spec = json!({
        "source": {"git": {"url": "https://git.example.com/app", "secretRef": {"name": "git-login"}}},
        "stages": [{"name": "add-1", "image": "x"}],
        "image": {"copy": [{"from": "add-1", "source": "/a", "destination": "/a"}]},
        "destination": {"repository": "registry.example.com/app"}
    });
    let plan = Draft::new(&serde_json::from_value(spec).unwrap()).unwrap().complete().unwrap();
    let remote = Remote::File { url: "https://example.com/a".into(), digest: Digest::of(b""), name: "a".into() };
    let stage = StagePlan { image: None, remote: Some(remote), steps: Vec::new(), ..plan.stages[0].clone() };
    let job = rendered_stage(&plan, &stage, None, &Settings::default());
    assert_eq!(mounts(container(&job, "agent")), ["shared", "work", "registry-secret"]);
    let task = container(&job, "agent")["env"][0]["value"].as_str().unwrap();
    let task: StageTask = serde_json::from_str(task).unwrap();
    assert_eq!(task.source.unwrap().origin, stage.remote.unwrap().task().origin);
    assert_eq!(job["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
}

#[test]
fn the_kubelet_finds_nothing_to_replace_in_a_task() {
    let job = rendered(|spec| spec["stages"][0]["run"] = json!("echo $$ $(HOME)"), &Settings::default());
    let env = container(&job, "agent")["env"].as_array().unwrap();
    let task = env.iter().find(|variable| variable["name"] == "MINIMALIMAGE_TASK").unwrap()["value"].as_str().unwrap();
    assert!(!task.contains('$'));
    let task: StageTask = serde_json::from_str(task).unwrap();
    assert!(format!("{:?}", task.recipe.steps).contains("echo $$ $(HOME)"));
}

#[test]
fn the_agent_comes_first_and_installs_by_its_hook() {
    let job = rendered(|_| {}, &Settings::default());
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["name"], "agent");
    assert_eq!(pod["containers"][0]["lifecycle"]["postStart"]["exec"]["command"][2], "install");
    assert_eq!(pod.get("initContainers"), None);
    let job = rendered(|_| {}, &Settings { init_container: true, ..Settings::default() });
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"][0]["command"][2], "install");
    assert_eq!(pod["containers"][0].get("lifecycle"), None);
}

#[test]
fn baseline_leaves_the_user_to_the_builder_image() {
    let job = rendered(|spec| spec["podSecurity"] = json!("Baseline"), &Settings::default());
    assert_eq!(job["spec"]["template"]["spec"]["securityContext"].get("runAsUser"), None);
    assert_eq!(container(&job, "agent")["securityContext"]["runAsUser"], 65532);
    assert!(!mounts(container(&job, "build")).contains(&"home"));
}

#[test]
fn a_snapshot_is_pulled_anew_and_with_the_caches_login() {
    let image = |job: &Value| {
        let build = container(job, "build");
        (build["image"].as_str().unwrap().to_owned(), build["imagePullPolicy"].clone())
    };
    let pull = |job: &Value| job["spec"]["template"]["spec"]["imagePullSecrets"].clone();
    let job = rendered(|_| {}, &Settings::default());
    assert!(image(&job).0.contains("golang@"), "{}", image(&job).0);
    assert_eq!((image(&job).1, pull(&job)), (json!("IfNotPresent"), json!([{"name": "pull"}])));
    let start = Start { image: Digest::of(b"snapshot"), step: 2, source: None };
    let job = rendered_from(Some(start), |_| {}, &Settings::default());
    assert_eq!(image(&job), (format!("registry.example.com/app-cache@{}", Digest::of(b"snapshot")), json!("Always")));
    assert_eq!(pull(&job), json!([{"name": "pull"}, {"name": "push"}]));
    assert_eq!(job["metadata"]["annotations"][SNAPSHOT_ANNOTATION], format!("2 {}", Digest::of(b"snapshot")));
}

#[test]
fn the_platform_may_choose_the_user() {
    let job = rendered(|_| {}, &Settings { platform_user: true, ..Settings::default() });
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"].get("runAsUser"), None);
    assert_eq!(container(&job, "agent")["securityContext"].get("runAsUser"), None);
}

#[test]
fn proxies_reach_the_agent_and_stages_that_ask() {
    let settings = Settings { proxy: [("HTTPS_PROXY".into(), "http://proxy".into())].into(), ..Settings::default() };
    let has = |job: &Value, name: &str| container(job, name)["env"].to_string().contains("HTTPS_PROXY");
    let job = rendered(|_| {}, &settings);
    assert!(has(&job, "agent") && !has(&job, "build"));
    let job = rendered(|spec| spec["stages"][0]["proxy"] = json!(true), &settings);
    assert!(has(&job, "build"));
}

#[test]
fn caches_have_a_directory_for_each_image_and_stage() {
    let job = rendered(|_| {}, &Settings::default());
    let mounts = container(&job, "build")["volumeMounts"].as_array().unwrap();
    let cache = mounts.iter().find(|mount| mount["name"] == "cache-go").unwrap();
    assert_eq!((&cache["subPath"], &cache["mountPath"]), (&json!("uid/build/go"), &json!("/tmp/go")));
}

#[test]
fn every_volume_that_is_mounted_exists_and_is_bounded() {
    let job = rendered(|_| {}, &Settings::default());
    let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    for name in ["agent", "build"] {
        for mount in mounts(container(&job, name)) {
            assert!(volumes.iter().any(|volume| volume["name"] == mount), "{mount}");
        }
    }
    for volume in volumes.iter().filter(|volume| volume.get("emptyDir").is_some()) {
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{volume}");
    }
}

#[test]
fn names_stay_within_63_characters_and_apart() {
    let key = serde_json::from_value::<Key>(json!(Digest::of(b"k"))).unwrap();
    let owner = |name: &str, uid: &str| JobOwner { name: name.into(), namespace: "ns".into(), uid: uid.into() };
    let long = owner(&"a".repeat(250), "1");
    let names = [
        job_name(&owner("app", "1"), "build", &key, 0),
        job_name(&long, "x", &key, 10),
        job_name(&long, "y", &key, 10),
    ];
    assert!(names[0].starts_with("app-build-") && names[0].ends_with("-0"), "{}", names[0]);
    assert!(names.iter().all(|name| name.len() <= 63));
    assert_ne!(names[1], names[2]);
    let meeting = [job_name(&owner("a", "1"), "b-c", &key, 0), job_name(&owner("a-b", "2"), "c", &key, 0)];
    assert_ne!(meeting[0], meeting[1]);
}
