//! `store`: how much builds on this machine keep, and less of it.

mod prune;

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::build::columns;
use crate::{
    cli::StoreCommand,
    domain::value::human_size,
    shell::{
        sandbox::{Request, Session},
        store::Store,
    },
};

/// Prints what is there, or removes what can be made again.
///
/// # Errors
/// When a build is running, or the disk says no.
pub async fn run(command: StoreCommand) -> anyhow::Result<()> {
    match command {
        StoreCommand::Du { store } => {
            let mut rows = vec![["TYPE", "COUNT", "SIZE", "PRUNABLE"].map(str::to_owned)];
            rows.extend(Store::open(store)?.usage().into_iter().map(|usage| {
                let (size, prunable) = (human_size(usage.bytes), human_size(usage.prunable));
                [usage.kind.to_owned(), usage.count.to_string(), size, prunable]
            }));
            write!(io::stdout().lock(), "{}", columns(&rows)).context("failed to print the list")
        }
        StoreCommand::Prune { registry: Some(repository), rule, dry_run, registries_file, .. } => {
            prune::run(&repository, &rule, dry_run, registries_file.as_deref()).await
        }
        StoreCommand::Prune { dry_run, store, .. } => {
            let store = Store::open(store)?;
            let hold = store.exclusive()?;
            let before: u64 = store.usage().iter().map(|usage| usage.prunable).sum();
            let paths = store.prunable(&hold);
            if !dry_run && !paths.is_empty() {
                Session::start(&Request::Remove { paths }).await?.finish().await.context("failed to prune")?;
            }
            let word = if dry_run { "would free" } else { "freed" };
            writeln!(io::stdout().lock(), "{word} {}", human_size(before)).context("failed to print the result")
        }
    }
}
