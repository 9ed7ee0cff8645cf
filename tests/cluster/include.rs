//! What images get beside their programs: authorities, time zones, a user; on scratch, on images and on bases of packages.

use std::{fs, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{
    examples::{Here, examples},
    fixture::{World, builder, file_in, listing, message, setting},
};

async fn authorities(world: &World, text: &str) {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "authorities"}, "data": {"ca.crt": text}})).unwrap();
    world.api::<ConfigMap>().create(&PostParams::default(), &map).await.unwrap();
}

#[tokio::test]
async fn a_go_program_from_scratch_trusts_and_knows_what_was_included() {
    let world = World::new("include").await;
    let authority = fs::read_to_string(setting("MINIMALIMAGE_CA")).unwrap();
    let server = format!("https://{}/v2/", setting("MINIMALIMAGE_REGISTRY_TLS"));
    let mut manifest: Value = serde_saphyr::from_str(&examples(&["show", "go-https"])).unwrap();
    manifest["spec"]["image"]["env"][0]["value"] = json!(server);
    let mut spec = manifest["spec"].clone();
    world.apply("ask", spec.clone()).await;
    let missing = message(&world.ended("ask", "ReferenceNotFound").await);
    assert!(missing.contains("spec.image.certificates[0]") && missing.contains("authorities"), "{missing}");
    authorities(&world, &authority).await;
    let status = world.ready("ask").await;
    let image = status.image.clone().unwrap();
    let base = status.base.unwrap();
    assert_eq!((base.kind.as_str(), base.display_name.as_str()), ("Scratch", "scratch"));
    assert!(base.packages.iter().any(|package| package.starts_with("tzdata=")), "{:?}", base.packages);
    println!("go-https: {}", image.display_size);
    assert_eq!(
        world.run("ask", &image.reference).await,
        "status 200, the epoch was at 01:00 CET in Berlin, I am nonroot\n"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), manifest.to_string()).unwrap();
    let authority = setting("MINIMALIMAGE_CA");
    let built = Here::new().build(file.path(), &[Path::new("--certificates"), Path::new(&authority)]);
    assert_eq!(built, image.digest, "without a cluster");

    // Without the ConfigMap's authority the program is not misled.
    spec["image"].as_object_mut().unwrap().remove("certificates");
    world.apply("ask", spec).await;
    let fewer = world.ready("ask").await.image.unwrap();
    let said = world.run("unknown", &fewer.reference).await;
    assert!(said.contains("certificate signed by unknown authority"), "{said}");
}

