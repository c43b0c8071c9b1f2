//! The facts of the instance that a task may wait for: scheduler, workers, and the tasks before it.

use chrono::{DateTime, Utc};

use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of due tasks, the oldest ones, that are searched for leases, or for those before a task.
const SEARCHED: i64 = 10_000;
/// Maximum number of workers, and of names of sessions.
const WORKERS: i64 = 1000;

/// What PostgreSQL knows of an instance.
#[derive(Debug, Clone)]
pub struct InstanceFacts {
    /// End of the scheduler's lease, in the past if no scheduler renews it; `None` if none ever ran.
    pub scheduler_until: Option<DateTime<Utc>>,
    /// The jobs `recover` and `requeue`.
    pub jobs: Vec<JobFacts>,
    /// `application_name` of each session of the roles, also of this one. Empty if a pooler hides them.
    pub sessions: Vec<String>,
    /// Workers with leases, among the 10,000 oldest due tasks.
    pub leased: Vec<LeasedFacts>,
    /// The unleased tasks that were due before the task, at most 10,000, by user: first its own user, then those with the
    /// most, 10 in all.
    pub before: Vec<UserBacklog>,
}

/// The last run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Name of the job.
    pub name: String,
    /// Time at which the last run was due.
    pub last_run_at: DateTime<Utc>,
    /// `succeeded` or `failed`; `None` until a run has ended.
    pub last_outcome: Option<String>,
}

/// A worker with leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedFacts {
    /// Name of the worker.
    pub worker: String,
    /// Number of its in-flight tasks.
    pub tasks: i64,
    /// Its oldest claim of them.
    pub oldest_claim: DateTime<Utc>,
    /// Its newest claim of them.
    pub newest_claim: DateTime<Utc>,
    /// The latest end of a lease: 30 s after the newest claim or heartbeat.
    pub lease_until: DateTime<Utc>,
}

/// Tasks of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserBacklog {
    /// The user's number.
    pub user_id: i64,
    /// The `sub` of the user; `None` if the user was deleted.
    pub user: Option<String>,
    /// Number of tasks.
    pub tasks: i64,
    /// Number of tasks of all users, also of those that are not listed; 10,000 is as many or more.
    pub total: i64,
}

impl Store {
    /// Reads what a task of `user_id` that was due at `due_at` may wait for.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn instance_facts(&self, user_id: i64, due_at: DateTime<Utc>) -> Result<InstanceFacts, StoreError> {
        let scheduler_until = sqlx::query_scalar!("SELECT expires_at FROM leases WHERE name = 'scheduler'")
            .fetch_optional(&self.pool)
            .await?;
        let jobs = sqlx::query_as!(
            JobFacts,
            "SELECT name, last_run_at, last_outcome FROM jobs WHERE name IN ('recover', 'requeue') ORDER BY name"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(InstanceFacts {
            scheduler_until,
            jobs,
            sessions: self.sessions().await?,
            leased: self.leased().await?,
            before: self.backlog_before(user_id, due_at).await?,
        })
    }

    async fn sessions(&self) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar!(
            r#"SELECT DISTINCT application_name AS "name!" FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE 'pulse %' ORDER BY 1 LIMIT $1"#,
            WORKERS,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(names)
    }

    async fn leased(&self) -> Result<Vec<LeasedFacts>, StoreError> {
        let leased = sqlx::query_as!(
            LeasedFacts,
            r#"SELECT worker AS "worker!", count(*) AS "tasks!", min(started_at) AS "oldest_claim!",
                      max(started_at) AS "newest_claim!", max(lease_until) AS "lease_until!"
               FROM (SELECT worker, started_at, lease_until FROM tasks
                     WHERE run_at <= now() ORDER BY run_at LIMIT $1) AS due
               WHERE lease_until IS NOT NULL GROUP BY worker ORDER BY worker LIMIT $2"#,
            SEARCHED,
            WORKERS,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(leased)
    }

    async fn backlog_before(&self, user_id: i64, due_at: DateTime<Utc>) -> Result<Vec<UserBacklog>, StoreError> {
        let users = sqlx::query_as!(
            UserBacklog,
            r#"SELECT user_id AS "user_id!", (SELECT subject FROM users WHERE users.id = user_id) AS user, tasks AS "tasks!",
                      sum(tasks) OVER ()::bigint AS "total!"
               FROM (SELECT user_id, count(*) AS tasks
                     FROM (SELECT user_id FROM tasks
                           WHERE run_at < $2 AND run_at <= now() AND lease_until IS NULL
                           ORDER BY run_at DESC LIMIT $3) AS due
                     GROUP BY user_id) AS counted
               ORDER BY user_id <> $1, tasks DESC, user_id LIMIT 10"#,
            user_id,
            due_at,
            SEARCHED,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users)
    }
}
