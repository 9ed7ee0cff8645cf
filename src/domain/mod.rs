//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod archive;
pub mod artifact;
pub mod credentials;
pub mod decide;
pub mod git;
pub mod image;
pub mod job;
pub mod observed;
pub mod plan;
pub mod recipe;
pub mod record;
pub mod settings;
pub mod source;
pub mod task;
pub mod value;
