//! A ConfigMap as a source, from where the kubelet mounts it; and a Secret, which is mounted the same way.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{SourceError, unpack};
use crate::domain::{archive::Selection, source::config_map_digest, task::Limits, value::Digest};

/// ConfigMaps and Secrets are limited to 1 MiB by the API server; what is larger is not one.
const MAX_BYTES: u64 = 4 << 20;

/// Writes the mounted keys as plain files, if they are still what the operator saw.
pub(super) fn fetch(
    mounted: &Path,
    digest: Digest,
    selection: Selection,
    limits: &Limits,
    into: &Path,
) -> Result<(), SourceError> {
    let data = read_mounted(mounted)?;
    let found = config_map_digest(&data);
    if found != digest {
        return Err(SourceError::ConfigMapChanged { expected: digest, found });
    }
    unpack::write_files(data.iter().map(|(key, value)| (key.as_str(), &value[..])), selection, limits, into)
}

/// The keys and values of a mounted ConfigMap or Secret.
pub(super) fn read_mounted(mounted: &Path) -> Result<BTreeMap<String, Vec<u8>>, SourceError> {
    // Keys are links into `..data`, which the kubelet swaps as a whole when the object changes: resolved once, all
    // values are of one version.
    let at = match fs::canonicalize(mounted.join("..data")) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => mounted.to_owned(),
        Err(error) => return Err(failed(mounted)(error)),
    };
    let mut data = BTreeMap::new();
    let mut left = MAX_BYTES;
    for entry in fs::read_dir(&at).map_err(failed(&at))? {
        let entry = entry.map_err(failed(&at))?;
        let path = entry.path();
        // Keys are ASCII and do not begin with `..`; anything else is the kubelet's own.
        let Some(key) = entry.file_name().to_str().filter(|name| !name.starts_with("..")).map(str::to_owned) else {
            continue;
        };
        let mut value = Vec::new();
        fs::File::open(&path).and_then(|file| file.take(left + 1).read_to_end(&mut value)).map_err(failed(&path))?;
        left = left
            .checked_sub(value.len() as u64)
            .ok_or(SourceError::TooLarge { limit: MAX_BYTES, what: "bytes in a ConfigMap or Secret" })?;
        data.insert(key, value);
    }
    Ok(data)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SourceError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| SourceError::File { path: path.clone(), source }
}
