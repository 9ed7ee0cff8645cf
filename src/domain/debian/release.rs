//! The Release file of an archive's suite: what its index files hash to, and how long it counts.

use std::collections::BTreeMap;

use jiff::{Timestamp, fmt::rfc2822};

use crate::domain::value::Digest;

use super::stanza::Stanza;

/// A Release file that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who makes the archive: `Debian`.
    pub origin: String,
    /// The suite's code name: `bookworm`, `bookworm-security`.
    pub codename: String,
    /// The suite's other name: `stable`.
    pub suite: String,
    /// The distribution's version: `13.8`; of some suites empty.
    pub version: String,
    /// When it was made.
    pub date: Timestamp,
    /// Until when it counts, if it says so.
    pub valid_until: Option<Timestamp>,
    /// Whether its files are also found by their digests.
    pub by_hash: bool,
    files: BTreeMap<String, IndexFile>,
}

/// A file that a Release names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexFile {
    /// What it hashes to.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Why a Release file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// A field is missing or cannot be read.
    #[error("its Release file has no usable field {0}")]
    Field(&'static str),
}

impl Release {
    /// Reads the text of a Release file.
    ///
    /// # Errors
    /// When a field that is needed is not there.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let stanza = Stanza::parse(text);
        let date = stanza.get("Date").and_then(time).ok_or(ReleaseError::Field("Date"))?;
        let valid_until = match stanza.get("Valid-Until") {
            Some(text) => Some(time(text).ok_or(ReleaseError::Field("Valid-Until"))?),
            None => None,
        };
        let files = stanza.get("SHA256").ok_or(ReleaseError::Field("SHA256"))?.lines().filter_map(file).collect();
        let text = |name| stanza.get(name).unwrap_or_default().chars().take(64).collect();
        Ok(Self {
            origin: text("Origin"),
            codename: text("Codename"),
            suite: text("Suite"),
            version: text("Version"),
            date,
            valid_until,
            by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            files,
        })
    }

    /// The distribution with its version, for people: `Debian 13.8 (trixie)`.
    #[must_use]
    pub fn distribution(&self) -> String {
        let words = [&self.origin, &self.version].into_iter().filter(|word| !word.is_empty());
        format!("{} ({})", words.cloned().collect::<Vec<_>>().join(" "), self.codename)
    }

    /// Whether it is the Release file of `suite`, which may be its code name.
    #[must_use]
    pub fn is_for(&self, suite: &str) -> bool {
        // Debian's security archive was named bullseye-security in its directory and bullseye in its file before.
        self.codename == suite || self.suite == suite
    }

    /// A file below the suite's directory: `main/binary-amd64/Packages.xz`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<IndexFile> {
        self.files.get(path).copied()
    }
}

fn file(line: &str) -> Option<(String, IndexFile)> {
    let mut words = line.split_whitespace();
    let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
    let file = IndexFile { digest: format!("sha256:{digest}").parse().ok()?, size: size.parse().ok()? };
    Some((path.to_owned(), file))
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`, as archives write it.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().strip_suffix("UTC").map_or_else(|| text.to_owned(), |text| format!("{text}+0000"));
    rfc2822::DateTimeParser::new().parse_timestamp(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_is_read() {
        let text = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\n\
                    MD5Sum:\n 00 1 main/binary-amd64/Packages.xz\nSHA256:\n \
                    9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5  8790396 main/binary-amd64/Packages.xz\n";
        let release = Release::parse(text).unwrap();
        assert_eq!(release.date.to_string(), "2026-07-11T10:16:37Z");
        assert_eq!(release.file("main/binary-amd64/Packages.xz").map(|file| file.size), Some(8_790_396));
        assert!(release.is_for("bookworm") && release.is_for("oldstable") && !release.is_for("trixie"));
        assert_eq!(Release::parse(&text.replace("Date:", "Data:")), Err(ReleaseError::Field("Date")));
        assert_eq!(Release::parse("Date: yesterday\nSHA256:\n"), Err(ReleaseError::Field("Date")));
    }
}
