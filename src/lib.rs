//! MinimalImage builds small, safe container images from Git repositories on Kubernetes, without a builder inside.
//!
//! The flow, and where each part lives:
//! spec → plan → Job → artifact → assembly → push → status.
//!
//! Imports go one way, `api ← domain ← shell ← cmd` (tests/architecture.rs is the wall):
//! - [`api`]: the contract with users: the `MinimalImage` resource, its conditions and reasons.
//! - [`domain`]: decisions as pure functions over plain values.
//! - [`shell`]: thin effects: cluster, registry, sources, sockets, files.
//! - [`cmd`]: one file per subcommand, which wires domain to shell.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod cmd;
pub mod domain;
pub mod shell;
