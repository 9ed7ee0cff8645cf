//! Thin effects: they act on what the domain decided and report facts.

pub mod apply;
mod archive;
pub mod cache;
pub mod cluster;
pub mod collect;
pub mod confined;
pub mod debian;
pub mod health;
pub mod kubeconfig;
pub mod layer_index;
pub mod layout;
pub mod lease;
pub mod metrics;
pub mod net;
pub mod pack;
pub mod queue;
pub mod registry;
pub mod rooted;
pub mod sandbox;
pub mod signals;
pub mod snapshot;
pub mod socket;
pub mod source;
pub mod steps;
pub mod store;
pub mod telemetry;
pub mod transient;
pub mod undo;
pub mod unpack;

/// An error with its causes in one line: `failed to reach host: connection refused`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some libraries repeat their cause's words in their own.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
