//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod archive;
pub mod artifact;
pub mod git;
pub mod recipe;
pub mod source;
pub mod task;
pub mod value;
