//! Sources as values: safe relative paths, addresses, credentials and the digest of a ConfigMap. Fetches nothing.

mod address;
mod credential;
mod path;

use std::collections::BTreeMap;

pub use address::{Server, SourceUrl, UrlError};
pub use credential::{CredentialError, Purpose, ServerCredential, SourceCredential};
pub use path::{MAX_PATH, RelativePath, UnsafePath};

use super::value::{Digest, DigestHasher};

/// The up to three names nearest to `wanted`, or the first five of all when none is near: for "did you mean".
pub fn close_names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<&str> = names.collect();
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .map(|name| (distance(wanted, name), *name))
        .filter(|(distance, name)| *distance <= 1 + wanted.len().max(name.len()) / 3)
        .collect();
    near.sort_unstable();
    if near.is_empty() {
        return names.into_iter().take(5).map(String::from).collect();
    }
    near.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance over bytes, of the first 100.
fn distance(left: &str, right: &str) -> usize {
    let right = &right.as_bytes()[..right.len().min(100)];
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, a) in left.bytes().take(100).enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// The identity of a ConfigMap's content; `data` holds the bytes of `data` and `binaryData` together.
pub fn config_map_digest(data: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut hasher = DigestHasher::default();
    hasher.update(b"minimalimage configmap 1\n");
    for (key, value) in data {
        // Lengths go first so that no two ConfigMaps run together to the same bytes.
        for part in [key.as_bytes(), value] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
