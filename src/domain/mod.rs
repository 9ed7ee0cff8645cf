//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod artifact;
pub mod credentials;
pub mod recipe;
pub mod task;
pub mod value;
