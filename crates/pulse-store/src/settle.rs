//! Settle: records the outcome of claimed tasks, guarded by the fencing token.
//!
//! A task is settled once: the statement that finds the fencing token of the claim moves the task and, in the same
//! transaction, applies the effects to its events. A worker whose lease expired finds no row and changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_core::{Attempt, FailureReason};
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;

/// The outcome of one claimed task.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Id of the task.
    pub task_id: Uuid,
    /// Fencing token of the claim.
    pub fencing_token: i64,
    /// How the attempt ended.
    pub outcome: Outcome,
}

/// How an attempt ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Completed, with the effects on all events of the task.
    Completed(Vec<Effect>),
    /// The events were deleted with their user.
    Orphaned,
    /// Failed; the task runs again after `delay`.
    Retry {
        /// Time until the next attempt, by PostgreSQL's clock.
        delay: Duration,
        /// The failed attempt.
        attempt: Attempt,
    },
    /// Failed for the last time; the task moves to `dead_tasks`.
    DeadLetter(Attempt),
    /// Released by a draining worker. The attempt does not count.
    Release,
}

/// The effect of a task on one event.
#[derive(Debug, Clone)]
pub struct Effect {
    /// Id of the event.
    pub event_id: i64,
    /// `created_at` of the event, which finds its partition.
    pub created_at: DateTime<Utc>,
    /// Properties of the event, as JSON text.
    pub properties: String,
}

/// Settles tasks on a dedicated connection.
pub struct Settler {
    connection: DedicatedConnection,
    writer: String,
    /// Busy time that is not yet in the running totals.
    unreported: Duration,
}

impl Settler {
    /// `writer` is the name in the running totals, and must be unique.
    pub fn new(store: &Store, writer: String) -> Self {
        Self { connection: store.dedicated_connection(), writer, unreported: Duration::ZERO }
    }

    /// Settles `settlements`, one transaction per kind of outcome, until one fails. Returns the tasks that were settled,
    /// even if a later kind failed; a task whose lease was lost is not among them.
    ///
    /// `busy` is the worker's busy time since the last call. The first transaction that commits adds it to the running
    /// totals.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if PostgreSQL refused an effect: split the unsettled rest, and try again.
    pub async fn settle(&mut self, settlements: &[Settlement], busy: Duration) -> (Vec<Uuid>, Result<(), StoreError>) {
        self.unreported += busy;
        let mut settled = Vec::with_capacity(settlements.len());
        let result = self.settle_kinds(settlements, &mut settled).await;
        (settled, result)
    }

    async fn settle_kinds(&mut self, settlements: &[Settlement], settled: &mut Vec<Uuid>) -> Result<(), StoreError> {
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
            settled.extend(self.dead_letter(&dead).await?);
        }
        if !released.task_id.is_empty() {
            settled.extend(self.release(&released).await?);
        }
        Ok(())
    }

    /// PostgreSQL 15 looks `IN (…) IS TRUE` up in a hash. Without `IS TRUE` it makes a join, which compares each row with each
    /// other, because a dedicated connection allows nested loops only.
    async fn complete(&mut self, completed: &CompletedColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        let (writer, busy_us) = (self.writer.as_str(), microseconds(self.unreported));
        let settled = self
            .connection
            .run(async |connection| {
                let settled = sqlx::query_scalar!(
                    r#"
                    WITH settled AS (
                        DELETE FROM tasks
                        WHERE id = ANY ($1) AND lease_until IS NOT NULL
                              AND ((id, fencing_token) IN (SELECT * FROM unnest($1::uuid[], $2::bigint[]))) IS TRUE
                        RETURNING *, CASE WHEN id = ANY ($3::uuid[]) THEN 'orphaned' ELSE 'completed' END AS outcome
                    ), effects AS (
                        UPDATE events
                        SET processed = true, processed_at = now(), properties = effect.properties::jsonb,
                            processing_error = NULL
                        FROM unnest($4::uuid[], $5::bigint[], $6::timestamptz[], $7::text[])
                             AS effect (task_id, event_id, created_at, properties)
                        WHERE events.id = effect.event_id AND events.created_at = effect.created_at
                              AND (effect.task_id IN (SELECT id FROM settled)) IS TRUE
                    ), counted AS (
                        INSERT INTO throughput (writer, settled, busy_us) SELECT $8, count(*), $9 FROM settled
                        ON CONFLICT (writer) DO UPDATE
                        SET settled = throughput.settled + excluded.settled,
                            busy_us = throughput.busy_us + excluded.busy_us, updated_at = now()
                    )
                    INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at,
                                              started_at, worker, traceparent, request_id)
                    SELECT id, kind, user_id, event_ids, outcome, attempts, errors, created_at,
                           started_at, worker, traceparent, request_id
                    FROM settled
                    RETURNING id
                    "#,
                    &completed.task_id,
                    &completed.fencing_token,
                    &completed.orphaned,
                    &completed.effect_task_id,
                    &completed.event_id,
                    &completed.created_at,
                    &completed.properties as &[&str],
                    writer,
                    busy_us,
                )
                .fetch_all(connection)
                .await?;
                Ok(settled)
            })
            .await?;
        self.unreported = Duration::ZERO;
        Ok(settled)
    }

    async fn retry(&mut self, retried: &AttemptColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        let (writer, busy_us) = (self.writer.as_str(), microseconds(self.unreported));
        let settled = self
            .connection
            .run(async |connection| {
                let settled = sqlx::query_scalar!(
                    "WITH counted AS (
                         INSERT INTO throughput (writer, busy_us) VALUES ($5, $6)
                         ON CONFLICT (writer) DO UPDATE
                         SET busy_us = throughput.busy_us + excluded.busy_us, updated_at = now()
                     )
                     UPDATE tasks
                     SET lease_until = NULL, enqueued_at = NULL, run_at = now() + make_interval(secs => failed.delay),
                         errors = errors || failed.attempt
                     FROM unnest($1::uuid[], $2::bigint[], $3::float8[], $4::jsonb[]) AS failed (id, fencing_token, delay, attempt)
                     WHERE tasks.id = ANY ($1) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                           AND tasks.lease_until IS NOT NULL
                     RETURNING tasks.id",
                    &retried.task_id,
                    &retried.fencing_token,
                    &retried.delay,
                    &retried.attempts() as &[Json<&Attempt>],
                    writer,
                    busy_us,
                )
                .fetch_all(connection)
                .await?;
                Ok(settled)
            })
            .await?;
        self.unreported = Duration::ZERO;
        Ok(settled)
    }

    async fn dead_letter(&mut self, dead: &AttemptColumns<'_>) -> Result<Vec<Uuid>, StoreError> {
        let reasons: Vec<&str> = dead.attempt.iter().map(|attempt| attempt.reason.as_str()).collect();
        let (writer, busy_us) = (self.writer.as_str(), microseconds(self.unreported));
        let settled = self
            .connection
            .run(async |connection| {
                let settled = sqlx::query_scalar!(
                    "WITH dead AS (
                         DELETE FROM tasks
                         USING unnest($1::uuid[], $2::bigint[], $3::text[], $4::jsonb[]) AS failed (id, fencing_token, reason, attempt)
                         WHERE tasks.id = ANY ($1) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                               AND tasks.lease_until IS NOT NULL
                         RETURNING tasks.*, failed.reason, failed.attempt
                     ), marked AS (
                         UPDATE events SET processing_error = dead.attempt ->> 'error'
                         FROM dead
                         WHERE events.id = ANY (dead.event_ids) AND events.created_at = dead.created_at
                               AND events.user_id = dead.user_id
                     ), counted AS (
                         INSERT INTO throughput (writer, settled, busy_us) SELECT $5, count(*), $6 FROM dead
                         ON CONFLICT (writer) DO UPDATE
                         SET settled = throughput.settled + excluded.settled,
                             busy_us = throughput.busy_us + excluded.busy_us, updated_at = now()
                     )
                     INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                                               fencing_token, worker, reason, errors, traceparent, request_id)
                     SELECT id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                            fencing_token, worker, reason, errors || attempt, traceparent, request_id
                     FROM dead
                     RETURNING id",
                    &dead.task_id,
                    &dead.fencing_token,
                    &reasons as &[&str],
                    &dead.attempts() as &[Json<&Attempt>],
                    writer,
                    busy_us,
                )
                .fetch_all(connection)
                .await?;
                Ok(settled)
            })
            .await?;
        self.unreported = Duration::ZERO;
        Ok(settled)
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

