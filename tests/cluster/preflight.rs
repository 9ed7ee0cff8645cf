//! An image that could not start is not pushed; what the verdict rests on are the files that a builder and a base really have.

use std::{fs, process::Command};

use minimalimage::api::v1alpha1::Status;
use serde_json::{Value, json};

use crate::{
    examples::{Here, examples},
    fixture::{World, builder, is_stalled, message, setting},
};

const PROGRAM: &str = "#include <stdio.h>\nint main(void) { puts(\"started\"); return 0; }\n";

fn spec(world: &World, flags: &str, base: &Value, preflight: &str) -> Value {
    json!({
        "source": {"inline": {"files": [{"path": "main.c", "content": PROGRAM}]}},
        "stages": [{"name": "build", "image": builder("c"), "run": format!("gcc {flags} -o app main.c")}],
        "image": {"base": base, "command": ["/app"],
            "copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}]},
        "preflight": preflight,
        "destination": {"repository": world.repository("app")}
    })
}

fn digest(status: &Status) -> String {
    status.image.as_ref().unwrap().digest.clone()
}

#[tokio::test]
async fn a_program_that_could_not_start_is_refused_and_what_would_fit_is_said() {
    let world = World::new("preflight").await;
    let scratch = json!({"scratch": {}});
    world.apply("app", spec(&world, "-static", &scratch, "Enforce")).await;
    let good = world.ready("app").await;
    assert!(good.image.as_ref().unwrap().warnings.is_empty(), "{good:?}");

    world.apply("app", spec(&world, "", &scratch, "Enforce")).await;
    let refused = world.ended("app", "PreflightRefused").await;
    let expected = "the image could not start: /app needs the loader /lib64/ld-linux-x86-64.so.2, which an image from scratch does \
                    not have: link it statically, or use a base with glibc, such as the cc base";
    assert_eq!(message(&refused), expected);
    assert!(is_stalled(&refused));
    assert_eq!(digest(&refused), digest(&good));
    world.told("PreflightRefused", 1).await;
    let latest = format!("{}:latest", world.repository("app"));
    assert_eq!(world.run("old", &latest).await, "started\n");
    // The image itself is not in the registry either.
    let file = tempfile::NamedTempFile::new().unwrap();
    let manifest = json!({"apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage", "metadata": {"name": "app"},
        "spec": spec(&world, "", &scratch, "Off")});
    fs::write(file.path(), manifest.to_string()).unwrap();
    let would_be = Here::new().build(file.path(), &[]);
    let pinned = format!("{}@{would_be}", world.repository("app"));
    let found = Command::new("crane").args(["manifest", "--insecure", &pinned]).output().unwrap();
    assert!(
        !found.status.success() && String::from_utf8_lossy(&found.stderr).contains("MANIFEST_UNKNOWN"),
        "{found:?}"
    );

    // The base is an image in another registry: its layers are read, nothing of it is unpacked.
    let base = format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2"));
    world.apply("app", spec(&world, "", &json!({"image": {"reference": base}}), "Strict")).await;
    let fits = world.ready("app").await;
    assert_eq!(world.run("fits", &fits.image.as_ref().unwrap().reference).await, "started\n");

    world.apply("app", spec(&world, "", &scratch, "Warn")).await;
    let warned = world.ready("app").await;
    let image = warned.image.unwrap();
    assert_eq!(image.digest, would_be);
    let warnings = image.warnings;
    assert!(expected.ends_with(&warnings[0]) && warnings.len() == 1, "{warnings:?}");
    world.told("PreflightWarning", 1).await;
}

#[tokio::test]
async fn the_example_that_does_not_fit_is_refused() {
    let world = World::new("misfit").await;
    let shown = examples(&["show", "c", "misfit.yaml"]);
    let manifest: Value = serde_saphyr::from_str(&shown).unwrap();
    world.apply("misfit", manifest["spec"].clone()).await;
    let refused = message(&world.ended("misfit", "PreflightRefused").await);
    assert!(refused.starts_with("the image could not start: /hello needs the loader"), "{refused}");
}

#[tokio::test]
async fn the_files_of_a_composed_base_count_as_those_of_any_other() {
    let world = World::new("preflight-own").await;
    let runtime = |name: &str| json!({"runtime": {name: {}, "suite": "bookworm"}});
    world.apply("app", spec(&world, "", &runtime("static"), "Enforce")).await;
    let refused = message(&world.ended("app", "PreflightRefused").await);
    let expected = "/app needs the loader /lib64/ld-linux-x86-64.so.2, which the base static (bookworm) does not have";
    assert!(refused.contains(expected), "{refused}");
    world.apply("app", spec(&world, "", &runtime("cc"), "Enforce")).await;
    let fits = world.ready("app").await;
    assert_eq!(world.run("fits", &fits.image.unwrap().reference).await, "started\n");
}
