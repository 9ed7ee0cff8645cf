//! Bases of packages: one for all who ask the same, what follows when the archive moves on, and a program that is nothing else.

use std::net::IpAddr;

use minimalimage::api::v1alpha1::{BaseStatus, StageState, Status};
use serde_json::{Value, json};

use crate::{
    archive::{Archive, Deb, NOW, Times},
    fixture::{World, file_in, is_ready, message, setting},
    server::{Behaviour, Server},
};

/// The address of this machine that Pods reach: where the registry is.
fn address() -> IpAddr {
    let registry = setting("MINIMALIMAGE_REGISTRY");
    registry.rsplit_once(':').unwrap().0.parse().unwrap()
}

fn base(status: &Status) -> BaseStatus {
    status.base.clone().unwrap()
}

fn lowest_layer(status: &Status) -> String {
    let layer = status.image.as_ref().unwrap().layers[0].clone();
    assert_eq!(layer.from, "base");
    layer.digest
}

fn how_the_base_came(status: &Status) -> StageState {
    status.stages.iter().find(|stage| stage.name == "base-packages").unwrap().state
}

#[tokio::test]
async fn a_base_is_put_together_once_and_follows_its_archive() {
    let (first, second) = (World::new("packages").await, World::new("packages-too").await);
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new(directory.path());
    // Nobody else on the cluster has a base of these.
    let release = format!("ID=debian\nBUILD_ID={}\n", first.namespace);
    let base_files = Deb::new("base-files", "1", "").file("./etc/os-release", &release);
    let app = |version: &str| Deb::new("app", version, "Depends: lib1\n").file("./usr/share/app/version", version);
    let lib = Deb::new("lib1", "1", "").file("./usr/lib/lib1.so", "library");
    archive.publish("test", NOW, &[base_files.clone(), app("1"), lib.clone()]);
    let behaviour = Behaviour { root: directory.path().to_owned(), ..Behaviour::default() };
    let server = Server::start_at(address(), behaviour).await;
    let spec = |world: &World, name: &str, install: Value| {
        json!({
            "image": {
                "base": {"packages": {"suite": "test", "pockets": [], "install": install, "keyring": archive.keyring(),
                    "mirror": format!("{}/debian", server.url)}},
                "files": [{"path": "/name", "content": name}]
            },
            "destination": {"repository": world.repository(name)}
        })
    };
    let all = [(&first, "one"), (&first, "two"), (&second, "three")];
    for (world, name) in all {
        world.apply(name, spec(world, name, json!(["app"]))).await;
    }
    let mut statuses = Vec::new();
    for (world, name) in all {
        statuses.push(world.ready(name).await);
    }
    let composed = statuses.iter().filter(|status| how_the_base_came(status) == StageState::Built).count();
    assert_eq!(composed, 1, "one Pod for all three: {:?}", statuses.iter().map(how_the_base_came).collect::<Vec<_>>());
    let layer = lowest_layer(&statuses[0]);
    assert!(statuses.iter().all(|status| lowest_layer(status) == layer));
    let told = base(&statuses[0]);
    assert_eq!((told.kind.as_str(), told.display_name.as_str()), ("Packages", "packages (test)"));
    assert_eq!(told.packages, ["app=1", "base-files=1", "lib1=1"]);
    assert_eq!((told.package_count, told.distribution.as_deref()), (Some(3), Some("Test 1 (test)")));
    let image = statuses[2].image.clone().unwrap().reference;
    assert_eq!(file_in(&image, "usr/share/app/version"), "1");
    assert_eq!(file_in(&image, "name"), "three");

    // The archive moves on.
    let later = Times { date: "Mon, 02 Nov 2026 10:00:00 UTC", ..NOW };
    archive.publish("test", later, &[base_files.clone(), app("1"), app("1.1"), lib.clone()]);
    first.annotate("one", "minimalimage.dev/requestedAt", "1").await;
    let moved = first.until("one", "the newer package", |found| {
        is_ready(found) && base(found.status.as_ref().unwrap()).packages.contains(&"app=1.1".to_owned())
    });
    let moved = moved.await.status.unwrap();
    assert_ne!(lowest_layer(&moved), layer);
    assert_eq!(moved.image.as_ref().unwrap().layers[1..], statuses[0].image.as_ref().unwrap().layers[1..]);

    // An archive that is held back, and a package that is not there, leave the image as it is.
    archive.publish("test", NOW, &[base_files, app("1"), lib]);
    first.annotate("one", "minimalimage.dev/requestedAt", "2").await;
    let held = first.until("one", "the refusal", |found| {
        found.status.as_ref().is_some_and(|status| message(status).contains("was seen before"))
    });
    assert_eq!(held.await.status.unwrap().image, moved.image);
    second.apply("three", spec(&second, "three", json!(["nothing-like-it"]))).await;
    let ended = second.ended("three", "PackagesUnresolvable").await;
    assert!(message(&ended).contains("spec.image.base: there is no package nothing-like-it"), "{}", message(&ended));
    assert_eq!(ended.image, statuses[2].image);
}

#[tokio::test]
async fn a_program_of_the_distribution_needs_no_builder() {
    let world = World::new("redis").await;
    let spec = json!({
        "image": {"base": {"packages": {"install": ["redis-server"]}}, "command": ["/usr/bin/redis-server"], "args": ["--version"],
            "user": "101:101"},
        "destination": {"repository": world.repository("redis")}
    });
    world.apply("redis", spec).await;
    let status = world.ready("redis").await;
    let said = world.run("run", &status.image.as_ref().unwrap().reference).await;
    assert!(said.starts_with("Redis server v="), "{said}");
    let told = base(&status);
    assert!(told.distribution.as_ref().unwrap().starts_with("Debian 13"), "{told:?}");
    assert!(told.size > 30_000_000 && told.share == 100, "{told:?}");
    println!("redis: {} in {} packages", status.image.unwrap().display_size, told.package_count.unwrap());
}

#[tokio::test]
async fn bases_that_contradict_themselves_are_refused_at_apply() {
    let world = World::new("base-schema").await;
    let cases = [
        (json!({"scratch": {}, "runtime": {"cc": {}}}), "give one of scratch, image, and packages or runtime"),
        (json!({"runtime": {"cc": {}, "java": 17}}), "give exactly one of static, base, cc, java, python and node"),
        (json!({"packages": {"suite": "bookworm"}}), "packages: give install, or a runtime beside it"),
        (json!({"packages": {"install": ["Redis"]}}), "should match"),
        (json!({"packages": {"install": ["redis"], "snapshot": "yesterday"}}), "should match"),
        (json!({"packages": {"install": ["redis"], "scripts": "Run"}}), "Unsupported value"),
    ];
    for (base, expected) in cases {
        let spec = json!({"image": {"base": base}, "destination": {"repository": world.repository("x")}});
        let refused = world.try_apply("x", spec).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{base}: {refused}");
    }
}
