//! What plans are made of which specs, and which specs are refused.

use serde_json::{Value, json};

use super::*;
use crate::domain::recipe::{Owner, Parents};

fn spec(value: Value) -> MinimalImageSpec {
    serde_json::from_value(value).unwrap()
}

fn go() -> Value {
    json!({
        "source": {"git": {"url": "https://git.example.com/app", "ref": {"branch": "main"}}},
        "stages": [{"name": "build", "image": "golang:1.26", "run": "go build -o /workspace/app ."}],
        "image": {"copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}], "command": ["/app"]},
        "destination": {"repository": "registry.example.com/app", "tags": ["latest", "$(commitShort)"]}
    })
}

fn with(path: &str, value: Value) -> MinimalImageSpec {
    let mut base = go();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = base.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => match key.parse::<usize>() {
            Ok(index) if index < list.len() => list[index] = value,
            _ => list.push(value),
        },
        _ => parent[key] = value,
    }
    spec(base)
}

fn planned(spec: &MinimalImageSpec) -> Plan {
    Draft::new(spec).unwrap().complete().unwrap()
}

fn problems(spec: &MinimalImageSpec) -> String {
    Draft::new(spec).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_go_program_on_scratch_is_one_stage_and_one_layer() {
    let plan = planned(&spec(go()));
    assert_eq!(plan.stages.len(), 1);
    assert_eq!(plan.layers, [LayerPlan::Artifact(OutputReference { stage: "build".into(), output: 0 })]);
    assert_eq!(plan.outline.cache.to_string(), "registry.example.com/app-cache");
    let stage = &plan.stages[0];
    assert!(
        matches!(&stage.steps[0], Step::CopySource { items, .. } if items[0].destination.path.as_str() == "/workspace")
    );
    assert!(matches!(&stage.steps[1], Step::Run { command, env, .. }
        if command[..3] == ["/bin/sh", "-e", "-c"] && env["SOURCE_DATE_EPOCH"] == "0"));
    assert_eq!(stage.outputs[0].parents, Parents::All);
    assert!(plan.outline.can_change);
}

#[test]
fn an_image_base_keeps_its_own_directories() {
    let plan = planned(&with("/image/base", json!({"image": {"reference": "gcr.io/distroless/static"}})));
    assert_eq!(plan.stages[0].outputs[0].parents, Parents::Unusual);
}

#[test]
fn stages_come_after_those_they_copy_from_and_unneeded_ones_are_skipped() {
    let plan = planned(&spec(json!({
        "stages": [
            {"name": "c", "image": "c", "copy": [{"from": "b", "source": "/tmp/b", "destination": "/workspace/b"}]},
            {"name": "b", "image": "b", "copy": [{"from": "a", "source": "/tmp/a", "destination": "/workspace/a"}]},
            {"name": "a", "image": "a"},
            {"name": "unused", "image": "u"}
        ],
        "image": {"copy": [{"from": "c", "source": "/workspace/c", "destination": "/c"}]},
        "destination": {"repository": "registry.example.com/app"}
    })));
    assert_eq!(plan.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(plan.skipped, ["unused"]);
    assert_eq!(plan.stages[1].inputs, [OutputReference { stage: "a".into(), output: 0 }]);
    assert_eq!(plan.stages[0].outputs[0].parents, Parents::None);
    assert!(plan.stages.iter().all(|stage| !stage.steps.iter().any(|step| matches!(step, Step::CopySource { .. }))));
}

#[test]
fn copies_of_one_stage_are_one_layer_unless_their_order_matters() {
    let copy = |from: &str, destination: &str| json!({"from": from, "source": "/x", "destination": destination});
    let layers = |copies: Value| {
        let mut value = go();
        value["stages"] = json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]);
        value["image"]["copy"] = copies;
        planned(&spec(value)).layers.len()
    };
    assert_eq!(layers(json!([copy("a", "/1"), copy("b", "/2"), copy("a", "/3")])), 2);
    assert_eq!(layers(json!([copy("a", "/1"), copy("b", "/2"), copy("a", "/2/x")])), 3);
    assert_eq!(layers(json!([copy("a", "/"), copy("b", "/2"), copy("a", "/3")])), 2);
}

#[test]
fn files_straight_from_the_source_need_a_stage_without_a_builder() {
    let plan = planned(&with(
        "/image/copy/-",
        json!({"from": "source", "source": "static", "destination": "/srv/static", "mode": "0444", "owner": "7:8"}),
    ));
    assert_eq!(plan.stages[0].name, SOURCE_STAGE);
    assert_eq!(plan.stages[0].image, None);
    let item = &plan.stages[0].outputs[0].items[0];
    assert_eq!(
        (item.source.as_str(), item.mode.clone(), item.owner),
        ("static", Some(crate::domain::mode::Mode::Bits(0o444)), Some(Owner { uid: 7, gid: 8 }))
    );
}

