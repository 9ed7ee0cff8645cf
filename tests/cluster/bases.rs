//! An image on a base in another registry, and what happens when only the base moves.

use std::process::Command;

use serde_json::json;

use crate::fixture::{World, builder, is_ready, layers_by_origin, setting};

fn crane(args: &[&str]) -> String {
    let output = Command::new("crane").args(args).arg("--insecure").output().expect("crane");
    assert!(output.status.success(), "crane {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_moved_base_is_put_under_the_same_layers_without_a_pod() {
    let world = World::new("base").await;
    let base = format!("{}/{}/base:1", setting("MINIMALIMAGE_REGISTRY2"), world.namespace);
    crane(&["copy", &format!("{}/bases/base:1", setting("MINIMALIMAGE_REGISTRY2")), &base]);
    let spec = json!({
        "source": {"inline": {"files": [{"path": "main.c", "content": "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf(\"%s\\n\", getenv(\"WHO\")); return 0; }\n"}]}},
        "stages": [{"name": "build", "image": builder("c"), "run": "gcc -o app main.c"}],
        "image": {"base": {"image": {"reference": base}}, "command": ["/app"], "env": [{"name": "WHO", "value": "me"}],
            "copy": [{"from": "build", "source": "/workspace/app", "destination": "/app"}]},
        "destination": {"repository": world.repository("app")}
    });
    world.apply("app", spec).await;
    let first = world.ready("app").await;
    let image = first.image.clone().unwrap();
    assert_eq!(layers_by_origin(&first)["build"], 1);
    let status = first.base.clone().unwrap();
    assert_eq!((status.kind.as_str(), status.display_name.as_str()), ("Image", base.as_str()));
    assert!(status.size > status.compressed_size && status.compressed_size > 1_000_000, "{status:?}");
    assert_eq!(status.digest.clone().unwrap(), crane(&["digest", &base]));
    let distribution = status.distribution.clone().unwrap_or_default();
    assert!(distribution.starts_with("Debian GNU/Linux 12") && status.package_count == Some(7), "{status:?}");
    assert_eq!(world.run("run", &image.reference).await, "me\n");
    let config = crane(&["config", &image.reference]);
    let inherited: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(inherited["config"]["User"], "65532:65532");

    crane(&["mutate", &base, "--label", "moved=yes", "--tag", &base]);
    world.annotate("app", "minimalimage.dev/requestedAt", "1").await;
    let moved = world.until("app", "the new base", |found| {
        let base = found.status.as_ref().and_then(|status| status.base.clone()).unwrap_or_default();
        is_ready(found) && base.digest != status.digest
    });
    let moved = moved.await.status.unwrap();
    world.had_pods(1).await;
    let layers = |status: &minimalimage::api::v1alpha1::Status| status.image.clone().unwrap().layers;
    assert_eq!(layers(&moved), layers(&first));
    assert_ne!(moved.image.unwrap().digest, image.digest);
}
