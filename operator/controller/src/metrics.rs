//! Counters, served at `/metrics`.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::probing::ProbeMetrics;

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Passes, by kind.
    pub reconciles: IntCounterVec,
    /// Passes that failed, by category.
    pub errors: IntCounterVec,
    /// Looks at objects that could not be read, by kind.
    pub undecodable: IntCounterVec,
    /// Executors created.
    pub jobs: IntCounter,
    /// 1 while this process is the leader.
    pub leader: IntGauge,
    /// Probes of services.
    pub probes: ProbeMetrics,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reconciles =
            IntCounterVec::new(Opts::new("provisioning_reconciles_total", "Passes over objects, by kind."), &["kind"])?;
        let errors = IntCounterVec::new(
            Opts::new("provisioning_reconcile_errors_total", "Passes that failed, by category of the error."),
            &["category"],
        )?;
        let undecodable = IntCounterVec::new(
            Opts::new("provisioning_undecodable_total", "Looks at stored objects that could not be read, by kind."),
            &["kind"],
        )?;
        let jobs = IntCounter::new("provisioning_jobs_created_total", "Executors that were created or adopted.")?;
        let leader = IntGauge::new("provisioning_leader", "1 while this process is the leader.")?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(undecodable.clone()))?;
        registry.register(Box::new(jobs.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        let probes = ProbeMetrics::new(&registry)?;
        Ok(Metrics { registry, reconciles, errors, undecodable, jobs, leader, probes })
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::warn!(%error, "metrics could not be encoded");
        }
        buffer
    }
}
