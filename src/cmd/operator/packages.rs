//! Answers what packages a base is: archives are read once for all resources that ask the same.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::answers::Answers;
use crate::{
    domain::{
        debian::base::{PackageSet, PackagesBase},
        decide::Trouble,
        value::Digest,
    },
    shell::{
        chain,
        debian::{BaseError, Environment, resolve},
    },
};

/// So long an answer counts for all who ask: a thousand resources that are looked at in turn are one look a minute.
const FRESH: Duration = Duration::from_mins(1);
/// So long a build goes on with what it began with. Archives remove what they have newer versions of.
const PINNED: Duration = Duration::from_mins(10);
/// Index files, in the operator's own room.
const INDEXES: &str = "/tmp/minimalimage-indexes";

/// What archives said, and when.
#[derive(Clone)]
pub(super) struct Resolved {
    at: Instant,
    set: Arc<PackageSet>,
}

impl Answers<'_> {
    pub(super) async fn packages(
        &self,
        base: &PackagesBase,
        pinned: Option<Digest>,
        anew: bool,
    ) -> Result<Arc<PackageSet>, Trouble> {
        let name = Digest::of(format!("{base:?}").as_bytes());
        let known = || self.world.packages.get(&name).filter(|known| known.counts(base, pinned));
        if let Some(known) = known().filter(|_| !anew) {
            return self.not_older(base, known.set);
        }
        let asked = Instant::now();
        // One at a time: an index takes some memory, and the next who asks may ask the same.
        let _turn = self.world.resolving.acquire().await;
        if let Some(known) = known().filter(|known| !anew || known.at > asked) {
            return self.not_older(base, known.set);
        }
        let environment = Environment { http: &self.world.http, indexes: Path::new(INDEXES), now: Timestamp::now() };
        let set = Arc::new(resolve(base, environment).await.map_err(|error| trouble(base, &error))?);
        self.world.packages.put(name, Resolved { at: Instant::now(), set: Arc::clone(&set) });
        self.not_older(base, set)
    }

    /// The packages, unless this resource has seen newer suites than those that they are of.
    fn not_older(&self, base: &PackagesBase, set: Arc<PackageSet>) -> Result<Arc<PackageSet>, Trouble> {
        let last = self.image.status.as_ref().and_then(|status| status.base.as_ref());
        let seen = last.into_iter().flat_map(|base| &base.releases);
        let seen: BTreeMap<&str, Timestamp> = seen.map(|release| (release.suite.as_str(), release.time.0)).collect();
        match set.held_back(&seen) {
            Some((release, seen)) if !base.frozen => {
                Err(trouble(base, &BaseError::Older { suite: release.suite.clone(), date: release.date, seen }))
            }
            _ => Ok(set),
        }
    }
}

impl Resolved {
    fn counts(&self, base: &PackagesBase, pinned: Option<Digest>) -> bool {
        let age = self.at.elapsed();
        base.frozen || age < FRESH || age < PINNED && pinned.is_some_and(|pinned| pinned == self.set.digest())
    }
}

fn trouble(base: &PackagesBase, error: &BaseError) -> Trouble {
    Trouble { reason: error.reason(), message: format!("{}: {}", base.field(), chain(error)) }
}
