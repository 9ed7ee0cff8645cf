//! What is listed and removed: images of this machine, records of a cache repository.

use bytes::Bytes;
use jiff::Timestamp;
use minimalimage::{
    domain::{
        artifact::{self, ArtifactConfig},
        media_type,
        recipe::Key,
        record::{Signer, new_signing_key},
        snapshot::Snapshot,
        value::{Digest, Repository},
    },
    shell::cache::Cache,
};
use serde_json::{Value, json};

use crate::{
    distribution::Distribution,
    support::{Machine, users},
};

fn said(machine: &Machine, arguments: &[&str]) -> (String, String) {
    let output = machine.run(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn images_are_listed_and_taken_off_the_list() {
    let machine = Machine::new(users()[0]).await;
    for (number, name) in ["one", "two", "three"].iter().enumerate() {
        let file = json!({"path": "/name", "content": name});
        machine.resource(&format!(
            "  image: {{files: [{file}]}}\n  destination: {{repository: r.example.com/app{number}, tags: [latest, other]}}\n"
        ));
        machine.build(&[]);
    }
    let list =
        || -> Vec<Value> { serde_json::from_str(&said(&machine, &["images", "--json", "--sort", "name"]).0).unwrap() };
    let images = list();
    assert_eq!(images.len(), 6);
    let digest = images[4]["digest"].as_str().unwrap();
    let (_, error) = said(&machine, &["images", "rm", "r.example.com/app0", "r.example.com/nothing"]);
    assert!(error.contains("r.example.com/nothing"), "{error}");
    assert_eq!(list().len(), 6, "all or none");
    let (removed, _) =
        said(&machine, &["images", "rm", "r.example.com/app0", "r.example.com/app1:other", &digest[7..15]]);
    assert_eq!(removed.lines().count(), 4, "{removed}");
    let left: Vec<_> = list().iter().map(|image| format!("{}:{}", image["repository"], image["tag"])).collect();
    assert_eq!(left, ["\"r.example.com/app0\":\"other\"", "\"r.example.com/app1\":\"latest\""]);
}

/// Puts an image of another tool's into the repository, and a record that names it; gives its digest.
async fn foreign_image(cache: &Cache, repository: &Repository, signer: &Signer, key: &str) -> Digest {
    let client = Machine::client();
    let config = Bytes::from(json!({"os": "linux", "for": key}).to_string());
    client.push_bytes(repository, config.clone()).await.unwrap();
    let described = json!({"mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len()});
    let annotations = json!({"org.opencontainers.image.created": Timestamp::now().to_string()});
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": described, "layers": [],
        "annotations": annotations});
    push_recorded((cache, repository, signer), key, &manifest).await
}

/// Puts an artifact and its record into the repository; gives the artifact's digest.
async fn record(cache: &Cache, repository: &Repository, signer: &Signer, key: &str) -> Digest {
    let client = Machine::client();
    let config = Bytes::from(ArtifactConfig { outputs: Vec::new() }.to_bytes());
    client.push_bytes(repository, config.clone()).await.unwrap();
    // Another annotation is another artifact.
    let mut manifest: Value = serde_json::from_slice(&artifact::manifest(&config, &[])).unwrap();
    manifest["annotations"] = json!({"for": key});
    if key == "two" {
        // A record may name a snapshot too, which is an image.
        manifest.as_object_mut().unwrap().remove("artifactType");
        manifest["annotations"] = json!(Snapshot::annotations(None, Timestamp::now()));
    }
    push_recorded((cache, repository, signer), key, &manifest).await
}

/// Puts a manifest into the repository, and a record that names it; gives its digest.
async fn push_recorded(
    (cache, repository, signer): (&Cache, &Repository, &Signer),
    key: &str,
    manifest: &Value,
) -> Digest {
    let manifest = Bytes::from(manifest.to_string());
    let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
    let pinned = repository.pinned(digest);
    Machine::client().push_manifest(&pinned, media_type::MANIFEST, manifest).await.unwrap();
    let key: Key = serde_json::from_value(json!(Digest::of(key.as_bytes()))).unwrap();
    cache.record(signer, &key, digest, size).await.unwrap();
    digest
}

#[tokio::test]
async fn a_cache_repository_loses_old_records_and_nothing_else() {
    let machine = Machine::new(users()[0]).await;
    let signer = Signer::from_pkcs8(&new_signing_key().unwrap()).unwrap();
    let client = Machine::client();
    for deletes in [true, false] {
        let registry = Distribution::configured(false, deletes);
        let repository = registry.repository("app-cache");
        let cache = Cache::new(client.clone(), repository.clone(), signer.public_key());
        let mut artifacts = Vec::new();
        // Somebody's own manifests under a tag of any name.
        for tag in ["latest", "key-of-another-kind"] {
            let manifest = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": []});
            let manifest = Bytes::from(manifest.to_string());
            let reference = repository.tagged(tag).unwrap();
            client.push_manifest(&reference, media_type::INDEX, manifest).await.unwrap();
        }
        // Images that are deployed by digest, which somebody has records point to: one alone, one of a tagged index.
        let mut foreign = Vec::new();
        for (key, tag) in [("alone", None), ("indexed", Some("both"))] {
            let digest = foreign_image(&cache, &repository, &signer, key).await;
            if let Some(tag) = tag {
                let named = json!([{"mediaType": media_type::MANIFEST, "digest": digest, "size": 1}]);
                let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": named});
                let reference = repository.tagged(tag).unwrap();
                client.push_manifest(&reference, media_type::INDEX, index.to_string().into()).await.unwrap();
            }
            foreign.push(digest);
        }
        for key in ["one", "two", "three"] {
            artifacts.push(record(&cache, &repository, &signer, key).await);
        }
        let name = repository.to_string();
        let prune = |rule: &[&str]| said(&machine, &[&["store", "prune", "--registry", &name], rule].concat());
        assert!(prune(&[]).1.contains("--keep-newest"));
        assert!(prune(&["--dry-run"]).0.contains("would delete 0 of 5 records and 0 artifacts"));
        let (dry, _) = prune(&["--keep-newest", "1", "--dry-run"]);
        assert!(dry.contains("would delete 4 of 5 records and 2 artifacts"), "{dry}");
        assert_eq!(client.tags(&repository).await.unwrap().len(), 8);
        assert!(prune(&["--older-than", "1d", "--dry-run"]).0.contains("would delete 0 of 5"));
        let (text, error) = prune(&["--keep-newest", "1"]);
        if !deletes {
            assert!(error.contains("REGISTRY_STORAGE_DELETE_ENABLED"), "{error}");
            continue;
        }
        assert!(text.contains("deleting 4 of 5 records and 2 artifacts"), "{text}{error}");
        let tags = client.tags(&repository).await.unwrap();
        let records = tags.iter().filter(|tag| tag.len() > 60).count();
        assert_eq!((records, tags.len()), (1, 4), "{tags:?}");
        let mut left = 0;
        for artifact in artifacts {
            left += u32::from(client.head(&repository.pinned(artifact)).await.unwrap().is_some());
        }
        assert_eq!(left, 1);
        for image in foreign {
            assert!(client.head(&repository.pinned(image)).await.unwrap().is_some());
        }
    }
}
