//! Versions of Debian packages and their order (deb-version(7)).

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `[epoch:]upstream[-revision]`, kept as it is written. Two spellings of one version (`1.0` and `1.0-0`) are equal in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of a Debian package, expected for example 1:2.36-9+deb12u13")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let parts = Parts::of(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte);
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let colon = text.split_once(':');
        let fine = text.len() <= 128
            && text.bytes().all(allowed)
            && !parts.upstream.is_empty()
            && parts.upstream.starts_with(|first: char| first.is_ascii_alphanumeric())
            && colon.is_none_or(|(epoch, _)| !epoch.is_empty() && digits(epoch));
        if fine { Ok(Self(text.to_owned())) } else { Err(VersionError(text.chars().take(130).collect())) }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Version {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The order in which dpkg sees versions.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (Parts::of(&self.0), Parts::of(&other.0));
        digits(ours.epoch, theirs.epoch)
            .then_with(|| pieces(ours.upstream, theirs.upstream))
            .then_with(|| pieces(ours.revision, theirs.revision))
    }
}

struct Parts<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, upstream, revision }
    }
}

/// Numbers of any length.
fn digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Texts and numbers in turn; in texts `~` is before the end, and letters are before the rest.
fn pieces(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (text_a, text_b) = (text(&mut a), text(&mut b));
        let weights = |text: &str| text.bytes().map(weight).chain([0]).collect::<Vec<_>>();
        let order = weights(text_a).cmp(&weights(text_b));
        let order = order.then_with(|| digits(number(&mut a), number(&mut b)));
        if order != Ordering::Equal || a.is_empty() && b.is_empty() {
            return order;
        }
    }
}

fn weight(byte: u8) -> i32 {
    match byte {
        b'~' => -1,
        letter if letter.is_ascii_alphabetic() => i32::from(letter),
        other => i32::from(other) + 256,
    }
}

fn text<'a>(rest: &mut &'a str) -> &'a str {
    take(rest, |byte| !byte.is_ascii_digit())
}

fn number<'a>(rest: &mut &'a str) -> &'a str {
    take(rest, |byte| byte.is_ascii_digit())
}

fn take<'a>(rest: &mut &'a str, belongs: impl Fn(u8) -> bool) -> &'a str {
    let end = rest.bytes().position(|byte| !belongs(byte)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at_checked(end).unwrap_or((rest, ""));
    *rest = left;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0.0",
            "1~rc1-1",
            "1",
            "1-0.1",
            "1-1~bpo12+1",
            "1-1",
            "1-1+b1",
            "1a",
            "1.0",
            "1.2",
            "1.10",
            "1.10+deb12u2",
            "1.10+deb12u13",
            "2.36-9",
            "2.36-9+deb12u3",
            "10",
            "1:0.1",
            "2:0",
        ];
        let versions: Vec<Version> = ascending.iter().map(|text| text.parse().unwrap()).collect();
        for (index, version) in versions.iter().enumerate() {
            for (other_index, other) in versions.iter().enumerate() {
                assert_eq!(version.compare(other), index.cmp(&other_index), "{version} and {other}");
            }
        }
    }

    #[test]
    fn one_version_has_several_spellings() {
        for (a, b) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.01", "1.1"), ("1-00", "1-0")] {
            let (a, b): (Version, Version) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.compare(&b), Ordering::Equal, "{a} and {b}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1_2", "a:1", ":1", "1 2", "-1", "ü"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
