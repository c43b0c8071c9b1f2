//! What erasure and export of a user share: the tables with rows of users, and how to read `task_history`.

use serde::Serialize;

use crate::connection::Store;
use crate::error::StoreError;

/// Numbers of rows of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "these are the names of the tables")]
pub struct UserRows {
    pub events: u64,
    pub tasks: u64,
    pub dead_tasks: u64,
    pub task_history: u64,
    pub idempotency_keys: u64,
    pub users: u64,
}

impl UserRows {
    /// The names of the tables, and the number of rows of each.
    pub fn tables(&self) -> [(&'static str, u64); 6] {
        let Self { events, tasks, dead_tasks, task_history, idempotency_keys, users } = *self;
        [
            ("events", events),
            ("tasks", tasks),
            ("dead_tasks", dead_tasks),
            ("task_history", task_history),
            ("idempotency_keys", idempotency_keys),
            ("users", users),
        ]
    }

    /// The number of rows of all tables.
    pub fn total(&self) -> u64 {
        self.tables().iter().map(|(_, rows)| rows).sum()
    }
}

impl Store {
    /// Number of pages of the largest partition of `task_history`.
    ///
    /// The table is read in physical order, a range of pages of all partitions at a time. An index by user would make each
    /// settlement dearer, for ever; the events of the user do not lead to all rows, because older partitions of `events`
    /// may be gone.
    pub(crate) async fn history_pages(&self) -> Result<i64, StoreError> {
        let pages = sqlx::query_scalar!(
            r#"SELECT max(pg_relation_size(relid)) / current_setting('block_size')::bigint AS "pages!"
               FROM pg_partition_tree('task_history') WHERE isleaf"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(pages)
    }
}
