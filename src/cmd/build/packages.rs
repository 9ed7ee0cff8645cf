//! The packages of a base: as remembered where that was just looked up, else by their archives.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::world::World;
use crate::{
    domain::{
        debian::base::{PackageSet, PackagesBase},
        value::Digest,
    },
    shell::debian::{BaseError, Environment, resolve},
};

/// So many seconds an archive is not looked at again: one build after the other.
const FRESH: i64 = 60;

impl World {
    /// What `base` resolves to.
    ///
    /// # Errors
    /// When its archives cannot be read or believed, or do not have what is asked for.
    pub async fn packages(&self, base: &PackagesBase) -> anyhow::Result<PackageSet> {
        let name = Digest::of(format!("{base:?}").as_bytes()).hex();
        let known = self.store.packages(&name);
        let usable = |(time, _): &&(i64, PackageSet)| {
            let fresh = !self.args.input.pull && (0..FRESH).contains(&self.now.as_second().saturating_sub(*time));
            base.frozen || fresh
        };
        if let Some((_, set)) = known.as_ref().filter(usable) {
            return Ok(set.clone());
        }
        let indexes = self.store.indexes();
        let http = self.http().await?;
        self.progress.state("base", "looking up packages");
        let environment = Environment { http: &http, indexes: &indexes, now: self.now };
        let set = match resolve(base, environment).await {
            Ok(set) => set,
            Err(error @ BaseError::Fetch { .. }) => {
                let Some((_, set)) = known else { return Err(error).context(base.field()) };
                self.progress.warn(&format!("{:#}: the packages are taken as they were", anyhow::Error::from(error)));
                return Ok(set);
            }
            Err(error) => return Err(error).context(base.field()),
        };
        let seen = known.iter().flat_map(|(_, set)| &set.releases);
        let seen: BTreeMap<_, _> = seen.map(|release| (release.suite.as_str(), release.date)).collect();
        if let Some((release, seen)) = set.held_back(&seen) {
            let (suite, date) = (release.suite.clone(), release.date);
            return Err(BaseError::Older { suite, date, seen }).context(base.field());
        }
        self.store.put_packages(&name, &(self.now.as_second(), set.clone()))?;
        Ok(set)
    }
}
