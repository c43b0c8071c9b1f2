//! Claim: leases tasks to a worker and reads their events.
//!
//! All times are PostgreSQL's. With `SKIP LOCKED`, two workers with the same delivery do not wait for each other.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_core::{ClaimedTask, Event, TextFields};
use uuid::Uuid;

use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;

/// Claims tasks on a dedicated connection.
///
/// A dedicated connection keeps its generic plans, which may be made while the statistics say that `tasks` is empty. All
/// indexes look equally cheap then, and a scan of the whole `tasks_run_at` or `tasks_pkey` takes seconds with a backlog.
/// Therefore each statement with ids says `id = ANY (…)`, also beside a join, and `run_at + interval '0'` hides the column
/// from its index (measured on PostgreSQL 15). The events of a task are one short range of either index of one partition,
/// because they were inserted together with ascending ids. Looked up by id, each of them would be searched among all events
/// that its user posted in the same commit.
pub struct Claimer {
    connection: DedicatedConnection,
    worker: String,
    lease: Duration,
}

/// A claimed task joined with one of its events. The event's columns are `None` if the event was deleted.
struct Row {
    id: Uuid,
    event_count: i32,
    attempts: i32,
    max_attempts: i32,
    fencing_token: i64,
    crashed: bool,
    created_at: DateTime<Utc>,
    traceparent: Option<String>,
    request_id: Option<String>,
    event_id: Option<i64>,
    user_id: i64,
    event_name: Option<String>,
    event_type: Option<String>,
    source: Option<String>,
    session_id: Option<String>,
    payload: Option<String>,
    ip_address: Option<String>,
    user_agent: Option<String>,
    event_timestamp: Option<DateTime<Utc>>,
}

impl Claimer {
    /// `worker` is recorded with each claim; `lease` is the time that a claim lasts without a heartbeat.
    pub fn new(store: &Store, worker: String, lease: Duration) -> Self {
        Self { connection: store.dedicated_connection(), worker, lease }
    }

    /// Claims the tasks of `ids` that are due and not leased, by id, until they have `max_events` events together; at least
    /// one task, whatever its size.
    ///
    /// If fewer than `max_events` events are returned, each missing task is settled, leased by another worker, or due
    /// later: acknowledge its delivery.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks may be leased nevertheless, until the lease expires.
    pub async fn claim(&mut self, ids: &[Uuid], max_events: usize) -> Result<Vec<ClaimedTask>, StoreError> {
        let (worker, lease) = (self.worker.as_str(), self.lease.as_secs_f64());
        let max_events = i64::try_from(max_events.max(1)).unwrap_or(i64::MAX);
        let rows = self
            .connection
            .run(async |connection| {
                let rows = sqlx::query_as!(
                    Row,
                    r#"
                    WITH due AS (
                        SELECT id, cardinality(event_ids) AS size, lease_until IS NOT NULL AS crashed FROM tasks
                        WHERE id = ANY ($1) AND run_at + interval '0' <= now() AND (lease_until IS NULL OR lease_until < now())
                              AND attempts < max_attempts
                        FOR UPDATE SKIP LOCKED
                    ), sized AS (
                        SELECT id, sum(size) OVER (ORDER BY id) - size AS events_before FROM due
                    ), claimed AS (
                        UPDATE tasks SET attempts = attempts + 1, fencing_token = fencing_token + 1, worker = $2,
                                         started_at = now(), lease_until = now() + make_interval(secs => $3)
                        WHERE tasks.id = ANY (ARRAY(SELECT id FROM sized WHERE events_before < $4))
                        RETURNING tasks.*
                    )
                    SELECT claimed.id AS "id!", cardinality(event_ids) AS "event_count!", attempts AS "attempts!",
                           max_attempts AS "max_attempts!", fencing_token AS "fencing_token!",
                           claimed.id = ANY (ARRAY(SELECT id FROM due WHERE crashed)) AS "crashed!", claimed.created_at AS "created_at!",
                           traceparent, request_id, claimed.user_id AS "user_id!", events.id AS "event_id?",
                           event_name AS "event_name?", event_type AS "event_type?", source, session_id,
                           payload::text AS "payload?", ip_address, user_agent, event_timestamp AS "event_timestamp?"
                    FROM claimed
                    LEFT JOIN events ON events.user_id = claimed.user_id AND events.created_at = claimed.created_at
                                        AND events.id BETWEEN event_ids[1] AND event_ids[cardinality(event_ids)]
                                        AND events.task_id = claimed.id
                    ORDER BY claimed.id, events.id
                    "#,
                    ids,
                    worker,
                    lease,
                    max_events,
                )
                .fetch_all(connection)
                .await?;
                Ok(rows)
            })
            .await?;
        Ok(group(rows))
    }

