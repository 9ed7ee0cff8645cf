//! Image references: registry, repository, tag, digest.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::digest::Digest;

/// A repository on a registry: `host[:port]/path`, Docker Hub's short names written out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

/// A repository with a tag, a digest, or both (then the digest counts). Without either the tag is `latest`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference; the text and the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {problem}")]
pub struct ParseReferenceError {
    text: String,
    problem: &'static str,
}

impl Repository {
    /// The registry as the reference names it, `host[:port]`; Docker Hub is `docker.io`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's name on its registry, without the host.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository beside this one whose name has `suffix` appended.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Self { registry: self.registry.clone(), path: format!("{}{suffix}", self.path) }
    }

    /// This repository at `tag`.
    ///
    /// # Errors
    /// When `tag` is no tag by the OCI distribution-spec.
    pub fn tagged(&self, tag: &str) -> Result<Reference, ParseReferenceError> {
        let refuse = |problem| ParseReferenceError { text: tag.into(), problem };
        check_tag(tag).map_err(refuse)?;
        Ok(Reference { repository: self.clone(), tag: Some(tag.into()), digest: None })
    }

    /// This repository at `digest`.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Reference {
        Reference { repository: self.clone(), tag: None, digest: Some(digest) }
    }
}

impl Reference {
    /// Where the image is.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if the reference has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a registry is asked for: the digest, else the tag.
    #[must_use]
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }

    /// The same image pinned to `digest`, the tag kept for readers.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem| ParseReferenceError { text: text.chars().take(300).collect(), problem };
        let (registry, path) = match text.split_once('/') {
            Some((host, rest)) if is_host(host) => (host.to_owned(), rest.to_owned()),
            Some(_) => ("docker.io".to_owned(), text.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{text}")),
        };
        let (registry, path) = match (registry.as_str(), path.contains('/')) {
            ("docker.io" | "index.docker.io", true) => ("docker.io".to_owned(), path),
            ("docker.io" | "index.docker.io", false) => ("docker.io".to_owned(), format!("library/{path}")),
            _ => (registry, path),
        };
        if path.len() + registry.len() > 255 {
            return Err(refuse("a name is at most 255 characters"));
        }
        if !path.split('/').all(is_component) {
            return Err(refuse("a repository is lower-case letters and digits, separated by / . _ __ or -"));
        }
        Ok(Self { registry, path })
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem| ParseReferenceError { text: text.chars().take(300).collect(), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse().map_err(|_| refuse("the digest is not sha256: and 64 lower-case hex digits"))?),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(refuse)?;
        }
        let repository = name.parse().map_err(|error: ParseReferenceError| refuse(error.problem))?;
        let tag = tag.or(digest.is_none().then_some("latest"));
        Ok(Self { repository, tag: tag.map(str::to_owned), digest })
    }
}

/// A first component is a host when it has a dot or a port or is `localhost` (the rule of the Docker reference grammar).
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let named =
        name == "localhost" || port.is_some() || name.contains('.') || name.starts_with('[') && name.ends_with(']');
    named
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b))
        && port.is_none_or(|port| port.parse::<u16>().is_ok() || port.ends_with(']'))
}

/// One component of a repository name (OCI distribution-spec, "Pulling manifests").
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = String::new();
    let mut after_word = false;
    for byte in text.bytes() {
        if alphanumeric(byte) {
            let allowed = separator.is_empty()
                || (after_word
                    && (matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|b| b == b'-')));
            if !allowed {
                return false;
            }
            separator.clear();
            after_word = true;
        } else if b"._-".contains(&byte) {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    after_word && separator.is_empty()
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let legal = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if legal {
        Ok(())
    } else {
        Err("a tag is at most 128 letters, digits, _ . or -, and begins with a letter, digit or _")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, formatter)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(formatter, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(formatter, "@{digest}"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Repository, Reference);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_written_out() {
        let hex = "a".repeat(64);
        for (text, full) in [
            ("golang:1.26", "docker.io/library/golang:1.26".to_owned()),
            ("golang", "docker.io/library/golang:latest".to_owned()),
            ("me/app", "docker.io/me/app:latest".to_owned()),
            ("index.docker.io/app:1", "docker.io/library/app:1".to_owned()),
            ("localhost/app:1", "localhost/app:1".to_owned()),
            ("host:5000/a/b__c.d:T_1", "host:5000/a/b__c.d:T_1".to_owned()),
            ("[::1]:5000/a:1", "[::1]:5000/a:1".to_owned()),
            (&format!("gcr.io/x@sha256:{hex}"), format!("gcr.io/x@sha256:{hex}")),
            (&format!("gcr.io/x:1@sha256:{hex}"), format!("gcr.io/x:1@sha256:{hex}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn impossible_references_are_refused() {
        for text in [
            "",
            "UPPER",
            "host.io/UPPER",
            "a:b c",
            "a@sha256:00",
            "a//b",
            "-a",
            "a-",
            "a:",
            "a:.x",
            "host:99999/a",
            "a___b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_out_is_the_same_reference() {
        for text in ["golang", "golang:1", "gcr.io/x"] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn the_digest_counts_when_both_are_given() {
        let digest = Digest::of(b"");
        let reference: Reference = format!("gcr.io/x:1@{digest}").parse().unwrap();
        assert_eq!(reference.manifest_name(), digest.to_string());
        assert_eq!(reference.tag(), Some("1"));
    }
}
