//! Metrics in OpenMetrics text. Labels come from closed sets only, never from objects' names.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// What the operator counts.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Histogram,
    builds: Family<BuildLabels, Counter>,
    build_seconds: Histogram,
    jobs: Counter,
    running: Gauge,
    queued: Gauge,
    leader: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("minimalimage"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            builds: Family::default(),
            build_seconds: Histogram::new([1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0]),
            jobs: Counter::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            leader: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("reconciles", "Passes over a MinimalImage, by result", metrics.reconciles.clone());
        registry.register_with_unit("reconcile", "Time of one pass", Unit::Seconds, metrics.reconcile_seconds.clone());
        registry.register("builds", "Builds that ended, by the reason that they ended with", metrics.builds.clone());
        registry.register_with_unit(
            "build",
            "Time from a build's start to its end",
            Unit::Seconds,
            metrics.build_seconds.clone(),
        );
        registry.register("jobs", "Jobs created for stages", metrics.jobs.clone());
        registry.register("builds_running", "Builds that have Pods", metrics.running.clone());
        registry.register("builds_queued", "Builds that wait for a place", metrics.queued.clone());
        registry.register("leader", "Whether this replica holds the Lease", metrics.leader.clone());
        metrics
    }
}

impl Metrics {
    /// One pass has ended.
    pub fn reconciled(&self, took: Duration, succeeded: bool) {
        let result = if succeeded { "success" } else { "error" };
        self.reconciles.get_or_create(&ReconcileLabels { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A build has ended with this reason.
    pub fn built(&self, reason: &'static str, took: Duration) {
        self.builds.get_or_create(&BuildLabels { reason }).inc();
        self.build_seconds.observe(took.as_secs_f64());
    }

    /// A Job was created.
    pub fn started(&self) {
        self.jobs.inc();
    }

    /// How many builds run and wait.
    pub fn queue(&self, (running, queued): (usize, usize)) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    /// Whether this replica leads.
    pub fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of it as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_open_metrics_text() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(3), true);
        metrics.built("Succeeded", Duration::from_secs(4));
        metrics.queue((2, 1));
        let text = metrics.text();
        for line in [
            "minimalimage_reconciles_total{result=\"success\"} 1",
            "minimalimage_builds_total{reason=\"Succeeded\"} 1",
            "minimalimage_builds_running 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
