//! What can go wrong between a list of packages and a base. Messages name archives, suites and packages.

use std::io;

use jiff::Timestamp;

use crate::{
    api::conditions::Reason,
    domain::debian::{
        compose::ComposeError, packages::TooMany, release::ReleaseError, resolve::ResolveError,
        signature::SignatureError,
    },
    shell::source::SourceError,
};

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file of the archive cannot be had.
    #[error("failed to read {what}")]
    Fetch {
        /// Which file.
        what: String,
        /// Why not.
        #[source]
        source: SourceError,
    },
    /// It has no such suite.
    #[error(
        "there is no suite {suite} in {root}, expected one such as bookworm or trixie: correct the name, or the mirror"
    )]
    NoSuite {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
    },
    /// The keyring is none.
    #[error("spec.image.base.packages.keyring: {0}")]
    Keyring(#[source] SignatureError),
    /// Nobody who is believed has signed the suite.
    #[error("{suite} of {root} is not believed: {source}")]
    Signature {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// Why.
        source: SignatureError,
    },
    /// It is signed, and not as it should be.
    #[error("{suite} of {root} cannot be used: {source}")]
    Release {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// What is wrong.
        source: ReleaseError,
    },
    /// The directory of one suite has another one's file.
    #[error("{root} gives {found} where {suite} is asked for")]
    OtherSuite {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// The suite that came.
        found: String,
    },
    /// It counts no longer.
    #[error(
        "{suite} of {root} was valid until {until} and has not been renewed: its mirror is behind, or somebody holds it back; for a \
         frozen archive set spec.image.base.packages.snapshot"
    )]
    Expired {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// Until when it counted.
        until: Timestamp,
    },
    /// It is older than one that was seen before.
    #[error(
        "the archive's {suite} is of {date}, and one of {seen} was seen before: its mirror is behind, or somebody holds back updates"
    )]
    Older {
        /// The suite.
        suite: String,
        /// When it was made.
        date: Timestamp,
        /// When the one that was seen was made.
        seen: Timestamp,
    },
    /// It has no such component, or not for the architecture.
    #[error("{suite} of {root} has no packages of {component} for {architecture}")]
    NoIndex {
        /// The suite.
        suite: String,
        /// The archive.
        root: String,
        /// The component.
        component: String,
        /// The architecture.
        architecture: String,
    },
    /// A file is not what the archive says of it.
    #[error("{what} is not what its archive says: {problem}; its mirror is being updated or broken")]
    Mismatch {
        /// Which file.
        what: String,
        /// In what.
        problem: &'static str,
    },
    /// An index that cannot be unpacked or read.
    #[error("failed to unpack {what}: {source}")]
    Index {
        /// Which file.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// More packages than an archive has.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// No set of packages is what is asked for.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// A package's file is broken, or made to do harm.
    #[error("the package {package} cannot be unpacked: {problem}")]
    Package {
        /// Name and version.
        package: String,
        /// What is wrong.
        problem: String,
    },
    /// The packages do not make a base.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The disk here.
    #[error("failed to write a file")]
    File(#[from] io::Error),
}

impl BaseError {
    /// The same as conditions say it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Fetch { .. } | Self::Mismatch { .. } | Self::File(_) => Reason::ArchiveUnavailable,
            Self::Signature { .. }
            | Self::Release { .. }
            | Self::OtherSuite { .. }
            | Self::Expired { .. }
            | Self::Older { .. }
            | Self::Index { .. }
            | Self::TooMany(_) => Reason::ArchiveUntrusted,
            Self::Keyring(_) => Reason::InvalidSpec,
            Self::NoSuite { .. } | Self::NoIndex { .. } | Self::Resolve(_) => Reason::PackagesUnresolvable,
            Self::Package { .. } | Self::Compose(_) => Reason::BaseInvalid,
        }
    }
}
