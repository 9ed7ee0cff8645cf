//! `plan`: what a build would run and why, for a file against this machine's store, for a resource against its status.

mod cluster;
mod local;
mod report;

use std::io::{self, Write as _};

use anyhow::Context as _;

use crate::cli::PlanArgs;

/// What the exit code is when something would change and that was asked for.
const CHANGES: u8 = 2;

/// Prints the plan; gives the exit code.
///
/// # Errors
/// When the file or resource cannot be used, or what it names cannot be looked up.
pub async fn run(args: PlanArgs) -> anyhow::Result<u8> {
    let (json, exit_code) = (args.json, args.exit_code);
    let report = if args.cluster.is_given() { cluster::report(args).await? } else { local::report(args.input).await? };
    let text = if json { serde_json::to_string_pretty(&report)? } else { report.text() };
    writeln!(io::stdout().lock(), "{}", text.trim_end()).context("failed to print the plan")?;
    Ok(if exit_code && report.changes() { CHANGES } else { 0 })
}
