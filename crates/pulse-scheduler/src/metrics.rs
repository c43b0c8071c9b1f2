//! The scheduler's metrics. OPERATIONS.md lists all metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use pulse_core::{AttemptOutcome, FailureReason};
use pulse_queue::Depth;
use pulse_store::Backlog;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

/// A counter with one label. The scheduler shares two of them with the worker: the worker counts the attempts that it
/// settles, the scheduler those whose worker died.
pub type TaskCounters = Family<[(&'static str, &'static str); 1], Counter>;

/// Metrics of a scheduler. Cheap to clone.
#[derive(Clone, Default)]
pub struct SchedulerMetrics {
    backlog: Family<PartLabel, Gauge>,
    oldest_age_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    default_partition_rows: Gauge,
    settled: TaskCounters,
    retries: TaskCounters,
    pub(crate) requeued: Counter,
    pub(crate) leader: Gauge,
}

impl SchedulerMetrics {
    /// Registers all metrics except `settled`, by outcome, and `retries`, by reason, which the caller has registered.
    pub fn register(registry: &mut Registry, settled: TaskCounters, retries: TaskCounters) -> Self {
        let metrics = Self { settled, retries, ..Self::default() };
        metrics.count_crashed(0, 0);
        registry.register(
            "pulse_queue_backlog",
            "Number of unsettled and dead tasks, by part",
            metrics.backlog.clone(),
        );
        registry.register(
            "pulse_queue_oldest_age_seconds",
            "Age of the oldest unsettled task, in seconds",
            metrics.oldest_age_seconds.clone(),
        );
        registry.register(
            "pulse_default_partition_rows",
            "Number of events outside the monthly partitions; must be 0",
            metrics.default_partition_rows.clone(),
        );
        registry.register(
            "pulse_tasks_requeued",
            "Number of tasks that the requeue job enqueued again",
            metrics.requeued.clone(),
        );
        registry.register(
            "pulse_scheduler_leader",
            "1 if this scheduler is the leader, otherwise 0",
            metrics.leader.clone(),
        );
        metrics
    }

    /// Counts attempts that ended because their workers died.
    pub(crate) fn count_crashed(&self, retried: u64, dead: u64) {
        self.retries.get_or_create(&[("reason", FailureReason::Crash.as_str())]).inc_by(retried);
        self.settled.get_or_create(&[("outcome", AttemptOutcome::Dead.as_str())]).inc_by(dead);
    }

    pub(crate) fn record(&self, backlog: &Backlog, depth: Option<&Depth>, due_not_enqueued: i64) {
        let in_stream = |value: fn(&Depth) -> u64| depth.map(|depth| i64::try_from(value(depth)).unwrap_or(i64::MAX));
        for (part, tasks) in [
            ("undelivered", in_stream(Depth::undelivered)),
            ("in_flight", in_stream(|depth| depth.in_flight)),
            ("due_not_enqueued", Some(due_not_enqueued)),
            ("delayed", Some(backlog.delayed)),
            ("dead", Some(backlog.dead)),
        ] {
            match tasks {
                Some(tasks) => drop(self.backlog.get_or_create(&PartLabel { part }).set(tasks)),
                // An unknown figure is removed: it is not zero.
                None => drop(self.backlog.remove(&PartLabel { part })),
            }
        }
        self.oldest_age_seconds.set(backlog.oldest_age_seconds);
        self.default_partition_rows.set(backlog.default_partition_rows);
    }
}
