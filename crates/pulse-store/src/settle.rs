//! Settle: records the outcome of claimed tasks, guarded by the fencing token.
//!
//! A task is settled once: the statement that finds the fencing token of the claim moves the task and, in the same
//! transaction, applies the effects to its events. A worker whose lease expired finds no row and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use pulse_core::Attempt;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::{DedicatedConnection, Store};
use crate::dead_letter::dead_letter;
use crate::error::StoreError;
use crate::settlement::{AttemptColumns, CompletedColumns, Outcome, Settlement};
use crate::totals::{Totals, settle_query};

/// Settles tasks on a dedicated connection.
pub struct Settler {
    connection: DedicatedConnection,
    writer: Arc<str>,
    /// Busy time that is not yet in the running totals.
    unreported: Duration,
}

impl Settler {
    /// `writer` is the name in the running totals, and must be unique.
    pub fn new(store: &Store, writer: String) -> Self {
        Self { connection: store.dedicated_connection(), writer: writer.into(), unreported: Duration::ZERO }
    }

    /// Settles `settlements`, one transaction per kind of outcome, until one fails. Returns the tasks that were settled,
    /// even if a later kind failed; a task whose lease was lost is not among them.
    ///
    /// `busy` is the worker's busy time since the last call. The first transaction that commits adds it to the running
    /// totals.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if PostgreSQL refused an effect: split the unsettled rest, and try again.
    pub async fn settle<'a>(
        &mut self,
        settlements: impl IntoIterator<Item = &'a Settlement>,
        busy: Duration,
    ) -> (Vec<Uuid>, Result<(), StoreError>) {
        self.unreported += busy;
        let mut settled = Vec::new();
        let result = self.settle_kinds(settlements, &mut settled).await;
        (settled, result)
    }

    async fn settle_kinds<'a>(
        &mut self,
        settlements: impl IntoIterator<Item = &'a Settlement>,
        settled: &mut Vec<Uuid>,
    ) -> Result<(), StoreError> {
        let mut completed = CompletedColumns::default();
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
                Outcome::Retry { delay, attempt } => retried.push(settlement, *delay, Some(attempt)),
                Outcome::DeadLetter(attempt) => dead.push(settlement, Duration::ZERO, Some(attempt)),
                Outcome::Release => released.push(settlement, Duration::ZERO, None),
            }
        }
        if !completed.task_id.is_empty() {
            settled.extend(self.complete(&completed).await?);
        }
        if !retried.task_id.is_empty() {
            settled.extend(self.retry(&retried).await?);
        }
        if !dead.task_id.is_empty() {
            settled
                .extend(self.counted(async |connection, totals| dead_letter(connection, &dead, totals).await).await?);
        }
        if !released.task_id.is_empty() {
            settled.extend(self.release(&released).await?);
        }
        Ok(())
    }

    /// Runs a statement that adds the unreported busy time to the running totals.
    async fn counted(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection, Totals) -> Result<Vec<Uuid>, StoreError>,
    ) -> Result<Vec<Uuid>, StoreError> {
        let totals = Totals { writer: Some(self.writer.clone()), busy_us: microseconds(self.unreported) };
        let settled = self.connection.run(async |connection| statement(connection, totals).await).await?;
        self.unreported = Duration::ZERO;
        Ok(settled)
    }

    /// PostgreSQL 15 looks `IN (…) IS TRUE` up in a hash. Without `IS TRUE` it makes a join, which compares each row with each
    /// other, because a dedicated connection allows nested loops only.
    async fn complete(&mut self, completed: &CompletedColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        self.counted(async |connection, totals| {
            let settled = settle_query!(
                "settled AS (
                     DELETE FROM tasks
                     WHERE id = ANY ($3) AND lease_until IS NOT NULL
                           AND ((id, fencing_token) IN (SELECT * FROM unnest($3::uuid[], $4::bigint[]))) IS TRUE
                     RETURNING *, CASE WHEN id = ANY ($5::uuid[]) THEN 'orphaned' ELSE 'completed' END AS outcome
                 ), effects AS (
                     UPDATE events
                     SET processed = true, processed_at = now(), properties = effect.properties::jsonb,
                         processing_error = NULL
                     FROM unnest($6::uuid[], $7::bigint[], $8::timestamptz[], $9::text[])
                          AS effect (task_id, event_id, created_at, properties)
                     WHERE events.id = effect.event_id AND events.created_at = effect.created_at
                           AND (effect.task_id IN (SELECT id FROM settled)) IS TRUE
                 )",
                "(SELECT count(*) FROM settled)",
                "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at,
                                          started_at, worker, traceparent, request_id)
                 SELECT id, kind, user_id, event_ids, outcome, attempts, errors, created_at,
                        started_at, worker, traceparent, request_id
                 FROM settled
                 RETURNING id",
                totals,
                &completed.task_id,
                &completed.fencing_token,
                &completed.orphaned,
                &completed.effect_task_id,
                &completed.event_id,
                &completed.created_at,
                &completed.properties as &[&str],
            )
            .fetch_all(connection)
            .await?;
            Ok(settled)
        })
        .await
    }

    async fn retry(&mut self, retried: &AttemptColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        self.counted(async |connection, totals| {
            let retried = settle_query!(
                "retried AS (
                     UPDATE tasks
                     SET lease_until = NULL, enqueued_at = NULL, run_at = now() + make_interval(secs => failed.delay),
                         errors = errors || failed.attempt
                     FROM unnest($3::uuid[], $4::bigint[], $5::float8[], $6::jsonb[]) AS failed (id, fencing_token, delay, attempt)
                     WHERE tasks.id = ANY ($3) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                           AND tasks.lease_until IS NOT NULL
                     RETURNING tasks.id
                 )",
                "0",
                "SELECT id AS \"id!\" FROM retried",
                totals,
                &retried.task_id,
                &retried.fencing_token,
                &retried.delay,
                &retried.attempts() as &[Json<&Attempt>],
            )
            .fetch_all(connection)
            .await?;
            Ok(retried)
        })
        .await
    }

    async fn release(&mut self, released: &AttemptColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        self.connection
            .run(async |connection| {
                let settled = sqlx::query_scalar!(
                    "UPDATE tasks SET lease_until = NULL, enqueued_at = NULL, attempts = attempts - 1
                     FROM unnest($1::uuid[], $2::bigint[]) AS released (id, fencing_token)
                     WHERE tasks.id = ANY ($1) AND tasks.id = released.id AND tasks.fencing_token = released.fencing_token
                           AND tasks.lease_until IS NOT NULL
                     RETURNING tasks.id",
                    &released.task_id,
                    &released.fencing_token,
                )
                .fetch_all(connection)
                .await?;
                Ok(settled)
            })
            .await
    }
}

fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
