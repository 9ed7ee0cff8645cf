//! `store prune --registry`: records and artifacts of a cache repository, and nothing else in it.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use crate::{
    cli::PruneRule,
    cmd::{
        build::{columns, keychain},
        operator::registries,
        table::age,
    },
    domain::{
        artifact,
        prune::{Choice, FoundRecord, Keep, choose, named_manifests},
        record::claimed,
        snapshot::Snapshot,
        task::Network,
        value::{Digest, Repository},
    },
    shell::registry::{Client, Registry},
};

/// Requests at the same time.
const REQUESTS: usize = 8;
/// What tags of records begin with.
const KEY_TAG: &str = "key-";

/// What the repository has.
#[derive(Default)]
struct Found {
    records: Vec<FoundRecord>,
    /// What other tags point to, the images of their indexes too.
    tagged: BTreeSet<Digest>,
}

/// Prints what there is and what goes, and lets it go.
///
/// # Errors
/// When no rule is given, or the registry does not do its part.
pub async fn run(
    repository: &str,
    rule: &PruneRule,
    dry_run: bool,
    registries_file: Option<&Path>,
) -> anyhow::Result<()> {
    let repository: Repository = repository.parse()?;
    let keep = match (rule.keep_newest, rule.older_than) {
        (Some(count), _) => Keep::Newest(count),
        (None, Some(age)) => Keep::Younger(age),
        (None, None) => Keep::All,
    };
    anyhow::ensure!(dry_run || keep != Keep::All, "which records may go? give --keep-newest N or --older-than TIME");
    let mut registries = registries(registries_file)?;
    // What goes is decided by what is there, not by what a mirror still has.
    for registry in registries.values_mut() {
        registry.mirrors.clear();
    }
    let network = Network { registries, allowed_ranges: vec!["0.0.0.0/0".into(), "::/0".into()], ..Network::default() };
    let client = Registry::new(&network)?.with(keychain(&[&repository]).await?);
    let Found { records, tagged } = find(&client, &repository).await?;
    let now = Timestamp::now();
    let mut choice = choose(records, keep, &tagged, now);
    choice.artifacts = only_artifacts(&client, &repository, &choice.artifacts).await?;
    write!(io::stdout().lock(), "{}", table(&choice, now, dry_run)).context("failed to print the list")?;
    if !dry_run {
        // Records first: one without its artifact is worth nothing, an artifact without a record does no harm.
        for digest in choice.records.iter().map(|record| &record.digest).chain(&choice.artifacts) {
            client.delete_manifest(&repository, *digest).await?;
        }
    }
    Ok(())
}

async fn find(client: &Client, repository: &Repository) -> anyhow::Result<Found> {
    let tags = client.tags(repository).await?;
    let looks = tags.into_iter().map(|tag| async move {
        let found = client.manifest(&repository.tagged(&tag)?).await?;
        anyhow::Ok((tag, found.map(|found| (found.digest, found.bytes))))
    });
    let looks: Vec<_> = futures::stream::iter(looks).buffer_unordered(REQUESTS).try_collect().await?;
    let mut found = Found::default();
    for (tag, (digest, bytes)) in looks.into_iter().filter_map(|(tag, found)| Some((tag, found?))) {
        let key = tag.strip_prefix(KEY_TAG);
        match claimed(&bytes).filter(|claim| key == Some(claim.key.as_str())) {
            Some(claim) => found.records.push(FoundRecord { digest, claim }),
            // Whatever that is, it is none of ours.
            None => found.tagged.extend(named_manifests(&bytes).chain([digest])),
        }
    }
    Ok(found)
}

/// Those that are artifacts or snapshots by their own manifests: a record can name anything.
async fn only_artifacts(
    client: &Client,
    repository: &Repository,
    digests: &BTreeSet<Digest>,
) -> anyhow::Result<BTreeSet<Digest>> {
    let looks = digests.iter().map(|digest| async move {
        let manifest = client.manifest(&repository.pinned(*digest)).await?;
        let is_ours = |bytes: &[u8]| artifact::config_of(bytes).is_ok() || Snapshot::parse(bytes).is_some();
        anyhow::Ok(manifest.is_some_and(|found| is_ours(&found.bytes)).then_some(*digest))
    });
    let looks: Vec<_> = futures::stream::iter(looks).buffer_unordered(REQUESTS).try_collect().await?;
    Ok(looks.into_iter().flatten().collect())
}

fn table(choice: &Choice, now: Timestamp, dry_run: bool) -> String {
    let (word, total) = if dry_run { ("would go", "would delete") } else { ("goes", "deleting") };
    let row = |record: &FoundRecord, word: &str| {
        let created = record.claim.created.map(|created| age(now.as_second().saturating_sub(created.as_second())));
        let key = record.claim.key.chars().take(12).collect();
        let created = created.unwrap_or_else(|| "unknown".to_owned());
        [key, created, record.claim.artifact.short(12), word.to_owned()]
    };
    let mut rows = vec![["KEY", "CREATED", "ARTIFACT", "PLAN"].map(str::to_owned)];
    rows.extend(choice.kept.iter().map(|record| row(record, "stays")));
    rows.extend(choice.records.iter().map(|record| row(record, word)));
    let all = choice.kept.len() + choice.records.len();
    format!(
        "{}\n{total} {} of {all} records and {} artifacts\n",
        columns(&rows),
        choice.records.len(),
        choice.artifacts.len()
    )
}
