//! Recover: ends expired leases. The worker of such a task died, or could not reach PostgreSQL.
//!
//! The first time, the task uses no attempt, because another task of the same worker may be the cause: it is run alone. If
//! its lease expires again, the crash is its own and uses an attempt. A batch is split, so that only the event that is
//! the cause dies.

use chrono::{DateTime, Utc};
use pulse_core::{Attempt, FailureReason};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::row_locks::locked;
use crate::settle_statements::statements;
use crate::settlement::{Child, ChildState, Outcome, Settlement};
use crate::totals::Totals;

/// Number of tasks whose lease expired, by what happened to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Pending again.
    pub retried: u64,
    /// Dead-lettered with reason `crash`.
    pub dead: u64,
}

/// Name in the throughput. Only the leader of the schedulers recovers.
const WRITER: &str = "scheduler/recover";

struct Expired {
    id: Uuid,
    fencing_token: i64,
    attempts: i32,
    max_attempts: i32,
    crashed: bool,
    event_ids: Vec<i64>,
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Store {
    /// Ends at most `limit` expired leases of tasks that were due from `due_from` on, in one transaction. A task of which
    /// another transaction has locked a row is left for the next call.
    ///
    /// # Errors
    /// [`StoreError`]. No lease was ended.
    pub async fn recover(&self, due_from: DateTime<Utc>, limit: i64) -> Result<Recovered, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let expired = sqlx::query_as!(
            Expired,
            r#"SELECT id, fencing_token, attempts, max_attempts, crashed, event_ids, created_at, now() AS "now!"
               FROM tasks WHERE lease_until < now() AND run_at >= $2 AND run_at <= now()
               ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED"#,
            limit,
            due_from,
        )
        .fetch_all(&mut *transaction)
        .await?;
        if expired.is_empty() {
            return Ok(Recovered::default());
        }
        let mut retried = Vec::new();
        let mut settlements = Vec::new();
        for task in expired {
            match outcome(&mut transaction, &task).await? {
                Some(outcome) => settlements.push(Settlement {
                    task_id: task.id,
                    fencing_token: task.fencing_token,
                    created_at: task.created_at,
                    event_ids: task.event_ids,
                    ran: None,
                    outcome,
                }),
                None => retried.push(task.id),
            }
        }
        let all: Vec<&Settlement> = settlements.iter().collect();
        let locked = locked(&mut transaction, &all).await?;
        let unlocked: Vec<&Settlement> = all.into_iter().filter(|task| !locked.contains(&task.task_id)).collect();
        for statement in statements(&unlocked) {
            statement.run(&mut transaction, &Totals { writer: WRITER.into(), attempt_us: 0, is_sample: false }).await?;
        }
        retry_crashed(&mut transaction, &retried).await?;
        transaction.commit().await?;
        let dead = unlocked.iter().filter(|task| matches!(task.outcome, Outcome::DeadLetter(_))).count();
        Ok(Recovered { retried: (retried.len() + unlocked.len() - dead) as u64, dead: dead as u64 })
    }
}

/// The outcome of a task that crashed again; `None` if it runs again as it is.
async fn outcome(connection: &mut PgConnection, task: &Expired) -> Result<Option<Outcome>, StoreError> {
    if !task.crashed {
        return Ok(None);
    }
    if task.event_ids.len() > 1 {
        let children = crashed_children(connection, task).await?;
        return Ok(Some(Outcome::Split { effects: Vec::new(), children }));
    }
    if task.attempts + 1 < task.max_attempts {
        return Ok(None);
    }
    Ok(Some(Outcome::DeadLetter(Attempt {
        attempt: u32::try_from(task.attempts + 1).unwrap_or(u32::MAX),
        at: task.now,
        reason: FailureReason::Crash,
        error: CRASH_ERROR.into(),
    })))
}

/// Error of an attempt whose worker died.
const CRASH_ERROR: &str = "the worker died during the attempt";

async fn crashed_children(connection: &mut PgConnection, task: &Expired) -> Result<Vec<Child>, StoreError> {
    let events = sqlx::query!(
        r#"SELECT id, octet_length(payload::text) AS "bytes!" FROM events WHERE id = ANY ($1) AND created_at = $2"#,
        &task.event_ids,
        task.created_at,
    )
    .fetch_all(connection)
    .await?;
    let child = |event_id, bytes| Child { id: Uuid::now_v7(), event_id, bytes, state: ChildState::Crashed };
    Ok(events.into_iter().map(|event| child(event.id, usize::try_from(event.bytes).unwrap_or(0))).collect())
}

async fn retry_crashed(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH failed AS (
             SELECT count(*) AS attempts FROM tasks WHERE id = ANY ($1) AND crashed
         ), counted AS (
             INSERT INTO throughput (period, start, writer, failed, retried)
             SELECT 'live', date_trunc('minute', now()), $4::text, attempts, attempts FROM failed WHERE attempts > 0
             ON CONFLICT (period, event_name, start, writer) DO UPDATE
             SET failed = throughput.failed + excluded.failed, retried = throughput.retried + excluded.retried
         )
         UPDATE tasks
         SET lease_until = NULL, enqueued_at = NULL, crashed = true, attempts = attempts + crashed::int,
             errors = CASE WHEN crashed
                           THEN errors || jsonb_build_object('attempt', attempts + 1, 'at', now(), 'reason', $2::text,
                                                             'error', $3::text)
                           ELSE errors END
         WHERE id = ANY ($1)",
        ids,
        FailureReason::Crash.as_str(),
        CRASH_ERROR,
        WRITER,
    )
    .execute(connection)
    .await?;
    Ok(())
}
