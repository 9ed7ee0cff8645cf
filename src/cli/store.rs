//! The command lines of what lists and removes images.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which images are listed, and in which order.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Only the N built last.
    #[arg(long, value_name = "N", conflicts_with = "oldest")]
    pub newest: Option<usize>,
    /// Only the N built first.
    #[arg(long, value_name = "N")]
    pub oldest: Option<usize>,
    /// What they are sorted by.
    #[arg(long, value_enum, default_value_t = Sort::Created)]
    pub sort: Sort,
    /// As for build.
    #[arg(long, env = "MINIMALIMAGE_STORE")]
    pub store: Option<PathBuf>,
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
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// As for build.
        #[arg(long, env = "MINIMALIMAGE_STORE")]
        store: Option<PathBuf>,
    },
}
