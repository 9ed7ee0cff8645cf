//! What of a cache repository goes: records by their age, artifacts that no record names any more.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{record::ClaimedRecord, value::Digest};

/// Which records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// So many, the newest.
    Newest(usize),
    /// Those not older than this.
    Younger(Duration),
}

/// A record as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    /// Digest of its own manifest.
    pub digest: Digest,
    /// What it says.
    pub claim: ClaimedRecord,
}

/// What stays and what goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The records that stay, newest first.
    pub kept: Vec<FoundRecord>,
    /// The records that go, newest first.
    pub records: Vec<FoundRecord>,
    /// The artifacts that only those name.
    pub artifacts: BTreeSet<Digest>,
}

/// The manifests that an index names, and what a manifest says it is about; none of what is no JSON.
pub fn named_manifests(bytes: &[u8]) -> impl Iterator<Item = Digest> + use<> {
    let parsed: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let named = parsed.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
    let subject = parsed.get("subject").cloned();
    named.into_iter().chain(subject).filter_map(|descriptor| descriptor.get("digest")?.as_str()?.parse().ok())
}

/// Chooses among `records`; what `tagged` names under other tags is somebody's and stays. Records that do not say when they
/// were made are older than all others.
#[must_use]
pub fn choose(mut records: Vec<FoundRecord>, keep: Keep, tagged: &BTreeSet<Digest>, now: Timestamp) -> Choice {
    records.sort_by_cached_key(|record| (Reverse(record.claim.created), record.claim.key.clone()));
    let stays = |(index, record): (usize, &FoundRecord)| match keep {
        Keep::All => true,
        Keep::Newest(count) => index < count,
        Keep::Younger(age) => record.claim.created.is_some_and(|created| {
            // One from a clock ahead of ours is new.
            Duration::try_from(now.duration_since(created)).unwrap_or_default() <= age
        }),
    };
    let stays: Vec<bool> = records.iter().enumerate().map(stays).collect();
    let (kept, gone): (Vec<_>, Vec<_>) = records.into_iter().zip(stays).partition(|(_, stays)| *stays);
    let kept: Vec<_> = kept.into_iter().map(|(record, _)| record).collect();
    let records: Vec<_> = gone.into_iter().map(|(record, _)| record).filter(|r| !tagged.contains(&r.digest)).collect();
    let named: BTreeSet<Digest> = kept.iter().map(|record| record.claim.artifact).collect();
    let artifacts = records.iter().map(|record| record.claim.artifact);
    let artifacts = artifacts.filter(|artifact| !named.contains(artifact) && !tagged.contains(artifact)).collect();
    Choice { kept, records, artifacts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, artifact: &str, created: Option<&str>) -> FoundRecord {
        let artifact = Digest::of(artifact.as_bytes());
        let created = created.map(|time| time.parse().unwrap());
        FoundRecord { digest: Digest::of(key.as_bytes()), claim: ClaimedRecord { key: key.into(), artifact, created } }
    }

    #[test]
    fn what_an_index_names_is_known() {
        let digest = Digest::of(b"image");
        let index = format!(r#"{{"manifests": [{{"digest": "{digest}"}}, {{"digest": 7}}, 8]}}"#);
        assert_eq!(named_manifests(index.as_bytes()).collect::<Vec<_>>(), [digest]);
        assert_eq!(named_manifests(b"no json").count(), 0);
    }

    #[test]
    fn old_records_go_and_artifacts_that_nobody_else_names() {
        let records = [
            record("old", "shared", Some("2026-01-01T00:00:00Z")),
            record("new", "shared", Some("2026-01-30T00:00:00Z")),
            record("ageless", "alone", None),
            record("middle", "tagged", Some("2026-01-20T00:00:00Z")),
        ];
        let tagged = BTreeSet::from([Digest::of(b"tagged")]);
        let now = "2026-01-31T00:00:00Z".parse().unwrap();
        for (keep, gone, artifacts) in [
            (Keep::All, "", &[][..]),
            (Keep::Newest(1), "middle old ageless", &["alone"]),
            (Keep::Newest(3), "ageless", &["alone"]),
            (Keep::Younger(Duration::from_hours(48)), "middle old ageless", &["alone"]),
            (Keep::Younger(Duration::from_hours(24 * 15)), "old ageless", &["alone"]),
            (Keep::Newest(0), "new middle old ageless", &["alone", "shared"]),
        ] {
            let choice = choose(records.to_vec(), keep, &tagged, now);
            let keys: Vec<_> = choice.records.iter().map(|record| record.claim.key.as_str()).collect();
            assert_eq!(keys.join(" "), gone);
            assert_eq!(choice.artifacts, artifacts.iter().map(|name| Digest::of(name.as_bytes())).collect());
            assert_eq!(choice.kept.len() + keys.len(), records.len());
        }
    }
}
