//! The operator's configuration, passed by value to whatever decides.

use std::{collections::BTreeMap, time::Duration};

use super::task::{Limits, Network};

/// How the operator sets up build Pods and when it gives up.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Image of the agent container: the operator's own.
    pub agent_image: String,
    /// How registries and other servers are reached.
    pub network: Network,
    /// Proxy variables (`HTTP_PROXY`, …) for agents, and for stages that ask for them.
    pub proxy: BTreeMap<String, String>,
    /// Base64 of the Ed25519 key that records are signed with.
    pub public_key: String,
    /// Bounds on sources and artifacts.
    pub limits: Limits,
    /// Bytes that each scratch volume of a build Pod may take.
    pub scratch_bytes: u64,
    /// How often a stage is started again after an interruption that is not its own fault.
    pub interruptions: u32,
    /// Leave user IDs to the platform (OpenShift assigns them); everything works with any user in group 0.
    pub platform_user: bool,
    /// Whether bases of packages are shared between namespaces.
    pub share_bases: bool,
    /// Start the agent's binary by an init container instead of a postStart hook: a second slower, and independent of
    /// the order in which the kubelet starts containers.
    pub init_container: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent_image: String::new(),
            network: Network::default(),
            proxy: BTreeMap::new(),
            public_key: String::new(),
            limits: Limits::default(),
            scratch_bytes: 20 << 30,
            interruptions: 3,
            platform_user: false,
            share_bases: false,
            init_container: false,
        }
    }
}

/// How long to wait before the `failures`-th try after one of this kind.
#[must_use]
pub fn backoff(first: Duration, failures: u32) -> Duration {
    const LONGEST: Duration = Duration::from_mins(5);
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let first = Duration::from_secs(30);
        let waits: Vec<_> = [1, 2, 3, 4, 5, 100].map(|failures| backoff(first, failures).as_secs()).to_vec();
        assert_eq!(waits, [30, 60, 120, 240, 300, 300]);
    }
}
