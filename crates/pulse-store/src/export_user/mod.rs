//! Export of a user: all rows of the user as JSON, a chunk at a time.
//!
//! Each chunk is one statement, bounded by rows and by bytes, so no transaction lasts and the memory is bounded, however
//! slowly the rows are read on. What changes meanwhile is exported as it is when its chunk is read. Unsettled tasks come before
//! dead and settled ones, because that is how tasks move: one that moves is exported twice and not left out.

mod statements;

use chrono::{DateTime, Utc};
use statements::Reader;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::user_rows::UserRows;
use crate::users::User;

/// Maximum number of rows in a chunk. PostgreSQL writes the JSON of all of them, also if the chunk ends earlier.
const MAX_ROWS: i64 = 256;
/// Number of rows of the first chunk, and of one after a smaller one.
const MIN_ROWS: i64 = 32;
/// Number of pages of each partition of `task_history` that one statement reads: 256 KiB.
const HISTORY_PAGES: i64 = 32;

/// Rows of one table, each as the JSON object of PostgreSQL's `row_to_json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedRows {
    /// Name of the table.
    pub table: &'static str,
    /// At most 256, and one more than 4 MiB hold.
    pub rows: Vec<String>,
}

/// A running export of one user.
pub struct UserExport {
    store: Store,
    user_id: i64,
    place: Place,
    limit: i64,
    rows: UserRows,
}

/// Where the next chunk begins: a table, and the last exported key of it.
enum Place {
    User,
    Events(Option<(DateTime<Utc>, i64)>),
    Tasks(Option<(DateTime<Utc>, Uuid)>),
    DeadTasks(Option<Uuid>),
    History { pages: i64, from: i64, after: Option<(Uuid, DateTime<Utc>)> },
    Keys(Option<(String, String)>),
    End,
}

impl Store {
    /// Begins an export of all rows of a user, disabled or not.
    pub fn export_user(&self, user: &User) -> UserExport {
        let (store, rows) = (self.clone(), UserRows::default());
        UserExport { store, user_id: user.id, place: Place::User, limit: MIN_ROWS, rows }
    }
}

impl UserExport {
    /// Numbers of the rows that were exported until now.
    pub fn rows(&self) -> &UserRows {
        &self.rows
    }

    /// Reads the next chunk, which may be empty; `None` after the last one.
    ///
    /// # Errors
    /// [`StoreError`]; calling this again continues.
    pub async fn next_chunk(&mut self) -> Result<Option<ExportedRows>, StoreError> {
        loop {
            let (rows, next) = match self.step().await {
                // Large rows after small ones.
                Err(StoreError::StatementLimit(_)) if self.limit > 1 => {
                    self.limit = (self.limit / 8).max(1);
                    continue;
                }
                step => step?,
            };
            // PostgreSQL then writes the JSON of few rows for which the chunk has no room.
            self.limit = i64::try_from(2 * rows.len()).unwrap_or(MAX_ROWS).clamp(MIN_ROWS, MAX_ROWS);
            let Some((table, count)) = self.place.count(&mut self.rows) else { return Ok(None) };
            *count += rows.len() as u64;
            self.place = next;
            return Ok(Some(ExportedRows { table, rows }));
        }
    }

    /// Reads rows, and says where the next chunk begins. A table ends with an empty chunk.
    async fn step(&self) -> Result<(Vec<String>, Place), StoreError> {
        let reader = Reader { store: &self.store, user_id: self.user_id, limit: self.limit };
        Ok(match &self.place {
            Place::User => (reader.user().await?, Place::Events(None)),
            Place::Events(after) => {
                let (rows, last) = reader.events(*after).await?;
                (rows, last.map_or(Place::Tasks(None), |last| Place::Events(Some(last))))
            }
            Place::Tasks(after) => {
                let (rows, last) = reader.tasks(*after).await?;
                (rows, last.map_or(Place::DeadTasks(None), |last| Place::Tasks(Some(last))))
            }
            Place::DeadTasks(after) => match reader.dead_tasks(*after).await? {
                (rows, Some(last)) => (rows, Place::DeadTasks(Some(last))),
                (rows, None) => (rows, Place::history(self.store.history_pages().await?, 0)),
            },
            Place::History { pages, from, after } => {
                let (rows, last) = reader.history(*from, *from + HISTORY_PAGES, *after).await?;
                let same_pages = last.map(|last| Place::History { pages: *pages, from: *from, after: Some(last) });
                (rows, same_pages.unwrap_or_else(|| Place::history(*pages, *from + HISTORY_PAGES)))
            }
            Place::Keys(after) => {
                let (rows, last) = reader.keys(after.as_ref()).await?;
                (rows, last.map_or(Place::End, |last| Place::Keys(Some(last))))
            }
            Place::End => (Vec::new(), Place::End),
        })
    }
}

impl Place {
    /// The range of pages of `task_history` that begins at `from`, or what follows the table.
    fn history(pages: i64, from: i64) -> Self {
        if from < pages { Self::History { pages, from, after: None } } else { Self::Keys(None) }
    }

    /// The table, and the number of its rows; `None` at the end.
    fn count<'a>(&self, rows: &'a mut UserRows) -> Option<(&'static str, &'a mut u64)> {
        Some(match self {
            Self::User => ("users", &mut rows.users),
            Self::Events(_) => ("events", &mut rows.events),
            Self::Tasks(_) => ("tasks", &mut rows.tasks),
            Self::DeadTasks(_) => ("dead_tasks", &mut rows.dead_tasks),
            Self::History { .. } => ("task_history", &mut rows.task_history),
            Self::Keys(_) => ("idempotency_keys", &mut rows.idempotency_keys),
            Self::End => return None,
        })
    }
}
