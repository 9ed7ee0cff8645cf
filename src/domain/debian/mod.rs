//! Debian packages: what an archive has, which of it a base needs, and what of that gets into the image.

pub mod accounts;
pub mod base;
pub mod certificates;
pub mod compose;
pub mod contents;
pub mod packages;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod runtimes;
pub mod scripts;
pub mod signature;
pub mod stanza;
pub mod version;
