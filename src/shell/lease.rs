//! Leader election over a Lease, by the rules of Kubernetes' own client: updates carry the resource version, and another
//! holder's Lease counts as expired only after its duration has passed on our own clock since we last saw it change.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

/// How long a Lease counts without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that cannot renew for this long stops, before others may think that it has.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often is tried.
const RETRY: Duration = Duration::from_secs(2);

/// One candidate for a Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The other holder's Lease as last seen to change, and when that was on our clock.
    observed: Option<(String, Instant)>,
}

impl Candidate {
    /// A candidate named `identity` for the Lease `name`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.into(), identity, observed: None }
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "failed to ask for the lease"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease; returns when it is lost.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let asked = Instant::now();
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                // Counted from before the question: the answer may have taken long.
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(%error, "failed to renew the lease"),
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait for it to expire.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        if holder(&lease) != Some(self.identity.as_str()) {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::warn!(%error, "failed to give the lease back");
        }
    }

    async fn attempt(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        if !self.may_take(&lease, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        taken(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether `lease` is ours, nobody's, or has not changed for its duration on our clock.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        if holder(lease).is_none_or(|holder| holder == self.identity) {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(15);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        match &self.observed {
            Some((seen, at)) if *seen == version => now.duration_since(*at) >= duration,
            _ => {
                self.observed = Some((version, now));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// A conflict means that another one was faster: no error, and not ours.
fn taken(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Candidate::new(client, "ns", "lease", "me".into())
    }

    fn lease(holder: &str, version: &str) -> Lease {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "lease", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"}
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn anothers_lease_expires_on_our_clock_alone() {
        let mut candidate = candidate();
        let start = Instant::now();
        assert!(!candidate.may_take(&lease("other", "1"), start), "its own old time counts for nothing");
        assert!(!candidate.may_take(&lease("other", "1"), start + Duration::from_secs(14)));
        assert!(!candidate.may_take(&lease("other", "2"), start + Duration::from_secs(16)), "it was renewed");
        assert!(candidate.may_take(&lease("other", "2"), start + Duration::from_secs(31)));
    }

    #[tokio::test]
    async fn a_free_lease_and_our_own_can_be_taken_at_once() {
        let mut candidate = candidate();
        assert!(candidate.may_take(&lease("", "1"), Instant::now()));
        assert!(candidate.may_take(&lease("me", "1"), Instant::now()));
    }
}
