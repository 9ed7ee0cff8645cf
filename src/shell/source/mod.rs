//! Fetches sources: resolves a reference and reads a Dockerfile for the operator, fills an empty directory for the agent.
//! Decides nothing else.

mod checkout;
mod config_map;
mod error;
mod git;
pub(super) mod http;
mod read;
mod unpack;
mod writer;

use std::{path::Path, time::Duration};

pub use error::SourceError;
pub use read::{read_file, read_files};

use self::http::Session;
use crate::domain::{
    archive::Selection,
    git::{Commit, GitRef},
    source::{Purpose, RelativePath, ServerCredential, SourceCredential, SourceUrl},
    task::{Limits, Origin, SourceTask},
};
use crate::shell::net::Http;

/// How long looking up a reference may take in all.
const RESOLVE_TIME: Duration = Duration::from_mins(1);

/// What a fetch works with.
#[derive(Clone, Copy)]
pub struct FetchEnvironment<'a> {
    /// How servers are reached.
    pub http: &'a Http,
    /// Where the source's Secret is mounted; not looked at when the task names no host for it.
    pub secret_dir: &'a Path,
    /// Where the source's ConfigMap is mounted.
    pub config_map_dir: &'a Path,
    /// Room for downloads, which are gone when the fetch ends. Not visible to user code.
    pub work_dir: &'a Path,
    /// Bounds on what is taken.
    pub limits: &'a Limits,
    /// How long all of it may take.
    pub time: Duration,
}

/// What is known of a source once it was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// For people: the build goes on, but perhaps not as they think.
    pub warnings: Vec<String>,
    /// When its revision was made, in seconds since 1970; commits alone say that.
    pub time: Option<i64>,
}

/// The commit that `reference` stands for now in the repository at `url`.
pub async fn resolve(
    http: &Http,
    url: &str,
    reference: &GitRef,
    credential: Option<&ServerCredential>,
) -> Result<Commit, SourceError> {
    let url = SourceUrl::parse(url)?;
    let session = Session { http, credential, purpose: Purpose::Git };
    within(RESOLVE_TIME, &url, git::resolve(session, &url, reference)).await
}

/// Fills the empty directory `into` with the source: regular files with mode 0644 or 0755, directories with 0755,
/// symbolic links as data. Byte for byte as in the origin; nothing is filtered or converted.
pub async fn fetch(task: &SourceTask, environment: &FetchEnvironment<'_>, into: &Path) -> Result<Fetched, SourceError> {
    let directory = RelativePath::parse(task.directory.as_bytes())?;
    let limits = environment.limits;
    match &task.origin {
        Origin::Git { url, commit, submodules, credential_host } => {
            let (url, commit) = (SourceUrl::parse(url)?, commit.parse()?);
            let credential = mounted_credential(environment, credential_host.as_deref())?;
            let session = Session { http: environment.http, credential: credential.as_ref(), purpose: Purpose::Git };
            let root = git::Root { url: url.clone(), commit, directory, submodules: *submodules };
            within(environment.time, &url, git::fetch(session, root, environment, into)).await
        }
        Origin::Http { url, digest, strip_components, credential_host } => {
            let url = SourceUrl::parse(url)?;
            let credential = mounted_credential(environment, credential_host.as_deref())?;
            let session =
                Session { http: environment.http, credential: credential.as_ref(), purpose: Purpose::Download };
            let selection = Selection::new(*strip_components, directory);
            let archive = http::fetch_archive(session, &url, *digest, selection, environment, into);
            within(environment.time, &url, archive).await.map(|()| Fetched::default())
        }
        Origin::File { url, digest, name } => {
            let url = SourceUrl::parse(url)?;
            let name = RelativePath::default().join(name.as_bytes())?;
            let session = Session { http: environment.http, credential: None, purpose: Purpose::Download };
            let file = http::fetch_file(session, &url, *digest, &name, environment, into);
            within(environment.time, &url, file).await.map(|()| Fetched::default())
        }
        Origin::ConfigMap { digest } => {
            let selection = Selection::new(0, directory);
            config_map::fetch(environment.config_map_dir, *digest, selection, limits, into).map(|()| Fetched::default())
        }
        Origin::Inline { files } => {
            let files = files.iter().map(|(path, content)| (path.as_str(), content.as_bytes()));
            unpack::write_files(files, Selection::new(0, directory), limits, into).map(|()| Fetched::default())
        }
    }
}

/// The mounted credentials bound to their host; none without a host, because then they may not be sent anywhere.
fn mounted_credential(
    environment: &FetchEnvironment<'_>,
    host: Option<&str>,
) -> Result<Option<ServerCredential>, SourceError> {
    let Some(host) = host else { return Ok(None) };
    let credential = SourceCredential::from_secret(&config_map::read_mounted(environment.secret_dir)?)?;
    Ok(Some(ServerCredential::new(host, credential)?))
}

async fn within<T>(
    time: Duration,
    url: &SourceUrl,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
        Err(SourceError::TooSlow { url: url.clone(), what: format!("not done within {} seconds", time.as_secs()) })
    })
}

/// Runs work on files beside the network's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(SourceError::Thread("its thread ended early")))
}
