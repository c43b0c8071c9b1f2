//! Dead-letter: moves tasks to `dead_tasks`, guarded by the fencing token.

use pulse_core::{Attempt, FailureReason};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::settlement::AttemptColumns;
use crate::totals::{Totals, settle_query};

/// Dead-letters tasks after their last attempt; returns those whose lease was not lost.
pub(crate) async fn dead_letter(
    connection: &mut PgConnection,
    dead: &AttemptColumns<'_>,
    totals: Totals,
) -> Result<Vec<Uuid>, StoreError> {
    let reasons: Vec<&str> = dead.attempt.iter().map(|attempt| attempt.reason.as_str()).collect();
    let settled = settle_query!(
        "dead AS (
             DELETE FROM tasks
             USING unnest($3::uuid[], $4::bigint[], $5::text[], $6::jsonb[]) AS failed (id, fencing_token, reason, attempt)
             WHERE tasks.id = ANY ($3) AND tasks.id = failed.id AND tasks.fencing_token = failed.fencing_token
                   AND tasks.lease_until IS NOT NULL
             RETURNING tasks.*, failed.reason, failed.attempt
         ), marked AS (
             UPDATE events SET processing_error = dead.attempt ->> 'error'
             FROM dead
             WHERE events.id = ANY (dead.event_ids) AND events.created_at = dead.created_at
                   AND events.user_id = dead.user_id
         )",
        "(SELECT count(*) FROM dead)",
        "INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                                 fencing_token, bytes, worker, reason, errors, traceparent, request_id)
         SELECT id, kind, user_id, event_ids, created_at, attempts, max_attempts, started_at,
                fencing_token, bytes, worker, reason, errors || attempt, traceparent, request_id
         FROM dead
         RETURNING id",
        totals,
        &dead.task_id,
        &dead.fencing_token,
        &reasons as &[&str],
        &dead.attempts() as &[Json<&Attempt>],
    )
    .fetch_all(connection)
    .await?;
    Ok(settled)
}

impl Store {
    /// Dead-letters at most `limit` tasks whose worker died during the last attempt, with reason `crash`; returns the
    /// number. They are not in the running totals, because no worker was busy with them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn dead_letter_crashed(&self, limit: i64) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let crashed = sqlx::query!(
            r#"SELECT id, fencing_token, attempts, now() AS "now!" FROM tasks
               WHERE attempts >= max_attempts AND lease_until < now()
               ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED"#,
            limit,
        )
        .fetch_all(&mut *transaction)
        .await?;
        if crashed.is_empty() {
            return Ok(0);
        }
        let attempts: Vec<Attempt> = crashed
            .iter()
            .map(|task| Attempt {
                attempt: u32::try_from(task.attempts).unwrap_or(u32::MAX),
                at: task.now,
                reason: FailureReason::Crash,
                error: "the worker died during the last attempt".into(),
            })
            .collect();
        let dead = AttemptColumns {
            task_id: crashed.iter().map(|task| task.id).collect(),
            fencing_token: crashed.iter().map(|task| task.fencing_token).collect(),
            attempt: attempts.iter().collect(),
            delay: Vec::new(),
        };
        let dead = dead_letter(&mut transaction, &dead, Totals { writer: None, busy_us: 0 }).await?;
        transaction.commit().await?;
        Ok(dead.len() as u64)
    }
}