/// Columns of completed and orphaned tasks, and of the effects on their events.
#[derive(Default)]
struct CompletedColumns<'a> {
    task_id: Vec<Uuid>,
    fencing_token: Vec<i64>,
    orphaned: Vec<Uuid>,
    effect_task_id: Vec<Uuid>,
    event_id: Vec<i64>,
    created_at: Vec<DateTime<Utc>>,
    properties: Vec<&'a str>,
}

impl<'a> CompletedColumns<'a> {
    fn push(&mut self, settlement: &Settlement, effects: &'a [Effect]) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        for Effect { event_id, created_at, properties } in effects {
            self.effect_task_id.push(settlement.task_id);
            self.event_id.push(*event_id);
            self.created_at.push(*created_at);
            self.properties.push(properties);
        }
    }
}

/// Columns of tasks whose attempt had no effect.
#[derive(Default)]
struct AttemptColumns<'a> {
    task_id: Vec<Uuid>,
    fencing_token: Vec<i64>,
    delay: Vec<f64>,
    attempt: Vec<&'a Attempt>,
}

impl<'a> AttemptColumns<'a> {
    fn push(&mut self, settlement: &Settlement, delay: Duration, attempt: Option<&'a Attempt>) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        self.delay.push(delay.as_secs_f64());
        self.attempt.extend(attempt);
    }

    fn attempts(&self) -> Vec<Json<&'a Attempt>> {
        self.attempt.iter().map(|attempt| Json(*attempt)).collect()
    }
}

impl Store {
    /// Dead-letters at most `limit` tasks whose worker died during the last attempt, with reason `crash`; returns the
    /// number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn dead_letter_crashed(&self, limit: i64) -> Result<u64, StoreError> {
        let dead = sqlx::query!(
            r#"WITH dead AS (
                 DELETE FROM tasks WHERE id = ANY (ARRAY(
                     SELECT id FROM tasks WHERE attempts >= max_attempts AND lease_until < now()
                     ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED))
                 RETURNING *
             ), marked AS (
                 UPDATE events SET processing_error = $3
                 FROM dead
                 WHERE events.id = ANY (dead.event_ids) AND events.created_at = dead.created_at
                       AND events.user_id = dead.user_id
             )
             INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                                       fencing_token, worker, reason, errors, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at, fencing_token, worker, $2,
                    errors || jsonb_build_object('attempt', attempts, 'at', now(), 'reason', $2::text, 'error', $3::text),
                    traceparent, request_id
             FROM dead"#,
            limit,
            FailureReason::Crash.as_str(),
            "the worker died during the last attempt",
        )
        .execute(&self.pool)
        .await?;
        Ok(dead.rows_affected())
    }
}
