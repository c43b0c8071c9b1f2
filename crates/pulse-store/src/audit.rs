//! The audit log: what administrators did, which migrations were applied, and which keys of tokens came and went. A row is
//! written by the statement, or in the transaction, that does it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Through what an act is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A command of `pulse`.
    Cli,
    /// A page of the console.
    Console,
    /// The JSON of the console.
    Api,
    /// No administrator: a process that found a change.
    Process,
}

impl Via {
    /// The name in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Console => "console",
            Self::Api => "api",
            Self::Process => "process",
        }
    }
}

/// Who acts, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The same for all transactions of this act.
    pub id: Uuid,
    /// Who acts.
    pub actor: String,
    /// Through what.
    pub via: Via,
    /// Why.
    pub reason: Option<String>,
}

impl Act {
    /// A new act.
    pub fn new(actor: String, via: Via, reason: Option<String>) -> Self {
        Self { id: Uuid::now_v7(), actor, via, reason }
    }
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditRow {
    /// Ascending.
    pub id: i64,
    /// The same for all rows of one act.
    pub act: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who acted.
    pub actor: String,
    /// The role of PostgreSQL that wrote the row.
    pub database_role: String,
    /// `cli`, `console`, `api`, or `process` for what no administrator did.
    pub via: String,
    /// What was done, such as `tasks.cancel`.
    pub action: String,
    /// To what.
    pub target: String,
    /// Why.
    pub reason: Option<String>,
    /// Number of tasks, or of deleted rows.
    pub count: i64,
    /// For an act on tasks: `completed`, `stopped`, `failed` (PostgreSQL did not answer) or `interrupted` (its process was
    /// gone).
    pub outcome: Option<String>,
}

impl Store {
    /// Reads at most `limit` rows of the audit log, newest first, beginning below the id `below`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn audit_page(&self, below: Option<i64>, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query_as!(
            AuditRow,
            "SELECT id, act, at, actor, database_role, via, action, target, reason, count, outcome FROM audit_log
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
            below.unwrap_or(i64::MAX),
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}
