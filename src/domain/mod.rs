//! Decisions as pure functions: no async, no files, no network, no clock, no Kubernetes client.

pub mod archive;
pub mod artifact;
pub mod credentials;
pub mod decide;
pub mod environment;
pub mod files_layer;
pub mod git;
pub mod gzip;
pub mod image;
pub mod intake;
pub mod job;
pub mod layer;
pub mod layer_reader;
pub mod media_type;
pub mod observed;
pub mod passwd;
pub mod plan;
pub mod recipe;
pub mod record;
pub mod settings;
pub mod source;
pub mod tail;
pub mod task;
pub mod tree;
pub mod value;
pub mod wire;
