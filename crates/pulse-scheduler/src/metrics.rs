//! The metrics of the scheduler.

use pulse_core::{AttemptOutcome, FailureReason};
use pulse_metrics::{Counter, Family, FloatGauge, Gauge, LabelValue, Registry, TaskMetrics};
use pulse_queue::{Depth, RedisMemory};
use pulse_store::Backlog;

/// Metrics of a scheduler. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerMetrics {
    tasks: TaskMetrics,
    backlog: Family<Gauge, 1>,
    oldest_age_seconds: FloatGauge,
    default_partition_rows: Gauge,
    pub(crate) oldest_key_age_seconds: FloatGauge,
    pub(crate) deep_users: Gauge,
    pub(crate) paused: Gauge,
    pub(crate) requeued: Counter,
    pub(crate) leader: Gauge,
    pub(crate) retention_blocked: Family<Gauge, 1>,
    pub(crate) archive_blocked: Family<Gauge, 1>,
    pub(crate) archived_rows: Family<Counter, 1>,
    pub(crate) oldest_snapshot: Gauge,
    job_runs: Family<Counter, 2>,
    redis_memory: Family<Gauge, 0>,
    redis_memory_limit: Family<Gauge, 0>,
}

impl SchedulerMetrics {
    /// Registers all metrics except `tasks`, which the caller has registered.
    pub fn register(registry: &mut Registry, tasks: TaskMetrics) -> Self {
        Self {
            tasks,
            backlog: registry.gauges("pulse_queue_backlog", ["part"], "Number of unsettled and dead tasks, by part"),
            oldest_age_seconds: registry
                .float_gauge("pulse_queue_oldest_age_seconds", "Age of the oldest unsettled task, in seconds"),
            default_partition_rows: registry
                .gauge("pulse_default_partition_rows", "Number of events outside the monthly partitions; must be 0"),
            oldest_key_age_seconds: registry.float_gauge(
                "pulse_idempotency_oldest_key_age_seconds",
                "Age of the oldest idempotency key, in seconds; above 24 hours if keys are deleted too slowly",
            ),
            deep_users: registry
                .gauge("pulse_queue_deep_users", "Number of users whose further tasks go to the bulk stream"),
            paused: registry.gauge("pulse_paused", "1 while all claims are paused, otherwise 0"),
            requeued: registry.counter("pulse_tasks_requeued", "Number of tasks that the requeue job enqueued again"),
            leader: registry.gauge("pulse_scheduler_leader", "1 if this scheduler is the leader, otherwise 0"),
            oldest_snapshot: registry.gauge(
                "pulse_postgresql_oldest_snapshot_transactions",
                "Number of transactions since the oldest snapshot that a session, replication slot or prepared transaction \
                 holds; statements become slower while it grows, and pulse check says who holds it",
            ),
            job_runs: registry.counters(
                "pulse_job_runs",
                ["name", "outcome"],
                "Number of runs of a periodic job, by name and outcome: succeeded or failed",
            ),
            redis_memory: registry.gauges(
                "pulse_redis_memory_used_bytes",
                [],
                "Memory that Redis uses, in bytes; absent while it is unknown",
            ),
            redis_memory_limit: registry.gauges(
                "pulse_redis_memory_limit_bytes",
                [],
                "maxmemory of Redis, in bytes; absent while it is unknown, or without a limit",
            ),
            archive_blocked: registry.gauges(
                "pulse_archive_blocked",
                ["table"],
                "1 while an old month cannot be copied to the archive, for the reason that the log names",
            ),
            archived_rows: registry.counters(
                "pulse_archived_rows",
                ["table"],
                "Number of rows that were copied to the archive, read back and compared",
            ),
            retention_blocked: registry.gauges(
                "pulse_retention_blocked",
                ["table"],
                "1 while an old month cannot be dropped, because of a transaction, an unsettled task or a held user that the log names",
            ),
        }
    }

    /// Creates the series of a job, so that a rate includes its first failure.
    pub(crate) fn create_job(&self, name: &'static str) {
        self.job_runs.with([name, "succeeded"]);
        self.job_runs.with([name, "failed"]);
    }

    pub(crate) fn count_run(&self, job: &'static str, succeeded: bool) {
        self.job_runs.with([job, if succeeded { "succeeded" } else { "failed" }]).inc();
    }

    /// Sets the memory of Redis, as far as it is known.
    pub(crate) fn record_memory(&self, memory: Option<RedisMemory>) {
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let used = memory.as_ref().map(|memory| bytes(memory.used));
        let limit = memory.and_then(|memory| memory.limit).map(bytes);
        for (gauge, value) in [(&self.redis_memory, used), (&self.redis_memory_limit, limit)] {
            match value {
                Some(value) => drop(gauge.with::<LabelValue>([]).set(value)),
                None => gauge.remove::<LabelValue>([]),
            }
        }
    }

    /// Counts attempts that ended because their workers died.
    pub(crate) fn count_crashed(&self, retried: u64, dead: u64) {
        self.tasks.count_retries(FailureReason::Crash, retried);
        self.tasks.count_settled(AttemptOutcome::Dead, dead);
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
                Some(tasks) => drop(self.backlog.with([part]).set(tasks)),
                // An unknown figure is removed: it is not zero.
                None => self.backlog.remove([part]),
            }
        }
        self.oldest_age_seconds.set(backlog.oldest_age_seconds);
        self.default_partition_rows.set(backlog.default_partition_rows);
    }
}
