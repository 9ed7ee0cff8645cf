//! Platforms in the OCI sense: operating system, architecture, variant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `os/architecture[/variant]`, for example `linux/amd64` or `linux/arm/v7` (OCI image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// Operating system, as `GOOS` names it.
    pub os: String,
    /// Architecture, as `GOARCH` names it; also the value of the node label `kubernetes.io/arch`.
    pub architecture: String,
    /// Variant, for example `v7`.
    pub variant: Option<String>,
}

/// A text that is not `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform, expected for example linux/amd64")]
pub struct ParsePlatformError(String);

impl Platform {
    /// linux on `architecture`.
    #[must_use]
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// How well an image for `offered` runs on this platform: 0 is exact, more is an older variant; none when it does
    /// not run. A missing variant means the usual one: arm/v7, arm64/v8, amd64/v1.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(level)) => wanted.checked_sub(level),
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// The variant as a number, for the architectures whose variants contain one another.
    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            "amd64" => 1,
            _ => return None,
        };
        match &self.variant {
            None => Some(usual),
            Some(variant) => variant.strip_prefix('v').unwrap_or(variant).parse().ok(),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| word(part)) {
            return Err(ParsePlatformError(text.chars().take(100).collect()));
        }
        let mut parts = parts.into_iter().map(str::to_owned);
        Ok(Self {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_survive_a_round_trip() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["linux", "linux/", "Linux/amd64", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn newer_variants_run_older_ones() {
        for (wanted, offered, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/arm", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm/v7", "linux/arm/v5", Some(2)),
            ("linux/s390x", "linux/s390x", Some(0)),
            ("linux/ppc64le", "linux/ppc64le/x", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
        ] {
            let [wanted, offered] = [wanted, offered].map(|text| text.parse::<Platform>().unwrap());
            assert_eq!(wanted.rank(&offered), rank, "{wanted} {offered}");
        }
    }
}
