//! The statements that settle, one for each kind of outcome.

use std::time::Duration;

use pulse_core::Attempt;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::dead_letter::dead_letter;
use crate::error::StoreError;
use crate::settle_columns::{AttemptColumns, CompletedColumns};
use crate::settlement::{Outcome, Settlement};
use crate::split::{SplitColumns, split};
use crate::totals::{Totals, settle_query};

/// A statement with the columns of all settlements of its kind.
pub(crate) enum Statement<'a> {
    Complete(CompletedColumns<'a>),
    Split(SplitColumns<'a>),
    Retry(AttemptColumns<'a>),
    DeadLetter(AttemptColumns<'a>),
    Release(AttemptColumns<'a>),
}

/// The statements that settle `settlements`.
pub(crate) fn statements<'a>(settlements: &[&'a Settlement]) -> Vec<Statement<'a>> {
    let mut completed = CompletedColumns::default();
    let mut split = SplitColumns::default();
    let mut retried = AttemptColumns::default();
    let mut dead = AttemptColumns::default();
    let mut released = AttemptColumns::default();
    for settlement in settlements {
        match &settlement.outcome {
            Outcome::Completed(effects) => completed.push(settlement, effects),
            Outcome::Orphaned => {
                completed.push(settlement, &[]);
                completed.orphaned.push(settlement.task_id);
            }
            Outcome::Split { effects, children } => split.push(settlement, effects, children),
            Outcome::Retry { delay, attempt } => retried.push(settlement, *delay, Some(attempt)),
            Outcome::DeadLetter(attempt) => dead.push(settlement, Duration::ZERO, Some(attempt)),
            Outcome::Release(delay) => released.push(settlement, *delay, None),
        }
    }
    let mut statements = vec![
        Statement::Complete(completed),
        Statement::Split(split),
        Statement::Retry(retried),
        Statement::DeadLetter(dead),
        Statement::Release(released),
    ];
    statements.retain(|statement| !statement.task_ids().is_empty());
    statements
}

impl Statement<'_> {
    fn task_ids(&self) -> &[Uuid] {
        match self {
            Self::Complete(columns) => &columns.task_id,
            Self::Split(columns) => &columns.task_id,
            Self::Retry(columns) | Self::DeadLetter(columns) | Self::Release(columns) => &columns.task_id,
        }
    }

    /// Returns the tasks that were settled: those whose lease was not lost.
    pub(crate) async fn run(&self, connection: &mut PgConnection, totals: &Totals) -> Result<Vec<Uuid>, StoreError> {
        match self {
            Self::Complete(columns) => complete(connection, columns, totals).await,
            Self::Split(columns) => split(connection, columns, totals).await,
            Self::Retry(columns) => retry(connection, columns, totals).await,
            Self::DeadLetter(columns) => dead_letter(connection, columns, totals).await,
            Self::Release(columns) => {
                release(connection, &columns.task_id, &columns.fencing_token, &columns.delay).await
            }
        }
    }
}

/// PostgreSQL 15 looks `IN (…) IS TRUE` up in a hash. Without `IS TRUE` it makes a join, which compares each row with each
/// other, because a dedicated connection allows nested loops only.
async fn complete(
    connection: &mut PgConnection,
    completed: &CompletedColumns<'_>,
    totals: &Totals,
) -> Result<Vec<Uuid>, StoreError> {
    let settled = settle_query!(
        "settled AS (
             DELETE FROM tasks
             WHERE id = ANY ($4) AND lease_until IS NOT NULL
                   AND ((id, fencing_token) IN (SELECT * FROM unnest($4::uuid[], $5::bigint[]))) IS TRUE
             RETURNING *, (id = ANY ($6::uuid[])) AS is_orphaned
         ), effects AS (
             UPDATE events
             SET processed = true, processed_at = now(), properties = effect.properties::jsonb,
                 processing_error = NULL
             FROM unnest($7::uuid[], $8::bigint[], $9::timestamptz[], $10::text[])
                  AS effect (task_id, event_id, created_at, properties)
             WHERE events.id = effect.event_id AND events.created_at = effect.created_at
                   AND (effect.task_id IN (SELECT id FROM settled)) IS TRUE
         )",
        "count(*) AS settled, count(*) AS completed, coalesce(sum(cardinality(event_ids)), 0) AS completed_events,
         0 AS failed, 0 AS retried, 0 AS dead,
         array_agg(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE NOT is_orphaned) AS completion_seconds
         FROM settled",
        "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at,
                                  started_at, worker, parent_id, traceparent, request_id)
         SELECT id, kind, user_id, event_ids, CASE WHEN is_orphaned THEN 'orphaned' ELSE 'completed' END,
                CASE WHEN is_orphaned THEN attempts ELSE attempts + 1 END, errors, created_at,
                started_at, worker, parent_id, traceparent, request_id
         FROM settled
         RETURNING id",
        totals,
        completed.attempt_seconds,
        &completed.task_id,
        &completed.fencing_token,
        &completed.orphaned,
        &completed.effects.task_id,
        &completed.effects.event_id,
        &completed.effects.created_at,
        &completed.effects.properties as &[&str],
    )
    .fetch_all(connection)
    .await?;
    Ok(settled)
}

async fn retry(
    connection: &mut PgConnection,
    retried: &AttemptColumns<'_>,
    totals: &Totals,
) -> Result<Vec<Uuid>, StoreError> {
    let retried = settle_query!(
        "retried AS (
             UPDATE tasks
             SET lease_until = NULL, enqueued_at = NULL, run_at = now() + make_interval(secs => failed.delay),
                 attempts = attempts + 1, errors = errors || failed.attempt, crashed = false
             FROM unnest($4::uuid[], $5::bigint[], $6::float8[], $7::jsonb[]) AS failed (id, fencing_token, delay, attempt)
             WHERE tasks.id = ANY ($4) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                   AND tasks.lease_until IS NOT NULL
             RETURNING tasks.id
         )",
        "count(*) AS settled, 0 AS completed, 0 AS completed_events, count(*) AS failed, count(*) AS retried, 0 AS dead,
         NULL::float8[] AS completion_seconds
         FROM retried",
        "SELECT id AS \"id!\" FROM retried",
        totals,
        retried.attempt_seconds,
        &retried.task_id,
        &retried.fencing_token,
        &retried.delay,
        &retried.attempts() as &[Json<&Attempt>],
    )
    .fetch_all(connection)
    .await?;
    Ok(retried)
}

/// Ends the leases without an outcome. The tasks are not in the stream any more, and run again after `delays`, in seconds.
pub(crate) async fn release(
    connection: &mut PgConnection,
    ids: &[Uuid],
    fencing_tokens: &[i64],
    delays: &[f64],
) -> Result<Vec<Uuid>, StoreError> {
    let released = sqlx::query_scalar!(
        "UPDATE tasks
         SET lease_until = NULL, enqueued_at = NULL, run_at = GREATEST(run_at, now() + make_interval(secs => released.delay))
         FROM unnest($1::uuid[], $2::bigint[], $3::float8[]) AS released (id, fencing_token, delay)
         WHERE tasks.id = ANY ($1) AND tasks.id = released.id AND tasks.fencing_token = released.fencing_token
               AND tasks.lease_until IS NOT NULL
         RETURNING tasks.id",
        ids,
        fencing_tokens,
        delays,
    )
    .fetch_all(connection)
    .await?;
    Ok(released)
}
