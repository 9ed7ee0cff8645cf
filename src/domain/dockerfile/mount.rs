//! `RUN --mount`: the flag as written, and what it means once its values are expanded.

use super::{ast::Word, problem::Located};

/// A `--mount` as written: BuildKit expands the values first and decides then what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// `key=value` or a bare key, in order; keys are in lower case and known.
    pub fields: Vec<Located<MountField>>,
}

/// One part of a mount flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountField {
    /// In lower case.
    pub key: String,
    /// Behind the `=`.
    pub value: Option<Word>,
}

/// What a RUN gets mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image; writes are discarded.
    Bind {
        /// A stage's name or index, or an image; none is the build context.
        from: Option<String>,
        /// Where in it; none is its root.
        source: Option<String>,
        /// Where it is seen; BuildKit requires it.
        target: String,
        /// `rw`.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which cache; BuildKit's default is the target.
        id: Option<String>,
        /// Where it is seen.
        target: String,
        /// What a new cache starts from: a stage's name or index, or an image.
        from: Option<String>,
        /// Where in it.
        source: Option<String>,
        /// Whether several builds use it at once.
        sharing: Sharing,
        /// Whether writes are refused.
        read_only: bool,
        /// Mode, user and group of a new directory.
        attributes: MountAttributes,
    },
    /// Memory.
    Tmpfs {
        /// Where it is seen.
        target: String,
        /// Bytes that it may hold.
        size: Option<u64>,
    },
    /// A secret as a file, a variable or both.
    Secret {
        /// Which secret; by default the target's last part.
        id: String,
        /// The file; none only if `env` is given.
        target: Option<String>,
        /// The variable.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode, user and group of the file.
        attributes: MountAttributes,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Which agent; by default `default`.
        id: Option<String>,
        /// Where the socket is.
        target: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode, user and group of the socket.
        attributes: MountAttributes,
    },
}

/// Whether several builds use a cache at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each one has its own.
    Private,
    /// One after the other.
    Locked,
}

/// Mode, user and group of something mounted; none is BuildKit's default for the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User ID.
    pub uid: Option<u32>,
    /// Group ID.
    pub gid: Option<u32>,
}
