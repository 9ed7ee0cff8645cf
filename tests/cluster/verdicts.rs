//! What the preflight says of images, and what becomes of them as Pods: a part of the cases that are run without a cluster too.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{LogParams, PostParams};
use minimalimage::{
    domain::{
        credentials::Keychain,
        media_type,
        preflight::{FileIndex, Origin, Question, check, index_layer},
        task::{Network, RegistrySettings},
        value::{Digest, Platform, Repository},
    },
    shell::registry::{Client, Registry},
};
use serde_json::json;

use crate::fixture::{World, setting};

#[path = "../local/preflight/case.rs"]
mod case;
#[path = "../local/preflight/cases.rs"]
mod cases;
#[path = "../local/preflight/images.rs"]
#[expect(dead_code, reason = "runc is not asked here")]
mod images;
#[path = "../local/preflight/programs.rs"]
mod programs;

use case::{Base, Case};
use images::{Bases, Root};
use programs::Programs;

/// Of so many cases one is run here: each takes a Pod.
const EACH: usize = 3;
/// Pods at the same time.
const PODS: usize = 8;

/// Where the images go.
struct Shelf {
    client: Client,
    repository: Repository,
}

impl Shelf {
    fn new(world: &World) -> Self {
        let host = setting("MINIMALIMAGE_REGISTRY");
        let registries = [(host.clone(), RegistrySettings { plain_http: true, ..RegistrySettings::default() })];
        let client = Registry::new(&Network { registries: registries.into(), ..Network::default() }).unwrap();
        let repository = world.repository("case").parse().unwrap();
        Self { client: client.with(Keychain::default()), repository }
    }

    async fn layer(&self, archive: &[u8]) -> (serde_json::Value, Digest) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(archive).unwrap();
        let blob = gzip.finish().unwrap();
        let descriptor = json!({"mediaType": media_type::LAYER, "digest": Digest::of(&blob), "size": blob.len()});
        self.client.push_bytes(&self.repository, Bytes::from(blob)).await.unwrap();
        (descriptor, Digest::of(archive))
    }

    /// Gives the image's reference.
    async fn image(&self, case: &Case, layers: &[(serde_json::Value, Digest)]) -> String {
        let env: Vec<String> = case.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "config": {"Entrypoint": case.entrypoint, "Env": env, "WorkingDir": case.working_dir, "User": case.user},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(_, diff_id)| diff_id).collect::<Vec<_>>()},
        });
        let config = Bytes::from(config.to_string());
        self.client.push_bytes(&self.repository, config.clone()).await.unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": {"mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": layers.iter().map(|(descriptor, _)| descriptor).collect::<Vec<_>>(),
        });
        let manifest = Bytes::from(manifest.to_string());
        let pinned = self.repository.pinned(Digest::of(&manifest));
        self.client.push_manifest(&pinned, media_type::MANIFEST, manifest).await.unwrap();
        pinned.to_string()
    }
}

/// Whether the program of the image said that it runs, and ended well: with containerd's capabilities, or with none.
async fn starts(world: &World, name: &str, image: &str, is_capable: bool) -> bool {
    let dropped: &[&str] = if is_capable { &[] } else { &["ALL"] };
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": dropped}});
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false,
            "containers": [{"name": "main", "image": image, "securityContext": security}]
        }
    }))
    .unwrap();
    world.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    let waits = |status: &ContainerStatus| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.clone());
        waiting.is_some_and(|reason| ["CreateContainerError", "RunContainerError"].contains(&reason.as_str()))
    };
    let ended = world.until_any(name, "an end", |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
            || status.container_statuses.iter().flatten().any(waits)
    });
    let succeeded = ended.await.status.unwrap().phase.as_deref() == Some("Succeeded");
    let said = world.api::<Pod>().logs(name, &LogParams::default()).await.unwrap_or_default();
    world.api::<Pod>().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    succeeded && said.contains("started")
}

#[tokio::test]
async fn images_that_are_refused_do_not_start_and_others_do() {
    let world = World::with_security("verdicts", "baseline").await;
    let programs = Programs::build();
    let bases = Bases::new(&programs);
    let shelf = Shelf::new(&world);
    let cases: Vec<Case> = cases::all().into_iter().step_by(EACH).collect();
    assert!(cases.len() >= 40, "{}", cases.len());
    let used: BTreeSet<Base> = cases.iter().map(|case| case.base).collect();
    let mut below = BTreeMap::new();
    for base in used {
        let archive = bases.archive(base);
        let index = FileIndex::default().with(index_layer(&archive[..]).unwrap(), Origin::Base);
        below.insert(base, (shelf.layer(&archive).await, index));
    }
    let mut judged = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let archive = Root::new(case, &bases, &programs).artifact_archive();
        let (layer, index) = &below[&case.base];
        let files = index.clone().with(index_layer(&archive[..]).unwrap(), Origin::Artifact);
        let (start, platform) = (case.start(), Platform::linux("amd64"));
        let (base, mode) = (case.base.name(), case.mode);
        let findings = check(&Question { files: &files, start: &start, platform: &platform, base, mode });
        assert!(case.is_said(&findings), "{}: {findings:?}", case.name);
        let image = shelf.image(case, &[layer.clone(), shelf.layer(&archive).await]).await;
        for is_capable in case.ways() {
            judged.push((case, format!("case-{number}-{is_capable}"), image.clone(), *is_capable));
        }
    }
    let runs = judged.iter().map(|(case, name, image, is_capable)| {
        let world = &world;
        Box::pin(async move {
            let started = starts(world, name, image, *is_capable).await;
            let differs = started != case.starts(*is_capable);
            Ok::<_, ()>(differs.then(|| format!("{}: {:?}, started {started}", case.name, case.expected)))
        }) as futures::future::BoxFuture<'_, Result<Option<String>, ()>>
    });
    let runs: Vec<_> = runs.collect();
    let wrong: Vec<_> = futures::stream::iter(runs).buffer_unordered(PODS).try_collect().await.unwrap();
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
