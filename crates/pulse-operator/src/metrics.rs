//! Metrics of the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pulse_metrics::{Counter, Family, Gauge, Histogram, LabelValue, Registry, exponential_buckets};

use pulse_reconcile::condition::ConditionType;

use crate::progress::WatchProgress;

/// Metrics of the operator. Cheap to clone.
#[derive(Clone)]
pub struct OperatorMetrics {
    requests: Family<Counter, 3>,
    reconciles: Family<Counter, 1>,
    duration: Histogram,
    pub(crate) leader: Gauge,
    pub(crate) crd_outdated: Gauge,
    unreadable: Family<Gauge, 2>,
    decisions: Family<Counter, 2>,
    desired: Family<Gauge, 2>,
    ready: Family<Gauge, 2>,
    backlog: Family<Gauge, 2>,
    conditions: Family<Gauge, 3>,
    /// Written by the watches; also read by the liveness probe.
    pub(crate) progress: WatchProgress,
}

/// The labels of metrics about one `PulseIngest`.
const OBJECT: [&str; 2] = ["namespace", "name"];

impl OperatorMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: registry.counters(
                "pulse_operator_api_requests",
                ["verb", "resource", "code"],
                "Number of requests to the API server, by status code; 0 without a response",
            ),
            reconciles: registry.counters(
                "pulse_operator_reconciles",
                ["result"],
                "Number of reconciles, by result: ok, or error if an object could not be read, applied or written",
            ),
            duration: registry.histogram(
                "pulse_operator_reconcile_seconds",
                "Duration of a reconcile, in seconds",
                exponential_buckets(0.001, 2.0, 16),
            ),
            leader: registry.gauge("pulse_operator_leader", "1 while this process is the leader, otherwise 0"),
            crd_outdated: registry.gauge(
                "pulse_operator_crd_outdated",
                "1 while the CustomResourceDefinition is older than this leader, otherwise 0",
            ),
            unreadable: registry.gauges(
                "pulse_operator_unreadable",
                OBJECT,
                "1 for a PulseIngest that this version cannot read, and so leaves as it is",
            ),
            decisions: registry.counters(
                "pulse_operator_decisions",
                ["direction", "reason"],
                "Number of changes of the number of workers, by direction and reason",
            ),
            desired: registry.gauges(
                "pulse_operator_workers_desired",
                OBJECT,
                "Desired number of workers of a PulseIngest",
            ),
            ready: registry.gauges("pulse_operator_workers_ready", OBJECT, "Number of ready workers of a PulseIngest"),
            backlog: registry.gauges(
                "pulse_operator_backlog",
                OBJECT,
                "Number of due tasks in the backlog, from the last sample that had it",
            ),
            conditions: registry.gauges(
                "pulse_operator_condition",
                ["namespace", "name", "type"],
                "1 while a condition of a PulseIngest is True, 0 while it is False, absent while it is Unknown",
            ),
            progress: WatchProgress::default(),
        };
        metrics.begin(registry);
        metrics
    }

    /// Declares what is computed, and creates the series that a rate needs before the first error.
    fn begin(&self, registry: &mut Registry) {
        for result in ["ok", "error"] {
            self.reconciles.with([result]);
        }
        let watches = self.progress.clone();
        registry.computed_gauges(
            "pulse_operator_watch_age_seconds",
            "kind",
            "Time since the watch of a kind last made progress, in seconds",
            move || watches.ages().into_iter().map(|(kind, age)| (kind, age.as_secs_f64())).collect(),
        );
    }

    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16) {
        let labels = [LabelValue::from(verb), resource.to_owned().into(), code.to_string().into()];
        self.requests.with(labels).inc();
    }

    pub(crate) fn reconciled(&self, result: &'static str, seconds: f64) {
        self.reconciles.with([result]).inc();
        self.duration.observe(seconds);
    }

    pub(crate) fn decided(&self, from: i32, to: i32, reason: &str) {
        let direction = if to > from { "up" } else { "down" };
        self.decisions.with([LabelValue::from(direction), reason.to_owned().into()]).inc();
    }

    pub(crate) fn record(&self, namespace: &str, name: &str, desired: i32, ready: i32, backlog: Option<i64>) {
        let labels = [namespace.to_owned(), name.to_owned()];
        self.desired.with(labels.clone()).set(desired.into());
        self.ready.with(labels.clone()).set(ready.into());
        self.unreadable.remove(labels.clone());
        if let Some(backlog) = backlog {
            self.backlog.with(labels.clone()).set(backlog);
        }
    }

    pub(crate) fn record_conditions(&self, namespace: &str, name: &str, conditions: &[Condition]) {
        for condition in ConditionType::ALL {
            let labels = [namespace.to_owned(), name.to_owned(), condition.as_str().to_owned()];
            let current = conditions.iter().find(|current| current.type_ == condition.as_str());
            match current.map(|current| current.status.as_str()) {
                Some("True") => drop(self.conditions.with(labels).set(1)),
                Some("False") => drop(self.conditions.with(labels).set(0)),
                _ => self.conditions.remove(labels),
            }
        }
    }

    pub(crate) fn set_unreadable(&self, namespace: &str, name: &str) {
        self.unreadable.with([namespace.to_owned(), name.to_owned()]).set(1);
    }

    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let labels = [namespace.to_owned(), name.to_owned()];
        for family in [&self.desired, &self.ready, &self.backlog, &self.unreadable] {
            family.remove(labels.clone());
        }
        self.record_conditions(namespace, name, &[]);
    }
}
