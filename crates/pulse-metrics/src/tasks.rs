//! The counters that worker and scheduler share.

use prometheus_client::metrics::counter::Counter;
use pulse_core::{AttemptOutcome, FailureReason};

use crate::family::Family;
use crate::registry::Registry;

/// Counts how attempts end. A worker counts the attempts that it settles, the scheduler those whose worker died. In
/// `pulse dev` both run in one process, which registers the counters once. Cheap to clone.
// Here, because roles never import each other, and pulse-core, which has the label values, has no metrics.
#[derive(Debug, Clone)]
pub struct TaskMetrics {
    settled: Family<Counter, 1>,
    retries: Family<Counter, 1>,
}

impl TaskMetrics {
    /// Registers both counters, with all values of their labels, so that a rate includes the first failure.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            settled: registry.counters(
                "pulse_tasks_settled",
                ["outcome"],
                "Number of attempts that ended, by outcome: completed, orphaned, retried, dead or released",
            ),
            retries: registry.counters(
                "pulse_task_retries",
                ["reason"],
                "Number of failed attempts that are retried, by reason",
            ),
        };
        for outcome in AttemptOutcome::ALL {
            metrics.count_settled(outcome, 0);
        }
        for reason in FailureReason::ALL {
            metrics.count_retries(reason, 0);
        }
        metrics
    }

    /// Counts attempts that ended.
    pub fn count_settled(&self, outcome: AttemptOutcome, attempts: u64) {
        self.settled.with([outcome.as_str()]).inc_by(attempts);
    }

    /// Counts attempts that failed and are retried.
    pub fn count_retries(&self, reason: FailureReason, attempts: u64) {
        self.retries.with([reason.as_str()]).inc_by(attempts);
    }
}
