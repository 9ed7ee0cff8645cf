//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod archive;
pub mod artifact;
pub mod environment;
pub mod gzip;
pub mod intake;
pub mod layer;
pub mod passwd;
pub mod recipe;
pub mod tail;
pub mod task;
pub mod tree;
pub mod value;
pub mod wire;