    /// Claims the oldest `limit` due tasks without ids from Redis: the fallback while Redis is unavailable.
    ///
    /// # Errors
    /// As [`Claimer::claim`].
    pub async fn claim_due(&mut self, limit: usize, max_events: usize) -> Result<Vec<ClaimedTask>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let due = self
            .connection
            .run(async |connection| {
                let due = sqlx::query_scalar!(
                    "SELECT id FROM tasks
                     WHERE run_at <= now() AND (lease_until IS NULL OR lease_until < now()) AND attempts < max_attempts
                     ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED",
                    limit,
                )
                .fetch_all(connection)
                .await?;
                Ok(due)
            })
            .await?;
        if due.is_empty() { Ok(Vec::new()) } else { self.claim(&due, max_events).await }
    }

    /// Extends the leases of `in_flight`, pairs of task id and fencing token; returns the tasks whose lease was extended.
    ///
    /// Skips locked rows: a settlement locks the same rows in another order, which could deadlock.
    ///
    /// # Errors
    /// [`StoreError`]. The leases end at their present time.
    pub async fn extend(&mut self, in_flight: &[(Uuid, i64)]) -> Result<Vec<Uuid>, StoreError> {
        let (ids, fencing_tokens): (Vec<Uuid>, Vec<i64>) = in_flight.iter().copied().unzip();
        let lease = self.lease.as_secs_f64();
        self.connection
            .run(async |connection| {
                let extended = sqlx::query_scalar!(
                    "WITH extendable AS (
                         SELECT tasks.id FROM tasks JOIN unnest($1::uuid[], $2::bigint[]) AS in_flight (id, fencing_token)
                                              ON tasks.id = in_flight.id AND tasks.fencing_token = in_flight.fencing_token
                         WHERE tasks.id = ANY ($1) AND tasks.lease_until IS NOT NULL
                         FOR UPDATE OF tasks SKIP LOCKED
                     )
                     UPDATE tasks SET lease_until = now() + make_interval(secs => $3)
                     WHERE tasks.id = ANY (ARRAY(SELECT id FROM extendable))
                     RETURNING tasks.id",
                    &ids,
                    &fencing_tokens,
                    lease,
                )
                .fetch_all(connection)
                .await?;
                Ok(extended)
            })
            .await
    }
}

/// Collects the rows of each task.
fn group(rows: Vec<Row>) -> Vec<ClaimedTask> {
    let mut tasks: Vec<ClaimedTask> = Vec::new();
    let mut positions: HashMap<Uuid, usize> = HashMap::new();
    for row in rows {
        let position = *positions.entry(row.id).or_insert_with(|| {
            tasks.push(ClaimedTask {
                id: row.id,
                event_count: usize::try_from(row.event_count).unwrap_or(0),
                events: Vec::new(),
                attempt: u32::try_from(row.attempts).unwrap_or(u32::MAX),
                max_attempts: u32::try_from(row.max_attempts).unwrap_or(u32::MAX),
                fencing_token: row.fencing_token,
                crashed: row.crashed,
                created_at: row.created_at,
                traceparent: row.traceparent,
                request_id: row.request_id,
            });
            tasks.len() - 1
        });
        let event = (row.event_id, row.event_name, row.event_type, row.payload, row.event_timestamp);
        if let (Some(id), Some(event_name), Some(event_type), Some(payload), Some(event_timestamp)) = event {
            tasks[position].events.push(Event {
                id,
                task_id: row.id,
                user_id: row.user_id,
                fields: TextFields {
                    event_name,
                    event_type,
                    source: row.source,
                    session_id: row.session_id,
                    ip_address: row.ip_address,
                    user_agent: row.user_agent,
                },
                payload,
                event_timestamp,
                created_at: row.created_at,
            });
        }
    }
    tasks
}
