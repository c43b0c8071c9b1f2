//! Reads of tasks.

use std::fmt::{self, Display, Formatter};

use chrono::{DateTime, SecondsFormat, Utc};
use pulse_core::Attempt;
use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::task_ids::first_id_of;

/// A task: unsettled, settled or dead.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskStatus {
    /// Id of the task.
    pub id: Uuid,
    /// Owner of its events.
    pub user_id: i64,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// `pending`, `running`, `retrying`, `completed`, `orphaned`, `cancelled` or `dead`.
    pub state: String,
    /// Ids of its events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// Number of attempts started.
    pub attempts: i32,
    /// Maximum number of attempts; `None` once settled.
    pub max_attempts: Option<i32>,
    /// Failed attempts.
    #[schema(value_type = Vec<AttemptSchema>)]
    pub errors: Json<Vec<Attempt>>,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// Start of the latest attempt.
    pub started_at: Option<DateTime<Utc>>,
    /// Time of settlement; for a dead task, the time at which it was dead-lettered.
    pub settled_at: Option<DateTime<Utc>>,
    /// Earliest time of the next attempt; `None` while it runs and once it is settled.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Time at which it was put on the stream; `None` while it waits for the requeue job and once it is settled.
    pub enqueued_at: Option<DateTime<Utc>>,
    /// End of its lease; `None` unless it is running.
    pub lease_until: Option<DateTime<Utc>>,
    /// Worker of the latest attempt.
    pub worker: Option<String>,
    /// The batch of its event, if the event failed in the batch.
    pub parent_id: Option<Uuid>,
    /// For a batch, the tasks of its events that failed.
    pub children: Option<Vec<Uuid>>,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
    /// The id of the request that posted it.
    pub request_id: Option<String>,
}

/// A failed attempt.
#[derive(ToSchema)]
#[schema(as = FailedAttempt)]
#[expect(dead_code, reason = "describes pulse_core::Attempt")]
struct AttemptSchema {
    /// Number of the attempt, from 1.
    attempt: i64,
    /// When it failed.
    at: DateTime<Utc>,
    /// Why, as a code.
    reason: String,
    /// Why, as a text.
    error: String,
}

/// A state in which an administrator can list and cancel tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Accepted; no attempt has started.
    Pending,
    /// A worker holds its lease, or the lease has expired.
    Running,
    /// Waits for the next attempt.
    Retrying,
    /// Dead-lettered.
    Dead,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Running, Self::Retrying, Self::Dead];

    /// The name, as the database and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
        }
    }
}

/// Conditions on unsettled and dead tasks, combined with AND.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Ids of tasks; `None` matches all.
    pub ids: Option<Vec<Uuid>>,
    /// States.
    pub states: Vec<TaskState>,
    /// Owner of the events; `None` matches all.
    pub user_id: Option<i64>,
    /// Reason of the last failed attempt; `None` matches all.
    pub reason: Option<String>,
    /// The group of this error, as in [`DeadGroup`](crate::console::DeadGroup); `None` matches all.
    pub error_group: Option<String>,
    /// Beginning of the error of the last failed attempt; `None` matches all.
    pub error_prefix: Option<String>,
    /// Name of the first event; `None` matches all.
    pub event_name: Option<String>,
    /// Accepted at or after this time; `None` matches all.
    pub since: Option<DateTime<Utc>>,
}

/// Maximum number of ids in the text of a filter.
const SHOWN_IDS: usize = 10;

impl Display for TaskFilter {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "state:{}", self.state_names().join(","))?;
        if let Some(ids) = &self.ids {
            let shown: Vec<String> = ids.iter().take(SHOWN_IDS).map(Uuid::to_string).collect();
            write!(formatter, " id:{}", shown.join(","))?;
            if ids.len() > SHOWN_IDS {
                write!(formatter, " and {} more", ids.len() - SHOWN_IDS)?;
            }
        }
        if let Some(user_id) = self.user_id {
            write!(formatter, " user_id:{user_id}")?;
        }
        let texts = [("reason", &self.reason), ("group", &self.error_group), ("error", &self.error_prefix)];
        for (key, text) in texts.into_iter().chain([("event", &self.event_name)]) {
            if let Some(text) = text {
                write!(formatter, " {key}:{text}")?;
            }
        }
        if let Some(since) = self.since {
            write!(formatter, " since:{}", since.to_rfc3339_opts(SecondsFormat::Secs, true))?;
        }
        Ok(())
    }
}

