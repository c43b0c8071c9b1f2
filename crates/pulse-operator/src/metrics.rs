//! What the operator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Everything that the operator counts. Cheap to clone.
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
    law: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

impl OperatorMetrics {
    /// Registers them.
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
        };
        registry.register(
            "pulse_operator_api_requests",
            "Calls to the API server; code 0 is no answer",
            metrics.requests.clone(),
        );
        registry.register("pulse_operator_reconciles", "Reconciles, by result", metrics.reconciles.clone());
        registry.register("pulse_operator_reconcile_seconds", "How long a reconcile takes", metrics.duration.clone());
        registry.register("pulse_operator_leader", "1 if this process leads", metrics.leader.clone());
        registry.register("pulse_operator_decisions", "Changes of the number of workers", metrics.decisions.clone());
        registry.register("pulse_operator_workers_desired", "Wanted workers", metrics.desired.clone());
        registry.register("pulse_operator_workers_ready", "Ready workers", metrics.ready.clone());
        registry.register("pulse_operator_backlog", "Tasks owed and due, as last seen", metrics.backlog.clone());
        metrics
    }

    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16) {
        self.requests.get_or_create(&RequestLabels { verb, resource: resource.to_owned(), code }).inc();
    }

    pub(crate) fn reconciled(&self, result: &'static str, seconds: f64) {
        self.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.duration.observe(seconds);
    }

    pub(crate) fn decided(&self, from: i32, to: i32, law: &str) {
        let direction = if to > from { "up" } else { "down" };
        self.decisions.get_or_create(&DecisionLabels { direction, law: law.to_owned() }).inc();
    }

    pub(crate) fn observe(&self, namespace: &str, name: &str, desired: i32, ready: i32, backlog: Option<i64>) {
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
