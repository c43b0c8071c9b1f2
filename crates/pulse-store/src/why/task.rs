//! The facts of one task.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskStatus;

/// Maximum number of events of a batch that are shown.
const EVENTS: usize = 10;

/// A task with its user and events, and the lock that another transaction has on it.
#[derive(Debug, Clone)]
pub struct TaskFacts {
    /// The task.
    pub task: TaskStatus,
    /// PostgreSQL's time of this reading.
    pub now: DateTime<Utc>,
    /// The `sub` of its user; `None` if the user was deleted.
    pub user: Option<String>,
    /// Time at which the user was disabled.
    pub user_disabled_at: Option<DateTime<Utc>>,
    /// Whether a worker died while it had the task, so that it runs alone; false once it is settled or dead.
    pub crashed: bool,
    /// Its first events, at most 10, without those that were deleted.
    pub events: Vec<EventFacts>,
    /// A lock on its row or on the row of an event, held for more than 2 s.
    pub lock: Option<RowLock>,
}

/// An event of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFacts {
    /// Id of the event.
    pub id: i64,
    /// Its name.
    pub event_name: String,
    /// Time at which it was processed.
    pub processed_at: Option<DateTime<Utc>>,
}

/// A transaction that has locked a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLock {
    /// `task` or `event`.
    pub row: String,
    /// Process of PostgreSQL, for `pg_terminate_backend`; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The client's `application_name`.
    pub application: Option<String>,
    /// Start of the transaction; `None` if this user may not see it.
    pub since: Option<DateTime<Utc>>,
}

impl Store {
    /// Reads a task; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn task_facts(&self, id: Uuid) -> Result<Option<TaskFacts>, StoreError> {
        let Some(task) = self.find_task(None, id).await? else { return Ok(None) };
        let user = sqlx::query!("SELECT subject, disabled_at FROM users WHERE id = $1", task.user_id)
            .fetch_optional(&self.pool)
            .await?;
        let (user, user_disabled_at) = user.map(|user| (user.subject, user.disabled_at)).unzip();
        let crashed =
            sqlx::query_scalar!("SELECT crashed FROM tasks WHERE id = $1", id).fetch_optional(&self.pool).await?;
        let shown = &task.event_ids[..task.event_ids.len().min(EVENTS)];
        let events = sqlx::query_as!(
            EventFacts,
            "SELECT id, event_name, processed_at FROM events WHERE id = ANY ($1) AND created_at = $2 ORDER BY id",
            shown,
            task.created_at,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Some(TaskFacts {
            now: self.now().await?,
            user,
            user_disabled_at: user_disabled_at.flatten(),
            crashed: crashed.unwrap_or(false),
            events,
            lock: self.row_lock(&task).await?,
            task,
        }))
    }

    /// The longest lock of another transaction on a row of the task. `xmax` is the transaction that locked or changes the
    /// row, and it has a lock on its own number while it runs. Statements of the roles end within 2 s or so.
    async fn row_lock(&self, task: &TaskStatus) -> Result<Option<RowLock>, StoreError> {
        let lock = sqlx::query_as!(
            RowLock,
            r#"
            SELECT locked.part AS "row!", locks.pid, activity.application_name AS application, activity.xact_start AS since
            FROM (SELECT 'task' AS part, xmax AS transaction FROM tasks WHERE id = $1
                  UNION ALL
                  SELECT 'event', xmax FROM events WHERE id = ANY ($2) AND created_at = $3) AS locked
            JOIN pg_locks AS locks
                 ON locks.locktype = 'transactionid' AND locks.transactionid = locked.transaction AND locks.granted
            LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
            WHERE activity.xact_start IS NULL OR activity.xact_start < clock_timestamp() - interval '2 s'
            ORDER BY activity.xact_start LIMIT 1
            "#,
            task.id,
            &task.event_ids,
            task.created_at,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(lock)
    }
}
