//! The running totals, which are updated by the statement that settles.

use std::sync::Arc;

/// What a statement adds to the running totals.
#[derive(Clone)]
pub(crate) struct Totals {
    /// Name in the running totals; `None` adds nothing.
    pub(crate) writer: Option<Arc<str>>,
    /// Busy time, in microseconds.
    pub(crate) busy_us: i64,
}

impl Totals {
    /// Adds nothing.
    pub(crate) const NONE: Self = Self { writer: None, busy_us: 0 };
}

/// A statement that settles tasks and adds to the running totals: `WITH $settled … $returning`.
///
/// `$count` is the number of completed or dead-lettered tasks. The parameters `$1` and `$2` are the totals, so the
/// first of the statement's arguments is `$3`.
macro_rules! settle_query {
    ($settled:literal, $count:literal, $returning:literal, $totals:expr, $($argument:expr),+ $(,)?) => {
        sqlx::query_scalar!(
            "WITH " + $settled + ", counted AS (
                 INSERT INTO throughput (writer, settled, busy_us)
                 SELECT $1::text, " + $count + ", $2::bigint WHERE $1 IS NOT NULL
                 ON CONFLICT (writer) DO UPDATE
                 SET settled = throughput.settled + excluded.settled, busy_us = throughput.busy_us + excluded.busy_us,
                     updated_at = now()
             ) " + $returning,
            $totals.writer.as_deref(),
            $totals.busy_us,
            $($argument),+
        )
    };
}

pub(crate) use settle_query;
