//! Why files cannot be collected.

use std::{io, path::PathBuf};

use crate::domain::tree::{Conflict, TreePathError};

/// Why files cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Nothing is there.
    #[error("unable to find `{source_path}`")]
    Missing {
        /// What was declared.
        source_path: String,
        /// Names in the nearest directory that exists.
        nearby: Vec<String>,
    },
    /// It is there, and nothing of it may be seen.
    #[error("unable to copy `{source_path}`: the ignore file leaves it out, let a `!` pattern there take it back")]
    Ignored {
        /// What was declared.
        source_path: String,
    },
    /// A source that is no path below the root, or a broken glob.
    #[error("unable to copy `{source_path}`: {problem}")]
    Source {
        /// What was declared.
        source_path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Several matches, one destination.
    #[error("unable to copy `{0}`: it matches several paths, so the destination must end with /")]
    SeveralMatches(String),
    /// A name that a layer cannot hold.
    #[error("unable to copy {path}: {problem}")]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        problem: TreePathError,
    },
    /// A device or FIFO.
    #[error("unable to copy {0}: it is no file, directory or link")]
    Kind(PathBuf),
    /// An archive that ADD names cannot be unpacked.
    #[error("unable to unpack {}: {problem}; --unpack=false keeps it as it is", .path.display())]
    Unpack {
        /// What was declared.
        source_path: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A privileged file that is meant by its name, so that to leave the bit out would be to break it.
    #[error(
        "unable to copy {path}, which is setuid or setgid: declare `mode` for the copy, \"{mode:04o}\" to keep that or \"{plain:04o}\" to drop it", plain = .mode & 0o777
    )]
    Privileged {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Two items that contradict each other.
    #[error("unable to put the copies together: {0}")]
    Conflict(#[from] Conflict),
    /// Whoever takes the archive does not take it, or a file has another size than a moment ago.
    #[error("failed to write an archive: {source}")]
    Write {
        /// Why.
        source: io::Error,
    },
    /// The disk says no.
    #[error("failed to read {path}: {source}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CollectError {
    /// The source, as it was declared, that cannot be copied as a whole.
    #[must_use]
    pub fn source_path(&self) -> Option<&str> {
        match self {
            Self::Missing { source_path, .. }
            | Self::Ignored { source_path }
            | Self::Source { source_path, .. }
            | Self::Unpack { source_path, .. }
            | Self::SeveralMatches(source_path) => Some(source_path),
            _ => None,
        }
    }
}
