//! Thin effects: they act on what the domain decided and report facts.

pub mod collect;
pub mod rooted;
pub mod socket;
pub mod unpack;
