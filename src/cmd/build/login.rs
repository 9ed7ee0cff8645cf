//! The logins of `docker login`: the Docker config file and the credential helpers that it names.

use std::{collections::BTreeMap, fs, io, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::domain::{
    credentials::{Credential, Keychain},
    value::{Repository, Secret},
};

/// A helper that asks somebody for a password must not hold a build for ever.
const HELPER_TIME: Duration = Duration::from_secs(30);
/// The server that helpers know Docker Hub as.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The logins for `repositories`; none when there is no such file.
///
/// # Errors
/// When the file cannot be read, or a helper fails other than by not knowing the server.
pub async fn keychain(repositories: &[&Repository]) -> anyhow::Result<Keychain> {
    let Some(path) = config_file() else { return Ok(Keychain::default()) };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keychain::default()),
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    };
    let mut keychain = Keychain::parse(&bytes).with_context(|| format!("unable to use {}", path.display()))?;
    // The form was checked just now; what else is wrong with it is not about helpers.
    let config: Config = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut hosts: Vec<&str> = repositories.iter().map(|repository| repository.registry()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        let server = if host == "docker.io" { DOCKER_HUB } else { host };
        let helper = config.cred_helpers.get(host).or_else(|| config.cred_helpers.get(server));
        let Some(helper) = helper.or(config.creds_store.as_ref()) else { continue };
        let found = tokio::time::timeout(HELPER_TIME, ask(helper, server)).await;
        let found = found.with_context(|| format!("docker-credential-{helper} gave no answer for {host}"))?;
        if let Some(credential) = found.with_context(|| format!("docker-credential-{helper} failed for {host}"))? {
            keychain = Keychain::single(host, credential).merge(keychain);
        }
    }
    Ok(keychain)
}

fn config_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home)?.join("config.json"))
}

/// Asks a credential helper by its protocol: the server on standard input, JSON on standard output.
async fn ask(helper: &str, server: &str) -> anyhow::Result<Option<Credential>> {
    if helper.contains('/') {
        bail!("a helper is a name, not a path");
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        if said.contains("credentials not found") || said.contains("no credentials") {
            return Ok(None);
        }
        bail!("it ended with {}", output.status);
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).context("its answer is not JSON of that kind")?;
    // Helpers mark an identity token by this name.
    Ok(Some(if answer.username == "<token>" {
        Credential::IdentityToken(Secret::new(answer.secret))
    } else {
        Credential::Basic { username: answer.username, password: Secret::new(answer.secret) }
    }))
}
