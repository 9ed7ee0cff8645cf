//! Paths from outside, made safe once: nothing that holds a [`RelativePath`] needs to look for `..` again.

use std::fmt;

use crate::domain::text::printable;

/// The longest path that a source may hold: Linux' PATH_MAX without the NUL.
pub const MAX_PATH: usize = 4095;
/// The longest file name: Linux' NAME_MAX.
const MAX_NAME: usize = 255;

/// A path below some root, as bytes: no empty, `.` or `..` components, not absolute. Empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelativePath(Vec<u8>);

/// Why a path from outside is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsafePath {
    /// It begins with `/`.
    #[error("`{0}` is absolute, expected a path below the source's root")]
    Absolute(String),
    /// It has a component `..`.
    #[error("`{0}` leads upwards with `..`")]
    Upwards(String),
    /// It has a NUL byte.
    #[error("`{0}` has a NUL byte")]
    Nul(String),
    /// It is longer than Linux allows.
    #[error("`{0}` is longer than {MAX_PATH} bytes, or a name in it than {MAX_NAME}")]
    TooLong(String),
}

impl RelativePath {
    /// Takes a path as archives and people write it: `./` and doubled or trailing slashes are dropped.
    pub fn parse(text: &[u8]) -> Result<Self, UnsafePath> {
        if text.starts_with(b"/") {
            return Err(UnsafePath::Absolute(printable(text)));
        }
        let mut path = Self::default();
        for part in text.split(|byte| *byte == b'/') {
            if part == b".." {
                return Err(UnsafePath::Upwards(printable(text)));
            }
            if !matches!(part, b"" | b".") {
                path = path.join(part)?;
            }
        }
        Ok(path)
    }

    /// This path with one more component, which must be a plain file name.
    pub fn join(&self, name: &[u8]) -> Result<Self, UnsafePath> {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if matches!(name, b"" | b"." | b"..") {
            return Err(UnsafePath::Upwards(printable(&path)));
        }
        if name.contains(&b'/') {
            return Err(UnsafePath::Absolute(printable(&path)));
        }
        if name.contains(&0) {
            return Err(UnsafePath::Nul(printable(&path)));
        }
        if path.len() > MAX_PATH || name.len() > MAX_NAME {
            return Err(UnsafePath::TooLong(printable(&path)));
        }
        Ok(Self(path))
    }

    /// This path with `below` under it.
    pub fn append(&self, below: &Self) -> Result<Self, UnsafePath> {
        below.components().try_fold(self.clone(), |path, name| path.join(name))
    }

    /// The names from the root downwards; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The path as bytes, without a slash at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this path, and its name there; none for the root.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.0.is_empty() => None,
            None => Some((Self::default(), &self.0)),
        }
    }

    /// What remains below `directory`; the root when both are equal, none when this path is not within it.
    pub fn below(&self, directory: &Self) -> Option<Self> {
        if directory.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&directory.0[..])?;
        match rest.split_first() {
            None => Some(Self::default()),
            Some((b'/', rest)) => Some(Self(rest.to_vec())),
            Some(_) => None,
        }
    }

    /// What remains after the first `count` components; none when nothing does.
    pub fn strip(&self, count: u32) -> Option<Self> {
        if count == 0 {
            return Some(self.clone());
        }
        let mut rest = &self.0[..];
        for _ in 0..count {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            rest = &rest[slash + 1..];
        }
        (!rest.is_empty()).then(|| Self(rest.to_vec()))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&printable(&self.0))
    }
}
