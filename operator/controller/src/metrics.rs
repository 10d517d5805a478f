//! Metrics, served at `/metrics`. docs/metrics.md lists them; a test keeps that page equal to this file.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use provisioning_api::steps::{FailureClass, StepPhase};

/// Upper bounds of the buckets of a pass's duration, seconds: from a look at a cache to a request that hangs.
const PASS_BUCKETS: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// One metric as documentation has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// All metrics, in the order of documentation.
    pub described: Vec<Described>,
    /// Version of this process.
    pub build: IntGaugeVec,
    /// 1 while this process is the leader.
    pub leader: IntGauge,
    /// Epoch that this process raised, by workspace.
    pub epoch: IntGaugeVec,
    /// Passes, by kind and outcome.
    pub reconciles: IntCounterVec,
    /// How long passes took, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Objects that wait for a pass, by kind.
    pub queue_depth: IntGaugeVec,
    /// Looks at objects that could not be read, by kind.
    pub undecodable: IntCounterVec,
    /// Runs of steps that were opened, by kind and direction.
    pub steps_started: IntCounterVec,
    /// Ends of steps and of their runs, by kind, outcome and class.
    pub steps_ended: IntCounterVec,
    /// Jobs that were created.
    pub jobs_created: IntCounter,
    /// Jobs that were found and taken over.
    pub jobs_adopted: IntCounter,
    /// Runs that were given up.
    pub jobs_given_up: IntCounter,
    /// Requests to the API server, by verb, resource and status code.
    pub api_requests: IntCounterVec,
    /// Spans that were lost.
    pub spans_dropped: IntCounter,
    /// Probes of services.
    pub probes: ProbeMetrics,
}

/// What is counted of probes.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    /// Probes that were asked, by outcome.
    pub answers: IntCounterVec,
    /// Probes that are asked.
    pub known: IntGauge,
    /// Probes that make their Taskserv Unhealthy.
    pub failing: IntGauge,
}

/// Registers metrics and keeps the list of them.
#[derive(Default)]
struct Catalogue {
    registry: Registry,
    described: Vec<Described>,
}

type Made<T> = Result<T, prometheus::Error>;

