//! Dead-letter: moves tasks to `dead_tasks`, guarded by the fencing token.

use pulse_core::Attempt;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::error::StoreError;
use crate::settle_columns::AttemptColumns;
use crate::totals::{Totals, settle_query};

/// Dead-letters tasks after their last attempt; returns those whose lease was not lost.
pub(crate) async fn dead_letter(
    connection: &mut PgConnection,
    dead: &AttemptColumns<'_>,
    totals: &Totals,
) -> Result<Vec<Uuid>, StoreError> {
    let reasons: Vec<&str> = dead.attempt.iter().map(|attempt| attempt.reason.as_str()).collect();
    let settled = settle_query!(
        "dead AS (
             DELETE FROM tasks
             USING unnest($4::uuid[], $5::bigint[], $6::text[], $7::jsonb[]) AS failed (id, fencing_token, reason, attempt)
             WHERE tasks.id = ANY ($4) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                   AND tasks.lease_until IS NOT NULL
             RETURNING tasks.*, failed.reason, failed.attempt
         ), marked AS (
             UPDATE events SET processing_error = dead.attempt ->> 'error'
             FROM dead
             WHERE events.id = ANY (dead.event_ids) AND events.created_at = dead.created_at
                   AND events.user_id = dead.user_id
         )",
        "count(*) AS settled, 0 AS completed, 0 AS completed_events, count(*) AS failed, 0 AS retried, count(*) AS dead,
         NULL::float8[] AS completion_seconds
         FROM dead",
        "INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                                 fencing_token, bytes, worker, parent_id, reason, errors, traceparent, request_id)
         SELECT id, kind, user_id, event_ids, created_at, attempts + 1, max_attempts, started_at,
                fencing_token, bytes, worker, parent_id, reason, errors || attempt, traceparent, request_id
         FROM dead
         RETURNING id",
        totals,
        dead.attempt_seconds,
        &dead.task_id,
        &dead.fencing_token,
        &reasons as &[&str],
        &dead.attempts() as &[Json<&Attempt>],
    )
    .fetch_all(connection)
    .await?;
    Ok(settled)
}
