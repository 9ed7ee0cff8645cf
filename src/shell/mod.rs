//! Thin effects: they act on what the domain decided and report facts.

pub mod collect;
pub mod pack;
pub mod rooted;
pub mod signals;
pub mod socket;
pub mod steps;
pub mod unpack;
