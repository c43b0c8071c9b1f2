//! Metrics of the operator.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::progress::WatchProgress;

/// Metrics of the operator. Cheap to clone.
#[derive(Clone)]
pub struct OperatorMetrics {
    requests: Family<RequestLabels, Counter>,
    reconciles: Family<ResultLabels, Counter>,
    duration: Histogram,
    pub(crate) leader: Gauge,
    decisions: Family<DecisionLabels, Counter>,
    desired: Family<ObjectLabels, Gauge>,
    ready: Family<ObjectLabels, Gauge>,
    backlog: Family<ObjectLabels, Gauge>,
    /// Written by the watches; also read by the liveness probe.
    pub(crate) progress: WatchProgress,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    direction: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

impl OperatorMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            reconciles: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            leader: Gauge::default(),
            decisions: Family::default(),
            desired: Family::default(),
            ready: Family::default(),
            backlog: Family::default(),
            progress: WatchProgress::default(),
        };
        registry.register_collector(Box::new(WatchAges(metrics.progress.clone())));
        registry.register(
            "pulse_operator_api_requests",
            "Number of requests to the API server, by status code; 0 without a response",
            metrics.requests.clone(),
        );
        registry.register("pulse_operator_reconciles", "Number of reconciles, by result", metrics.reconciles.clone());
        registry.register(
            "pulse_operator_reconcile_seconds",
            "Duration of a reconcile, in seconds",
            metrics.duration.clone(),
        );
        registry.register(
            "pulse_operator_leader",
            "1 while this process is the leader, otherwise 0",
            metrics.leader.clone(),
        );
        registry.register(
            "pulse_operator_decisions",
            "Number of changes of the number of workers, by direction and reason",
            metrics.decisions.clone(),
        );
        registry.register("pulse_operator_workers_desired", "Desired number of workers", metrics.desired.clone());
        registry.register("pulse_operator_workers_ready", "Number of ready workers", metrics.ready.clone());
        registry.register(
            "pulse_operator_backlog",
            "Number of due tasks in the backlog, from the last sample that had it",
            metrics.backlog.clone(),
        );
        metrics
    }

    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16) {
        self.requests.get_or_create(&RequestLabels { verb, resource: resource.to_owned(), code }).inc();
    }

    pub(crate) fn reconciled(&self, result: &'static str, seconds: f64) {
        self.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.duration.observe(seconds);
    }

    pub(crate) fn decided(&self, from: i32, to: i32, reason: &str) {
        let direction = if to > from { "up" } else { "down" };
        self.decisions.get_or_create(&DecisionLabels { direction, reason: reason.to_owned() }).inc();
    }

    pub(crate) fn record(&self, namespace: &str, name: &str, desired: i32, ready: i32, backlog: Option<i64>) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        self.desired.get_or_create(&labels).set(desired.into());
        self.ready.get_or_create(&labels).set(ready.into());
        if let Some(backlog) = backlog {
            self.backlog.get_or_create(&labels).set(backlog);
        }
    }

    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let labels = ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        for family in [&self.desired, &self.ready, &self.backlog] {
            family.remove(&labels);
        }
    }
}

/// Computes the ages when the metrics are scraped.
#[derive(Debug)]
struct WatchAges(WatchProgress);

impl Collector for WatchAges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "pulse_operator_watch_age",
            "Time since the watch of a kind last made progress, in seconds",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (kind, age) in self.0.ages() {
            let gauge = ConstGauge::new(age.as_secs_f64());
            gauge.encode(metric.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}
