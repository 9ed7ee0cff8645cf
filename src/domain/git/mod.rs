//! Git's formats and messages as pure functions: names, objects, packets, protocol versions 0 and 2. No network, no files.

mod modules;
mod object;
mod packet;
mod protocol;

use std::{fmt, str::FromStr};

pub use modules::{Submodule, parse_modules, submodule_url};
pub use object::{EntryKind, TreeEntry, commit_time, commit_tree, is_lfs_pointer, tree_entries};
pub use packet::{Packet, PacketError, PacketReader};
pub use protocol::{
    Advertisement, Depth, FetchEvent, FetchReader, GitRef, Ref, RemoteRefusal, Version, fetch_request, find_ref,
    ls_refs_request, parse_ref_line,
};

/// The SHA-1 of a Git object, written as 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

/// A commit's name.
pub type Commit = ObjectId;

/// Why a text is not an object's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a full commit, expected 40 hex digits")]
pub struct ParseObjectIdError(String);

impl ObjectId {
    /// The name with these bytes.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The name that Git writes where there is no object.
    pub fn is_null(&self) -> bool {
        self.0 == [0; 20]
    }
}

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseObjectIdError(super::text::printable(text.as_bytes()));
        if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The name of a branch or tag without `refs/heads/` or `refs/tags/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefName(String);

/// Why a text cannot be the name of a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be the name of a branch or tag (git help check-ref-format)")]
pub struct ParseRefNameError(String);

impl RefName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefName {
    type Err = ParseRefNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // git help check-ref-format. Line breaks and NUL matter most: they would end the packet's line.
        let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let bad_part =
            |part: &str| part.is_empty() || part.starts_with('.') || part.to_ascii_lowercase().ends_with(".lock");
        let bad = text.len() > 500
            || text == "@"
            || text.contains("..")
            || text.contains("@{")
            || text.ends_with('.')
            || text.chars().any(bad_char)
            || text.split('/').any(bad_part);
        if bad {
            return Err(ParseRefNameError(super::text::printable(text.as_bytes())));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_are_forty_hex_digits() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(text.to_uppercase().parse::<ObjectId>().unwrap().to_string(), text);
        for bad in ["", "main", &text[1..], "+123456789abcdef0123456789abcdef01234567"] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ref_names_cannot_carry_protocol_lines() {
        for good in ["main", "release/1.x", "v1.0", "fix-#12"] {
            assert!(good.parse::<RefName>().is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a b", "a..b", "/a", "a/", ".a", "a.lock", "a~1", "@{u}", "a\0"] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?}");
        }
    }
}
