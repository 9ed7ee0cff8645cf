//! The command lines of what lists and removes images.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::ClusterArgs;

/// Which images are listed, and in which order.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ImagesArgs {
    /// Something else than to list them.
    #[command(subcommand)]
    pub command: Option<ImagesCommand>,
    /// Which and in which order.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
    /// As for build.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
}

/// Which images of a cluster are listed, and in which order.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Which cluster and namespace.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Those of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Which and in which order.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which images of a list are shown, and in which order.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Only the N built last.
    #[arg(long, value_name = "N", conflicts_with = "oldest")]
    pub newest: Option<usize>,
    /// Only the N built first.
    #[arg(long, value_name = "N")]
    pub oldest: Option<usize>,
    /// What they are sorted by.
    #[arg(long, value_enum, default_value_t = Sort::Created)]
    pub sort: Sort,
}

/// Orders of a list of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The largest first.
    Size,
    /// The newest first.
    Created,
    /// By repository and tag.
    Name,
}

/// The store's subcommands.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show how much is there.
    Du {
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
    /// Remove all that the next build can fetch or make again: builder layers, artifacts, caches. Images stay.
    Prune {
        /// Remove records and artifacts of this cache repository instead.
        #[arg(long, value_name = "REPOSITORY")]
        registry: Option<String>,
        /// Which of them.
        #[command(flatten)]
        rule: PruneRule,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_REGISTRIES_FILE")]
        registries_file: Option<PathBuf>,
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
}

/// Which records of a cache repository go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PruneRule {
    /// All but the N made last.
    #[arg(long, value_name = "N", requires = "registry", conflicts_with = "older_than")]
    pub keep_newest: Option<usize>,
    /// Those made longer ago, for example 12h, 30d or 8w.
    #[arg(long, value_name = "TIME", requires = "registry", value_parser = age)]
    pub older_than: Option<Duration>,
}

/// What is done with the list.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Take images off the list. What only they used goes with the next `store prune`.
    Rm {
        /// Names, the tag latest if none is given, or first digits of digests.
        #[arg(required = true)]
        images: Vec<String>,
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
}

fn age(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and s, m, h, d or w, for example 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        "w" => 7 * 86400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}
