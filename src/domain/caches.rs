//! Caches of stages that the cache repository holds: what they are found by, and when they are worth sending there again.

use super::{
    plan::{Plan, StagePlan},
    recipe::Key,
    value::Digest,
};

/// The largest cache that is kept, in bytes of its files: fetching a larger one takes longer than what it spares.
pub const MOST_BYTES: u64 = 2_000_000_000;
/// The part of a cache's bytes that must be new before it is sent again: one source file compiled is no reason to send all.
const WORTH: u64 = 10;

/// Caches that an agent has sent, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepCaches {
    /// The stage, for messages.
    pub stage: String,
    /// The artifact that has one layer for each.
    pub artifact: Digest,
    /// What each is to be found by.
    pub keys: Vec<Key>,
}

/// What is in a cache, and how much of it the build has put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of the files that were brought.
    pub brought: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of those that are new or were written to.
    pub fresh: u64,
}

/// What becomes of a cache after a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is sent to the cache repository.
    Sent,
    /// What the cache repository has is as good.
    Unchanged,
    /// It is over [`MOST_BYTES`].
    TooLarge,
}

impl Growth {
    /// Whether it is sent: something in it is new, or half of what was in it is gone.
    #[must_use]
    pub fn fate(self) -> Fate {
        if self.bytes > MOST_BYTES {
            return Fate::TooLarge;
        }
        let grown = self.fresh > 0 && self.fresh.saturating_mul(WORTH) >= self.bytes;
        if grown || self.bytes < self.brought / 2 { Fate::Sent } else { Fate::Unchanged }
    }
}

impl Plan {
    /// What each cache of `stage` is found by. It says nothing of what is in it: that is the newest there is. `resource` is
    /// whose it is, by namespace and name; no other finds it, whatever it calls its own.
    #[must_use]
    pub fn cache_keys(&self, stage: &StagePlan, resource: &str) -> Vec<Key> {
        let (repository, platform) = (&self.outline.repository, &self.outline.platform);
        let key =
            |name: &String| Key::named("cache", &[resource, &repository.to_string(), &platform.to_string(), name]);
        stage.caches.iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_sent_when_enough_of_it_is_new() {
        for (brought, bytes, fresh, fate) in [
            (0, 0, 0, Fate::Unchanged),
            (0, 1, 1, Fate::Sent),
            (1000, 1000, 0, Fate::Unchanged),
            (1000, 1050, 50, Fate::Unchanged),
            (1000, 1100, 110, Fate::Sent),
            // Cleaned up: the rest is what is to be fetched from now on.
            (1000, 400, 0, Fate::Sent),
            (1000, MOST_BYTES + 1, MOST_BYTES, Fate::TooLarge),
        ] {
            assert_eq!(Growth { brought, bytes, fresh }.fate(), fate, "{brought} {bytes} {fresh}");
        }
    }
}