impl Catalogue {
    fn add<C: Collector + Clone + 'static>(&mut self, made: Made<C>, described: Described) -> Made<C> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        self.described.push(described);
        Ok(made)
    }

    fn counter(&mut self, name: &'static str, help: &'static str) -> Made<IntCounter> {
        self.add(IntCounter::new(name, help), Described { name, kind: "counter", labels: &[], help })
    }

    fn counters(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Made<IntCounterVec> {
        let made = IntCounterVec::new(Opts::new(name, help), labels);
        self.add(made, Described { name, kind: "counter", labels, help })
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> Made<IntGauge> {
        self.add(IntGauge::new(name, help), Described { name, kind: "gauge", labels: &[], help })
    }

    fn gauges(&mut self, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Made<IntGaugeVec> {
        let made = IntGaugeVec::new(Opts::new(name, help), labels);
        self.add(made, Described { name, kind: "gauge", labels, help })
    }

    fn histograms(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        buckets: &[f64],
        help: &'static str,
    ) -> Made<HistogramVec> {
        let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
        self.add(made, Described { name, kind: "histogram", labels, help })
    }
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake in this file.
    pub fn new() -> Made<Self> {
        let mut all = Catalogue::default();
        let metrics = Metrics {
            build: all.gauges("provisioning_build_info", &["version"], "Always 1; the label is the operator's version.")?,
            leader: all.gauge(
                "provisioning_leader",
                "1 while this process is the leader. The sum over all replicas should be 1.",
            )?,
            epoch: all.gauges(
                "provisioning_workspace_epoch",
                &["namespace"],
                "Epoch that this leader raised in a workspace before its first effect there.",
            )?,
            reconciles: all.counters(
                "provisioning_reconciles_total",
                &["kind", "outcome"],
                "Passes over objects. Outcome: `ok`, `conflict` (harmless), `transient`, `permanent` (look at the log).",
            )?,
            reconcile_seconds: all.histograms(
                "provisioning_reconcile_duration_seconds",
                &["kind"],
                &PASS_BUCKETS,
                "How long a pass took.",
            )?,
            queue_depth: all.gauges(
                "provisioning_queue_depth",
                &["kind"],
                "Objects that were woken and whose pass has not begun. Counted by the leader only.",
            )?,
            undecodable: all.counters(
                "provisioning_undecodable_total",
                &["kind"],
                "Looks at stored objects that this operator cannot read.",
            )?,
            steps_started: all.counters(
                "provisioning_steps_started_total",
                &["kind", "direction"],
                "Runs of steps that were opened, `forward` or `undo`.",
            )?,
            steps_ended: all.counters(
                "provisioning_steps_ended_total",
                &["kind", "outcome", "class"],
                "Ends of steps by their new phase, and `Retrying` for a run that is followed by another one. \
                 Class: why it failed, else empty.",
            )?,
            jobs_created: all.counter("provisioning_jobs_created_total", "Jobs of runs that were created.")?,
            jobs_adopted: all.counter(
                "provisioning_jobs_adopted_total",
                "Jobs of runs that were there already and were taken over: the answer to their create was lost.",
            )?,
            jobs_given_up: all.counter(
                "provisioning_jobs_given_up_total",
                "Runs whose executor was lost or unknown and whose claim was closed.",
            )?,
            api_requests: all.counters(
                "provisioning_api_requests_total",
                &["verb", "resource", "code"],
                "Requests to the API server. Code: HTTP status, `none` where there was no answer.",
            )?,
            probes: ProbeMetrics {
                answers: all.counters(
                    "provisioning_probe_answers_total",
                    &["outcome"],
                    "Probes of services that were asked: `answered`, `refused`, `unreachable`, `silent`, `closed`, \
                     `garbled`, `wrong`.",
                )?,
                known: all.gauge("provisioning_probe_known", "Probes of services that are asked.")?,
                failing: all.gauge("provisioning_probe_failing", "Probes that make their Taskserv Unhealthy.")?,
            },
            spans_dropped: all.counter(
                "provisioning_spans_dropped_total",
                "Spans of traces that no collector took. 0 where traces are off.",
            )?,
            registry: all.registry,
            described: all.described,
        };
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
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

/// Value of the label `outcome` for a step that came to this phase.
pub fn phase_label(phase: StepPhase) -> &'static str {
    match phase {
        // From an open run back to Pending: it is tried again.
        StepPhase::Pending => "Retrying",
        StepPhase::Running => "Running",
        StepPhase::Succeeded => "Succeeded",
        StepPhase::Failed => "Failed",
        StepPhase::Cancelled => "Cancelled",
        StepPhase::Skipped => "Skipped",
        StepPhase::Omitted => "Omitted",
        StepPhase::Undoing => "Undoing",
        StepPhase::Undone => "Undone",
        StepPhase::UndoFailed => "UndoFailed",
    }
}

/// Value of the label `class`.
pub fn class_label(class: Option<FailureClass>) -> &'static str {
    match class {
        None => "",
        Some(FailureClass::Infrastructure) => "Infrastructure",
        Some(FailureClass::Refused) => "Refused",
        Some(FailureClass::Transient) => "Transient",
        Some(FailureClass::Throttled) => "Throttled",
        Some(FailureClass::Timeout) => "Timeout",
        Some(FailureClass::Invalid) => "Invalid",
        Some(FailureClass::Unauthorized) => "Unauthorized",
        Some(FailureClass::ScriptFailed) => "ScriptFailed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn read(path: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    fn row(metric: &Described) -> String {
        let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels.join(",")) };
        format!("| `{}{labels}` | {} | {} |", metric.name, metric.kind, metric.help)
    }

    #[test]
    fn the_page_on_metrics_lists_each_with_its_type_labels_and_meaning() {
        let page = read("docs/metrics.md");
        let written: Vec<&str> = page.lines().filter(|line| line.starts_with("| `provisioning_")).collect();
        let rows: Vec<String> = Metrics::new().unwrap().described.iter().map(row).collect();
        assert_eq!(written, rows, "docs/metrics.md should have these rows:\n{}\n", rows.join("\n"));
    }

    /// Names of metrics in a text, without the suffixes that a histogram's series have.
    fn mentioned(text: &str, known: &BTreeSet<&str>) -> BTreeSet<String> {
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'));
        let names = words.filter(|word| word.starts_with("provisioning_"));
        let plain = names.map(|name| {
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            stem.filter(|stem| known.contains(stem)).unwrap_or(name).to_owned()
        });
        plain.collect()
    }

    #[test]
    fn rules_and_dashboard_name_only_metrics_that_exist() {
        let metrics = Metrics::new().unwrap();
        let known: BTreeSet<&str> = metrics.described.iter().map(|metric| metric.name).collect();
        for path in ["files/monitoring/rules.yaml", "files/monitoring/dashboard.json", "ci/monitoring/rules.test.yaml"]
        {
            let found = mentioned(&read(&format!("charts/provisioning/{path}")), &known);
            let unknown: Vec<_> = found.iter().filter(|name| !known.contains(name.as_str())).collect();
            assert!(unknown.is_empty(), "{path} names {unknown:?}, which no code counts");
            assert!(!found.is_empty(), "{path} names no metric at all");
        }
    }

    #[test]
    fn a_name_that_nobody_counts_is_noticed() {
        let known = BTreeSet::from(["provisioning_leader", "provisioning_reconcile_duration_seconds"]);
        let text =
            "sum(provisioning_leader) / rate(provisioning_reconcile_duration_seconds_bucket[5m]) > provisioning_egg";
        let names: Vec<String> = mentioned(text, &known).into_iter().collect();
        assert_eq!(names, ["provisioning_egg", "provisioning_leader", "provisioning_reconcile_duration_seconds"]);
    }

    #[test]
    fn labels_are_the_words_of_the_api() {
        for phase in [StepPhase::Succeeded, StepPhase::Failed, StepPhase::Undone, StepPhase::UndoFailed] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase_label(phase));
        }
        for class in [FailureClass::Infrastructure, FailureClass::Timeout, FailureClass::ScriptFailed] {
            assert_eq!(serde_json::to_value(class).unwrap(), class_label(Some(class)));
        }
    }
}
