//! The figures of the throughput, which are updated by the statement that settles.

use std::sync::Arc;

/// What a statement adds to the throughput, besides what it settles.
#[derive(Clone)]
pub(crate) struct Totals {
    /// Name of the writer, which must be unique: no two transactions write the same row.
    pub(crate) writer: Arc<str>,
    /// Time that passed in attempts, in microseconds.
    pub(crate) attempt_us: i64,
    /// Whether durations are added to the histograms, which makes a statement with one task write half as much again.
    pub(crate) is_sample: bool,
}

/// A statement that settles tasks and adds to the throughput: `WITH $settled … $returning`.
///
/// `$counts` is a `SELECT` of one row with the numbers of the settled tasks and of what became of them, and with the
/// times from acceptance to completion, in seconds, which are only counted in a sample. The parameters `$1` to `$3` are the totals and the durations of the
/// attempts, so the first of the statement's arguments is `$4`: the ids of the tasks.
macro_rules! settle_query {
    ($settled:literal, $counts:literal, $returning:literal, $totals:expr, $attempt_seconds:expr,
     $($argument:expr),+ $(,)?) => {
        sqlx::query_scalar!(
            "WITH " + $settled + ", counts AS (
                 SELECT " + $counts + "
             ), counted AS (
                 INSERT INTO throughput (period, start, writer, attempt_us, attempt_times, completed, completed_events, failed,
                                         retried, dead, refused, completion_times)
                 SELECT 'live', date_trunc('minute', now()), $1::text, $2::bigint, histogram($3::float8[]), completed,
                        completed_events, failed, retried, dead, cardinality($4::uuid[]) - settled,
                        histogram(CASE WHEN $3 IS NOT NULL THEN completion_seconds END)
                 FROM counts
                 ON CONFLICT (period, event_name, start, writer) DO UPDATE
                 SET completed = throughput.completed + excluded.completed,
                     completed_events = throughput.completed_events + excluded.completed_events,
                     failed = throughput.failed + excluded.failed, retried = throughput.retried + excluded.retried,
                     dead = throughput.dead + excluded.dead, refused = throughput.refused + excluded.refused,
                     attempt_us = throughput.attempt_us + excluded.attempt_us,
                     attempt_times = add_histograms(throughput.attempt_times, excluded.attempt_times),
                     completion_times = add_histograms(throughput.completion_times, excluded.completion_times)
             ) " + $returning,
            &*$totals.writer,
            $totals.attempt_us,
            $totals.is_sample.then_some(&$attempt_seconds[..]),
            $($argument),+
        )
    };
}

pub(crate) use settle_query;
