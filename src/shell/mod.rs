//! Thin effects: they act on what the domain decided and report facts.

pub mod cache;
pub mod cluster;
pub mod collect;
pub mod net;
pub mod pack;
pub mod queue;
pub mod registry;
pub mod rooted;
pub mod socket;
pub mod source;
pub mod steps;
pub mod unpack;