impl TaskFilter {
    /// The names of the states.
    pub(crate) fn state_names(&self) -> Vec<&'static str> {
        self.states.iter().map(|state| state.as_str()).collect()
    }

    /// Whether unsettled tasks can match. Otherwise `tasks` must not be read, because it is as large as the backlog.
    pub(crate) fn has_unsettled(&self) -> bool {
        self.states.iter().any(|state| *state != TaskState::Dead)
    }

    /// Whether dead tasks can match.
    pub(crate) fn has_dead(&self) -> bool {
        self.states.contains(&TaskState::Dead)
    }

    /// The tables that can have matching tasks: whether each is `dead_tasks`.
    pub(crate) fn tables(&self) -> Vec<bool> {
        let tables = [(false, self.has_unsettled()), (true, self.has_dead())];
        tables.into_iter().filter(|(_, matches)| *matches).map(|(is_dead, _)| is_dead).collect()
    }

    /// The last id before the matching tasks.
    pub(crate) fn start(&self) -> Uuid {
        Uuid::from_u128(self.since.map_or(Uuid::nil(), first_id_of).as_u128().saturating_sub(1))
    }
}

/// An unsettled or dead task, in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ListedTask {
    /// Id of the task.
    pub id: Uuid,
    /// `pending`, `running`, `retrying` or `dead`.
    pub state: String,
    /// The `sub` of its user; `None` if the user was deleted.
    pub user: Option<String>,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// Ids of its events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// Number of attempts started.
    pub attempts: i32,
    /// Maximum number of attempts.
    pub max_attempts: i32,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// Time at which it was dead-lettered.
    pub dead_at: Option<DateTime<Utc>>,
    /// Reason of the last failed attempt.
    pub reason: Option<String>,
    /// Error of the last failed attempt.
    pub error: Option<String>,
}

/// A statement that lists the matching rows of a table.
macro_rules! list_tasks {
    ($table:literal, $state:literal, $dead_at:literal, $order:literal, $filter:expr, $limit:expr $(,)?) => {
        sqlx::query_as!(
            ListedTask,
            "SELECT id, "
                + $state
                + r#" AS "state!", (SELECT subject FROM users WHERE users.id = user_id) AS user, kind,
                event_ids, attempts, max_attempts, created_at, "#
                + $dead_at
                + r#" AS "dead_at?",
                errors -> -1 ->> 'reason' AS reason, errors -> -1 ->> 'error' AS error
             FROM "#
                + $table
                + " AS listed
             WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND "
                + $state
                + " = ANY ($2::text[])
                   AND ($3::bigint IS NULL OR user_id = $3)
                   AND ($4::text IS NULL OR errors -> -1 ->> 'reason' = $4)
                   AND ($6::text IS NULL OR error_group(errors -> -1 ->> 'error') = $6)
                   AND ($7::text IS NULL OR starts_with(errors -> -1 ->> 'error', $7)) AND id > $8
                   AND ($9::text IS NULL OR $9 = (
                       SELECT event_name FROM events WHERE events.id = event_ids[1] AND events.created_at = listed.created_at))
             ORDER BY "
                + $order
                + " LIMIT $5",
            $filter.ids.as_deref(),
            &$filter.state_names() as &[&str],
            $filter.user_id,
            $filter.reason.as_deref(),
            $limit,
            $filter.error_group.as_deref(),
            $filter.error_prefix.as_deref(),
            $filter.start(),
            $filter.event_name.as_deref(),
        )
    };
}

