//! Logs: one line an outcome, structured, to standard error.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging what `filter` lets through (`info`, `minimalimage=debug`), as JSON or as text.
///
/// # Errors
/// When `filter` is not one.
pub fn start(filter: &str, json: bool) -> Result<(), tracing_subscriber::filter::ParseError> {
    let registry = tracing_subscriber::registry().with(filter.parse::<EnvFilter>()?);
    let writer = std::io::stderr;
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).init();
    } else {
        registry.with(fmt::layer().with_writer(writer)).init();
    }
    Ok(())
}
