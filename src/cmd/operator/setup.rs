//! The operator's settings, read once: flags, the registries file, CA certificates, the signing key, what already runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context as _;
use k8s_openapi::api::batch::v1::Job;
use kube::{Client, ResourceExt, api::ListParams, runtime::reflector::Store};
use tokio::sync::Semaphore;

use crate::{
    api::v1alpha1::MinimalImage,
    cli::OperatorArgs,
    domain::{
        job::MANAGED_BY,
        record::{Signer, new_signing_key},
        settings::Settings,
        task::{Limits, Network, RegistrySettings},
    },
    shell::{
        cluster::Cluster,
        health::Health,
        net::Http,
        queue::{ImageId, Queue},
        registry::Registry,
    },
};

use super::{
    answers::{Memo, World},
    api,
    preflight::Indexes,
    reconcile::Operator,
    shared::Composing,
    turns::Turns,
};

/// The Secret that holds the key which vouches for artifacts.
const SIGNING_SECRET: &str = "minimalimage-signing-key";
/// CA certificates travel to every agent in an environment variable.
const CA_BYTES: usize = 32 * 1024;
/// Sources that are read for their Dockerfile at the same time.
const SOURCE_READERS: usize = 4;
/// Snapshots and caches that are put together at the same time: copying a builder image between registries takes a connection for long.
const KEEPERS: usize = 2;
/// Images whose layers are looked at at the same time: of a hostile one some hundred megabytes are held at once.
const PREFLIGHTS: usize = 2;

/// The operator, and the stream of those whose turn in the queue has come.
pub(super) async fn operator(
    args: &OperatorArgs,
    network: Network,
    (client, images): (Client, Store<MinimalImage>),
    health: Health,
) -> anyhow::Result<(Operator, impl futures::Stream<Item = ImageId> + Send + 'static)> {
    let cluster = Cluster::new(client.clone());
    let signer = signer(&cluster, &args.namespace).await?;
    let (queue, woken) = Queue::new(args.max_builds, args.max_builds_per_namespace);
    hold_running(&queue, args, client).await?;
    let settings = Settings {
        agent_image: args.agent_image.clone(),
        proxy: proxy(),
        public_key: signer.public_key(),
        limits: Limits { source_bytes: args.scratch_bytes.min(Limits::default().source_bytes), ..Limits::default() },
        scratch_bytes: args.scratch_bytes,
        platform_user: args.platform_user,
        share_bases: args.share_bases,
        init_container: args.init_container,
        network,
        ..Settings::default()
    };
    let http = Http::new(&settings.network)?;
    let named = |variable, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let account = named("MINIMALIMAGE_SERVICE_ACCOUNT", "minimalimage");
    let world = World {
        cluster,
        registry: Registry::over(http.clone()),
        http,
        queue,
        signer,
        settings,
        secrets_role: named("MINIMALIMAGE_SECRETS_ROLE", "minimalimage-secrets"),
        account: format!("{}:{account}", args.namespace),
        sizes: Memo::default(),
        files: Memo::default(),
        packages: Memo::default(),
        resolving: Semaphore::new(1),
        composing: Composing::default(),
        images,
        configs: Memo::default(),
        readers: Semaphore::new(SOURCE_READERS),
        indexes: Indexes::default(),
        preflights: Turns::new(PREFLIGHTS),
        keepers: Semaphore::new(KEEPERS),
        kept: Memo::default(),
        adopted: Memo::default(),
    };
    let woken = futures::stream::unfold(woken, |mut woken| async move { woken.recv().await.map(|id| (id, woken)) });
    Ok((Operator::new(world, health), woken))
}

/// What operator and agents are told about the network.
pub(super) fn network(args: &OperatorArgs) -> anyhow::Result<Network> {
    let ca_certificates = match &args.ca_file {
        Some(path) => Some(certificates(path)?),
        None => None,
    };
    Ok(Network {
        registries: registries(args.registries_file.as_deref())?,
        ca_certificates,
        allowed_ranges: args.allow_address_range.clone(),
        denied_ranges: args.deny_address_range.iter().cloned().chain(api_server()).collect(),
    })
}

/// The API server's own address, as Pods are told of it: no source or registry is there.
fn api_server() -> Option<String> {
    let address: std::net::IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    Some(format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
}

fn certificates(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    anyhow::ensure!(
        text.len() <= CA_BYTES,
        "{} has {} bytes, expected at most {CA_BYTES}: give only the certificates that are not among the usual ones",
        path.display(),
        text.len()
    );
    Ok(text)
}

/// The registries file: host → settings.
pub(crate) fn registries(path: Option<&Path>) -> anyhow::Result<BTreeMap<String, RegistrySettings>> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not a registries file", path.display()))
}

fn proxy() -> BTreeMap<String, String> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    names.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

async fn signer(cluster: &Cluster, namespace: &str) -> anyhow::Result<Signer> {
    let fresh = new_signing_key()?;
    let key = cluster.own_secret(namespace, SIGNING_SECRET, "key.der", &fresh).await;
    let key = key.with_context(|| format!("failed to read or make Secret {namespace}/{SIGNING_SECRET}"))?;
    Ok(Signer::from_pkcs8(&key)?)
}

/// Builds whose Pods were started by an earlier operator keep their places; those of resources that are not ours to
/// watch take none.
async fn hold_running(queue: &Queue, args: &OperatorArgs, client: Client) -> anyhow::Result<()> {
    let selected = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    let images = api::<MinimalImage>(args, &client).list_metadata(&selected).await;
    let images = images.context("failed to list MinimalImages")?;
    let watched: BTreeSet<String> = images.items.iter().filter_map(ResourceExt::uid).collect();
    let ours = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let jobs = api::<Job>(args, &client).list(&ours).await.context("failed to list Jobs")?;
    let running = jobs.items.iter().filter(|job| {
        job.status
            .as_ref()
            .is_none_or(|status| status.completion_time.is_none() && status.failed.unwrap_or_default() == 0)
    });
    for job in running {
        let owner = job.owner_references().iter().find(|owner| owner.controller == Some(true));
        if let (Some(owner), Some(namespace)) = (owner.filter(|owner| watched.contains(&owner.uid)), job.namespace()) {
            queue.hold(ImageId { namespace, name: owner.name.clone() });
        }
    }
    Ok(())
}