#[test]
fn named_copies_from_the_source_replace_the_whole() {
    let plan = planned(&with(
        "/stages/0/copy",
        json!([{"from": "source", "source": "go.mod", "destination": "/workspace/go.mod"}]),
    ));
    let sources: Vec<_> = plan.stages[0].steps.iter().filter(|s| matches!(s, Step::CopySource { .. })).collect();
    assert!(matches!(sources[..], [Step::CopySource { items, .. }] if items.len() == 1 && items[0].source == "go.mod"));
}

#[test]
fn a_recipe_waits_for_its_pins_and_inputs() {
    let plan = planned(&spec(go()));
    let stage = &plan.stages[0];
    assert_eq!(plan.recipe(stage, &Pins::default(), &BTreeMap::new()), None);
    let pins =
        Pins { images: BTreeMap::from([("golang:1.26".parse().unwrap(), Digest::of(b"go"))]), ..Pins::default() };
    let recipe = plan.recipe(stage, &pins, &BTreeMap::new()).unwrap();
    assert_eq!((recipe.image, recipe.user), (Some(Digest::of(b"go")), Some(65532)));
}

#[test]
fn tags_are_filled_in() {
    let plan = planned(&with("/destination/tags", json!(["$(commitShort)", "g$(generation)-$(timestamp)"])));
    let pins = Pins { revision: Some("0123456789abcdef0123456789abcdef01234567".into()), ..Pins::default() };
    let tags = plan.outline.expanded_tags(&pins, 3, Timestamp::UNIX_EPOCH).unwrap();
    let tags: Vec<_> = tags.iter().filter_map(Reference::tag).collect();
    assert_eq!(tags, ["0123456789ab", "g3-19700101T000000Z"]);
}

#[test]
fn tags_leave_room_for_those_of_the_debug_image() {
    let with_tags = |tags: Value| {
        let mut base = go();
        base["image"]["debug"] = json!(true);
        base["destination"]["tags"] = tags;
        spec(base)
    };
    let text = problems(&with_tags(json!(["latest", "latest-debug"])));
    assert!(
        text.starts_with("spec.destination.tags[1]: latest-debug is what the debug image of another tag"),
        "{text}"
    );
    let long = problems(&with_tags(json!(["v".repeat(125)])));
    assert!(
        long.starts_with("spec.destination.tags[0]: its debug image's tag: ") && long.contains("at most 128"),
        "{long}"
    );
    let plan = planned(&with_tags(json!(["g$(generation)", "g7-debug"])));
    let clash = plan.outline.expanded_tags(&Pins::default(), 7, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(clash[0].field, "destination.tags[1]", "{clash:?}");
}

#[test]
fn contradictions_are_refused_with_their_field() {
    for (path, value, expected) in [
        (
            "/image/copy/0/from",
            json!("biuld"),
            "spec.image.copy[0].from: no stage is named `biuld`, there are: build, source",
        ),
        ("/image/copy/0/source", json!("/../x"), "spec.image.copy[0].source"),
        ("/image/copy/0/mode", json!("999"), "spec.image.copy[0].mode"),
        ("/image/copy/0/owner", json!("root"), "spec.image.copy[0].owner"),
        ("/stages/0/image", json!("Go:1"), "spec.stages[build].image"),
        ("/stages/0/workingDir", json!("/src"), "use podSecurity: Baseline".trim_start_matches("use ")),
        ("/stages/0/timeout", json!("soon"), "spec.stages[build].timeout"),
        ("/interval", json!("1ms"), "spec.interval"),
        ("/interval", json!("5 minutes"), "for example 10m"),
        ("/destination/repository", json!("registry.example.com/App"), "spec.destination.repository"),
        ("/destination/repository", json!("registry.example.com/app:1"), "without a tag or digest"),
        ("/destination/tags", json!(["$(comit)"]), "$(comit) is unknown"),
        ("/destination/tags", json!(["$(commit"]), "has no end"),
        ("/destination/tags", json!(["a", "a b$(generation)"]), "spec.destination.tags[1]: "),
        ("/source/directory", json!("a/../../b"), "spec.source.directory"),
        ("/image/files", json!([{"path": "/a", "content": ""}, {"path": "//a", "content": ""}]), "is given twice"),
    ] {
        let mut base = go();
        match base.pointer_mut(path) {
            Some(place) => *place = value,
            None => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                base.pointer_mut(parent).unwrap()[key] = value;
            }
        }
        let text = problems(&spec(base));
        assert!(text.contains(expected), "{path}: {text}");
    }
}

#[test]
fn circles_are_named() {
    let copy = |from: &str| json!([{"from": from, "source": "/workspace/x", "destination": "/workspace/x"}]);
    let text = problems(&spec(json!({
        "stages": [{"name": "a", "image": "a", "copy": copy("b")}, {"name": "b", "image": "b", "copy": copy("a")}],
        "image": {"copy": copy("a")},
        "destination": {"repository": "registry.example.com/app"}
    })));
    assert_eq!(text, "spec.stages: stages copy from each other in a circle: a → b → a");
}
