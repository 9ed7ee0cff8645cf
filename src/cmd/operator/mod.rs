//! `operator`: watches MinimalImages and, for each, observes, decides and applies.

mod answers;
mod caches;
mod certificates;
mod dockerfile;
mod keep;
mod packages;
mod preflight;
mod publish;
mod reconcile;
mod setup;
mod shared;
mod snapshots;
mod turns;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        Controller, WatchStreamExt, controller, reflector,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::MinimalImage,
    cli::OperatorArgs,
    domain::job::{IMAGE_LABEL, MANAGED_BY},
    shell::{
        health::{self, Health},
        lease::Candidate,
        queue::ImageId,
    },
};

use reconcile::Operator;
pub(crate) use setup::registries;

/// Passes over different resources that run at the same time.
const CONCURRENCY: u16 = 32;
/// Name of the Lease.
const LEASE: &str = "minimalimage-operator";

/// Runs until it is told to stop or loses its Lease.
///
/// # Errors
/// When the settings cannot be used or the cluster cannot be reached.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    // Before the Lease: a standby with wrong settings must not find out when it is needed.
    let network = setup::network(&args)?;
    let client = Client::try_default().await.context("failed to find a cluster: set KUBECONFIG, or run in a Pod")?;
    let health = Health::default();
    let server = tokio::spawn(health::serve(args.address, health.clone(), stop.clone().cancelled_owned()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), agent_image = args.agent_image, "starting");
    wait_for_crd(&client, &args, &stop).await?;
    health.set_ready();
    let mut candidate = Candidate::new(client.clone(), &args.namespace, LEASE, identity());
    if args.leader_elect {
        tokio::select! {
            () = candidate.acquire() => tracing::info!("leading"),
            () = stop.cancelled() => return Ok(()),
        }
    }
    health.metrics.lead(true);
    let (store, writer) = reflector::store();
    let (operator, woken) = setup::operator(&args, network, (client.clone(), store.clone()), health).await?;
    let controller = control(&args, client, (store, writer), Arc::new(operator), woken, stop.clone());
    if args.leader_elect {
        tokio::select! {
            () = controller => {}
            () = candidate.keep() => anyhow::bail!("lost the lease"),
        }
        candidate.release().await;
    } else {
        controller.await;
    }
    stop.cancel();
    server.await.context("failed to serve")?.with_context(|| format!("failed to listen on {}", args.address))
}

async fn control(
    args: &OperatorArgs,
    client: Client,
    (store, writer): (Store<MinimalImage>, Writer<MinimalImage>),
    operator: Arc<Operator>,
    woken: impl futures::Stream<Item = ImageId> + Send + 'static,
    stop: CancellationToken,
) {
    let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let selected = watcher::Config { label_selector: args.selector.clone(), ..watcher::Config::default() };
    let config = controller::Config::default().concurrency(CONCURRENCY);
    // Without a finalizer nobody is asked about a deletion: it is heard of here, or when an owned Job goes.
    let gone = Arc::clone(&operator);
    let images = reflector(writer, watcher(api::<MinimalImage>(args, &client), selected)).inspect_ok(move |event| {
        if let watcher::Event::Delete(image) = event {
            gone.forget(&reconcile::id(image));
        }
    });
    Controller::for_stream(images.default_backoff().applied_objects(), store)
        .with_config(config)
        .owns(api::<Job>(args, &client), ours.clone())
        .watches(api::<Pod>(args, &client), ours, image_of_pod)
        .reconcile_on(woken.map(|id| ObjectRef::new(&id.name).within(&id.namespace)))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::reconcile, reconcile::error_policy, Arc::clone(&operator))
        .for_each(|result| {
            match result {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    operator.forget(&ImageId { namespace, name: gone.name });
                }
                Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) => {
                    tracing::warn!(%error, "failed to watch");
                }
                Ok(_) | Err(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

/// What is watched: one namespace or all.
fn api<K>(args: &OperatorArgs, client: &Client) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    let all = || Api::all(client.clone());
    args.watch_namespace.as_ref().map_or_else(all, |namespace| Api::namespaced(client.clone(), namespace))
}

/// The MinimalImage of one of our Pods: a label says its name, for a Pod is owned by its Job.
fn image_of_pod(pod: Pod) -> Option<ObjectRef<MinimalImage>> {
    let name = pod.labels().get(IMAGE_LABEL)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

/// Until the API server knows the resource there is nothing to watch.
async fn wait_for_crd(client: &Client, args: &OperatorArgs, stop: &CancellationToken) -> anyhow::Result<()> {
    let images: Api<MinimalImage> = api(args, client);
    let one = ListParams { label_selector: args.selector.clone(), ..ListParams::default() }.limit(1);
    while let Err(error) = images.list(&one).await {
        if let (kube::Error::Api(status), Some(selector)) = (&error, &args.selector)
            && status.code == 400
        {
            anyhow::bail!("--selector {selector} is not a label selector: {}", status.message);
        }
        tracing::warn!(%error, "unable to list MinimalImages: is the CRD installed?");
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "local".into());
    format!("{host}_{}", std::process::id())
}

/// A token that is cancelled by SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        cancel.cancel();
    });
    Ok(token)
}
