//! Reads a few small files of a source for the operator, with as little of the rest as the server allows.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use super::{
    FetchEnvironment, SourceError, fetch,
    git::{self, Root},
    http::{self, Session},
    within,
};
use crate::{
    domain::{
        archive::Selection,
        source::{Purpose, RelativePath, ServerCredential, SourceUrl},
        task::{Origin, SourceTask},
    },
    shell::rooted::{Last, resolve},
};

/// Bytes of one file; a Dockerfile is never larger.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The contents of `paths` below the source's directory; none where there is no such file. `credential` is what the operator
/// has read of the source's Secret.
///
/// # Errors
/// When the source cannot be fetched, or a file is larger than 1 MiB.
pub async fn read_files(
    task: &SourceTask,
    credential: Option<&ServerCredential>,
    environment: &FetchEnvironment<'_>,
    paths: &[String],
) -> Result<BTreeMap<String, Option<Vec<u8>>>, SourceError> {
    if let Origin::Git { url, commit, .. } = &task.origin {
        let directory = RelativePath::parse(task.directory.as_bytes())?;
        let (url, commit) = (SourceUrl::parse(url)?, commit.parse()?);
        let session = Session { http: environment.http, credential, purpose: Purpose::Git };
        let root = Root { url: url.clone(), commit, directory, submodules: false };
        return within(environment.time, &url, git::read(session, root, environment, paths)).await;
    }
    let failed = |source| SourceError::File { path: environment.work_dir.to_owned(), source };
    let top = tempfile::tempdir_in(environment.work_dir).map_err(failed)?;
    if let Origin::Http { url, digest, strip_components, .. } = &task.origin {
        let url = SourceUrl::parse(url)?;
        let session = Session { http: environment.http, credential, purpose: Purpose::Download };
        let selection = Selection::new(*strip_components, RelativePath::parse(task.directory.as_bytes())?);
        let archive = http::fetch_archive(session, &url, *digest, selection, environment, top.path());
        within(environment.time, &url, archive).await?;
    } else {
        fetch(task, environment, top.path()).await?;
    }
    let read = |path: &String| Ok((path.clone(), read_file(top.path(), path)?));
    paths.iter().map(read).collect()
}

/// The content of one file below a directory; none where there is no such file. Links do not lead out of it.
///
/// # Errors
/// When it cannot be read, or is larger than 1 MiB.
pub fn read_file(root: &Path, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let failed = |source| SourceError::File { path: path.into(), source };
    let found = resolve(root, path.as_ref(), Last::Follow).map_err(failed)?;
    if !found.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    fs::File::open(found).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content)).map_err(failed)?;
    bounded(content).map(Some)
}

/// `content`, if it is not larger than such a file may be.
pub(super) fn bounded(content: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    if content.len() as u64 > MAX_FILE {
        return Err(SourceError::TooLarge { limit: MAX_FILE, what: "bytes in a Dockerfile or ignore file" });
    }
    Ok(content)
}
