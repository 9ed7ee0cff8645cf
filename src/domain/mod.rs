//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod archive;
pub mod artifact;
pub mod gzip;
pub mod layer;
pub mod recipe;
pub mod task;
pub mod tree;
pub mod value;