#[tokio::test]
async fn an_authority_of_ones_own_is_in_the_bundles_and_the_keystore_of_the_base() {
    let world = World::new("authorities").await;
    let authority = fs::read_to_string(setting("MINIMALIMAGE_CA")).unwrap();
    authorities(&world, &authority).await;
    let program = "import java.net.*;\npublic class Ask {\n  public static void main(String[] a) throws Exception {\n    \
                   var connection = (HttpURLConnection) new URL(a[0]).openConnection();\n    \
                   System.out.println(connection.getResponseCode());\n  }\n}\n";
    let server = format!("https://{}/v2/", setting("MINIMALIMAGE_REGISTRY_TLS"));
    let spec = json!({
        "source": {"inline": {"files": [{"path": "Ask.java", "content": program}]}},
        "stages": [{"name": "build", "image": builder("jdk"), "run": "javac -d classes Ask.java"}],
        "image": {
            "base": {"runtime": {"java": 17}},
            "certificates": [{"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}],
            "copy": [{"from": "build", "source": "/workspace/classes", "destination": "/classes"}],
            "command": ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "-cp", "/classes", "Ask", server]
        },
        "destination": {"repository": world.repository("java")}
    });
    world.apply("java", spec).await;
    let status = world.ready("java").await;
    let reference = status.image.unwrap().reference;
    assert_eq!(world.run("java", &reference).await, "200\n");
    let own = authority.lines().nth(1).unwrap();
    let bundle = file_in(&reference, "etc/ssl/certs/ca-certificates.crt");
    assert!(bundle.contains(own) && bundle.matches("BEGIN CERTIFICATE").count() > 100);

    // An image with users of its own keeps them.
    let base = format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2"));
    let spec = json!({
        "image": {
            "base": {"image": {"reference": base}}, "include": ["CACertificates", "NonRootUser", "Tmp"],
            "certificates": [{"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}],
            "files": [{"path": "/x", "content": "x"}]
        },
        "destination": {"repository": world.repository("image")}
    });
    world.apply("image", spec).await;
    let status = world.ready("image").await;
    assert_eq!(status.base.as_ref().unwrap().kind, "Image");
    let reference = status.image.unwrap().reference;
    let passwd = file_in(&reference, "etc/passwd");
    assert!(passwd.starts_with("root:") && passwd.contains("nonroot:x:65532:65532"), "{passwd}");
    assert!(file_in(&reference, "etc/ssl/certs/ca-certificates.crt").contains(own));
}

#[tokio::test]
async fn a_debug_image_has_a_shell_under_a_tag_of_its_own() {
    let world = World::new("debug").await;
    let dockerfile = format!(
        "FROM {} AS build\nFROM scratch\nCOPY --from=build /etc/os-release /seen\nCMD [\"sh\", \"-c\", \"head -c 6 /seen && id -u\"]\n",
        builder("go")
    );
    let repository = world.repository("debug");
    let spec = json!({
        "dockerfile": {"inline": dockerfile}, "podSecurity": "Restricted", "image": {"debug": true},
        // The image itself has no shell.
        "preflight": "Off",
        "destination": {"repository": repository, "tags": ["v1"]}
    });
    world.apply("debug", spec.clone()).await;
    let status = world.ready("debug").await;
    let image = status.image.unwrap();
    let debug = image.debug.unwrap();
    assert!(debug.package.starts_with("busybox-static="), "{debug:?}");
    assert_eq!(world.run("by-tag", &format!("{repository}:v1-debug")).await, "PRETTY65532\n");
    assert_eq!(file_in(&format!("{repository}:v1-debug"), "seen"), file_in(&image.reference, "seen"));
    let paths = listing(&image.reference);
    assert!(!paths.iter().any(|path| path.contains("busybox")), "{paths:?}");
    assert!(listing(&debug.reference).iter().any(|path| path.contains("busybox/sh")));
    assert_eq!(status.base.unwrap().packages, [""; 0], "nothing of it is in the image");

    let here = Here::new();
    let directory = tempfile::tempdir().unwrap();
    let [file, told] = ["minimalimage.yaml", "told.json"].map(|name| directory.path().join(name));
    let manifest = json!({
        "apiVersion": "minimalimage.dev/v1alpha1", "kind": "MinimalImage", "metadata": {"name": "debug"}, "spec": spec
    });
    fs::write(&file, manifest.to_string()).unwrap();
    let arguments = [Path::new("--push"), Path::new("--metadata-file"), &told];
    assert_eq!(here.build(&file, &arguments), image.digest, "without a cluster");
    let told: Value = serde_json::from_str(&fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!(told["debug"], debug.reference);
    assert_eq!(told["debugTags"], json!([format!("{repository}:v1-debug")]));

    // On a base image, from here: the layers below the tools are those that were just pushed.
    let elsewhere = world.repository("here");
    let base = format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2"));
    let mut manifest = manifest;
    manifest["spec"] = json!({
        "image": {"base": {"image": {"reference": base}}, "debug": true, "command": ["sh", "-c", "cat /x"], "files": [{"path": "/x", "content": "here"}]},
        "preflight": "Off", "destination": {"repository": elsewhere, "tags": ["v1"]}
    });
    fs::write(&file, manifest.to_string()).unwrap();
    here.build(&file, &[Path::new("--push")]);
    assert_eq!(world.run("from-here", &format!("{elsewhere}:v1-debug")).await, "here");
}
