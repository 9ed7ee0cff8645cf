//! The files in `/etc` that loaders read: glibc's cache and its configuration, musl's path.

use serde::{Deserialize, Serialize};

/// As many libraries are taken from a cache.
const MOST_ENTRIES: u32 = 20_000;
/// The header of the cache (glibc, sysdeps/generic/dl-cache.h): both marks, then counts and what is unused.
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const HEADER: usize = 48;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const ENTRY: usize = 24;

/// A library that `ldconfig` has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// Its soname.
    #[serde(rename = "n")]
    pub name: String,
    /// Where it is.
    #[serde(rename = "p")]
    pub path: String,
    /// Whether only some processors use it.
    #[serde(rename = "h", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_special: bool,
}

/// Reads `/etc/ld.so.cache`; none when it is not of the format that glibc has had since 2.2, in little endian.
pub(super) fn cache(bytes: &[u8]) -> Option<Vec<CacheEntry>> {
    let bytes = if bytes.starts_with(OLD_MAGIC) {
        // The new table follows the old one, at a multiple of eight (ALIGN_CACHE).
        let count = usize::try_from(number(bytes, OLD_MAGIC.len().next_multiple_of(4))?).ok()?;
        let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
        bytes.get(end.checked_next_multiple_of(8)?..)?
    } else {
        bytes
    };
    if !bytes.starts_with(NEW_MAGIC) {
        return None;
    }
    let count = number(bytes, NEW_MAGIC.len())?;
    if count > MOST_ENTRIES {
        return None;
    }
    let text = |offset: u32| {
        let bytes = bytes.get(usize::try_from(offset).ok()?..)?;
        let bytes = bytes.get(..bytes.len().min(4096))?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
    };
    let entries = bytes.get(HEADER..)?.as_chunks::<ENTRY>().0;
    let entries = entries.get(..usize::try_from(count).ok()?)?;
    let entry = |entry: &[u8; ENTRY]| {
        let is_special = number(entry, 16)? != 0 || number(entry, 20)? != 0;
        Some(CacheEntry { name: text(number(entry, 4)?)?, path: text(number(entry, 8)?)?, is_special })
    };
    entries.iter().map(entry).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The directories that a file such as `/etc/ld.so.conf` names (ldconfig(8)): one or more in a line, `#` begins a comment.
pub(super) fn configured(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words =
        lines.filter(|line| !line.trim_start().starts_with("include") && !line.trim_start().starts_with("hwcap"));
    let words = words.flat_map(|line| line.split([' ', '\t', ',', ':']));
    // `dir=TYPE`, from the days of libc5.
    words.map(|word| word.split('=').next().unwrap_or_default()).filter(|word| word.starts_with('/'))
}

/// The directories of `/etc/ld-musl-ARCH.path` (musl, ldso/dynlink.c): between colons or line ends.
pub(super) fn musl_path(text: &str) -> impl Iterator<Item = &str> {
    text.split([':', '\n']).filter(|directory| !directory.is_empty())
}
