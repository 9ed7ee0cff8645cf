//! `minimalimage build` on this machine: with a real OCI runtime and a real registry, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers that fail fail their test")]

mod add;
mod builds;
mod converts;
#[path = "../support/distribution.rs"]
mod distribution;
mod dockerfiles;
mod isolation;
mod plans;
mod preflight;
#[path = "../support/server.rs"]
mod server;
mod snapshots;
mod starts;
mod stores;
mod support;
mod truth;