impl Store {
    /// Returns a task of the user, or of any user for `None`; `None` if the task does not exist or has another owner.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_task(&self, user_id: Option<i64>, id: Uuid) -> Result<Option<TaskStatus>, StoreError> {
        let task = sqlx::query_as!(
            TaskStatus,
            r#"
            SELECT id AS "id!", user_id AS "user_id!", kind AS "kind!", task_state(lease_until, attempts) AS "state!",
                   event_ids AS "event_ids!", attempts + (lease_until IS NOT NULL)::int AS "attempts!", max_attempts,
                   errors AS "errors!: Json<Vec<Attempt>>", created_at AS "created_at!", started_at,
                   NULL::timestamptz AS settled_at,
                   CASE WHEN lease_until IS NULL THEN run_at END AS next_run_at, enqueued_at, lease_until, worker,
                   parent_id, NULL::uuid[] AS children, traceparent, request_id
            FROM tasks WHERE id = $2 AND ($1::bigint IS NULL OR user_id = $1)
            UNION ALL
            SELECT id, user_id, kind, 'dead', event_ids, attempts, max_attempts, errors, created_at, started_at, dead_at,
                   NULL, NULL, NULL, worker, parent_id, NULL, traceparent, request_id
            FROM dead_tasks WHERE id = $2 AND ($1::bigint IS NULL OR user_id = $1)
            UNION ALL
            SELECT id, user_id, kind,
                   CASE WHEN EXISTS (SELECT FROM tasks WHERE tasks.id = ANY (children)) THEN 'retrying'
                        WHEN EXISTS (SELECT FROM dead_tasks WHERE dead_tasks.id = ANY (children)) THEN 'dead'
                        WHEN EXISTS (SELECT FROM settled_tasks_by_id(children) AS child
                                     WHERE child.outcome = 'cancelled') THEN 'cancelled'
                        ELSE outcome END,
                   event_ids, attempts, NULL, errors, created_at, started_at, settled_at,
                   NULL, NULL, NULL, worker, parent_id, children, traceparent, request_id
            FROM settled_tasks_by_id(ARRAY[$2]) WHERE $1::bigint IS NULL OR user_id = $1
            LIMIT 1
            "#,
            user_id,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(task)
    }

    /// Lists at most `limit` tasks: unsettled ones, newest first, then dead ones, latest dead first.
    ///
    /// # Errors
    /// [`StoreError::StatementLimit`] if the filter matches too few of many tasks; [`StoreError::Unavailable`] if PostgreSQL
    /// does not answer.
    pub async fn list_tasks(&self, filter: &TaskFilter, limit: i64) -> Result<Vec<ListedTask>, StoreError> {
        let filter = &self.with_children(filter).await?;
        let mut tasks = Vec::new();
        if filter.has_unsettled() {
            // Ids are UUIDv7, so their order is that of acceptance.
            let unsettled = list_tasks!(
                "tasks",
                "task_state(lease_until, attempts)",
                "NULL::timestamptz",
                "id DESC",
                filter,
                limit
            );
            tasks = unsettled.fetch_all(&self.pool).await?;
        }
        if filter.has_dead() {
            let limit = limit.saturating_sub_unsigned(tasks.len() as u64);
            let dead = list_tasks!("dead_tasks", "'dead'", "dead_at", "dead_at DESC, id DESC", filter, limit);
            tasks.extend(dead.fetch_all(&self.pool).await?);
        }
        Ok(tasks)
    }

    /// The filter with the ids of the children: what is done with a batch is done with the tasks of its events that failed.
    pub(crate) async fn with_children(&self, filter: &TaskFilter) -> Result<TaskFilter, StoreError> {
        let mut filter = filter.clone();
        if let Some(ids) = &mut filter.ids {
            let children =
                sqlx::query_scalar!(r#"SELECT unnest(children) AS "id!" FROM settled_tasks_by_id($1)"#, ids.as_slice())
                    .fetch_all(&self.pool)
                    .await?;
            ids.extend(children);
        }
        Ok(filter)
    }
}
