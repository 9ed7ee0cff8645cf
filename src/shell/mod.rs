//! Thin effects: they act on what the domain decided and report facts.

pub mod net;
pub mod registry;
pub mod source;
