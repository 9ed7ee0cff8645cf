//! The cluster that a person means, found as kubectl finds it, and their MinimalImages. Reads only.

use std::path::Path;

use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::api::v1alpha1::MinimalImage;

/// How many resources one answer holds.
const PAGE: u32 = 200;

/// Why there is no cluster to ask.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigFailure {
    /// There is no kubeconfig, or it has no such context.
    #[error("failed to find a cluster: give --kubeconfig or set KUBECONFIG, and check --context")]
    Config(#[source] KubeconfigError),
    /// It has something that cannot be used.
    #[error("failed to set up the connection to the cluster")]
    Client(#[source] kube::Error),
}

/// A client of that cluster, and the namespace that is meant where none is named.
///
/// # Errors
/// When there is none, or its logins cannot be used.
pub async fn connect(file: Option<&Path>, context: Option<&str>) -> Result<(Client, String), KubeconfigFailure> {
    let read = file.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(KubeconfigFailure::Config)?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(read, &options).await.map_err(KubeconfigFailure::Config)?;
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(KubeconfigFailure::Client)?, namespace))
}

/// Hands every MinimalImage of `api` to `each`, a page of them at a time in memory.
///
/// # Errors
/// When the API server does not answer.
pub async fn for_each(api: &Api<MinimalImage>, mut each: impl FnMut(MinimalImage)) -> kube::Result<()> {
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        page.items.into_iter().for_each(&mut each);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}
