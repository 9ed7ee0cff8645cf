//! Absolute paths inside an image or a build container.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An absolute path with `.`, `..` and double slashes already resolved as text. `/` is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

/// Why a text is not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("`{0}` is not absolute, expected a path that begins with /")]
    Relative(String),
    /// `..` leads above the root.
    #[error("`{0}` leads above the root")]
    Escapes(String),
    /// A NUL byte, or more than 4096 bytes (Linux PATH_MAX).
    #[error("a path of {0} bytes with NUL bytes or longer than 4096 bytes is not possible")]
    Impossible(usize),
}

impl ImagePath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The path as text, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as a tar archive names it: without the leading `/`; empty for the root.
    #[must_use]
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// This path with `below` (relative or absolute) under it.
    ///
    /// # Errors
    /// When `..` leads above the root or the result is too long.
    pub fn join(&self, below: &str) -> Result<Self, PathError> {
        format!("{}/{below}", self.0).parse()
    }

    /// The directory that holds this path; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, name) = self.0.rsplit_once('/')?;
        if name.is_empty() {
            return None;
        }
        Some(Self(if parent.is_empty() { "/".into() } else { parent.into() }))
    }

    /// The last component; none for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty())
    }

    /// Whether this path is `other` or lies under it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.0 == "/" || self.0 == other.0 || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for ImagePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 4096 || text.contains('\0') {
            return Err(PathError::Impossible(text.len()));
        }
        if !text.starts_with('/') {
            return Err(PathError::Relative(text.into()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| PathError::Escapes(text.into()))?;
                }
                name => parts.push(name),
            }
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for ImagePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(path("//a/./b/../c/").as_str(), "/a/c");
        assert_eq!(path("/").as_str(), "/");
        assert_eq!(path("/a").join("b/c").unwrap().as_str(), "/a/b/c");
    }

    #[test]
    fn escapes_and_relative_paths_are_refused() {
        assert!(matches!("/..".parse::<ImagePath>(), Err(PathError::Escapes(_))));
        assert!(matches!("a".parse::<ImagePath>(), Err(PathError::Relative(_))));
        assert!(matches!("/a\0".parse::<ImagePath>(), Err(PathError::Impossible(3))));
    }

    #[test]
    fn within_respects_component_borders() {
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&ImagePath::root()));
        assert!(!path("/ab").is_within(&path("/a")));
    }

    #[test]
    fn parents_end_at_the_root() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(ImagePath::root()));
        assert_eq!(ImagePath::root().parent(), None);
        assert_eq!(path("/a/b").name(), Some("b"));
    }
}
