//! The rows of a month that is copied to the archive, read in short statements.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::archive::MonthCopy;
use crate::connection::Store;
use crate::error::StoreError;
use crate::retention::MonthlyTable;

/// A row of a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthRow {
    /// Its id: ascending in a copy.
    pub id: String,
    /// Its user.
    pub user_id: i64,
    /// All columns and the user's name (`subject`), as one line of JSON.
    pub line: String,
}

/// Maximum number of rows of a statement.
const CHUNK_ROWS: i64 = 2000;
/// Maximum size of the payloads and properties of a statement as PostgreSQL stores them, compressed, in bytes; the first row
/// may be larger.
const CHUNK_BYTES: i64 = 1024 * 1024;

impl Store {
    /// The next rows of a month after the id of a row (`None`: from the beginning), in the order of their ids. None are
    /// left if there are none.
    pub fn month_rows<'a>(
        &'a self,
        copy: &'a MonthCopy,
        after: Option<&'a str>,
    ) -> BoxStream<'a, Result<MonthRow, StoreError>> {
        match copy.table {
            MonthlyTable::Events => sqlx::query_as!(
                MonthRow,
                r#"WITH sizes AS (
                       SELECT id, created_at, row_number() OVER rows AS position,
                              sum(pg_column_size(payload) + coalesce(pg_column_size(properties), 0)) OVER rows AS bytes
                       FROM events WHERE created_at >= $1 AND created_at < $2 AND id > coalesce($3::text::bigint, 0)
                       WINDOW rows AS (ORDER BY id ROWS UNBOUNDED PRECEDING) ORDER BY id LIMIT $4
                   )
                   SELECT sizes.id::text AS "id!", line.user_id AS "user_id!", row_to_json(line)::text AS "line!"
                   FROM sizes CROSS JOIN LATERAL (
                       SELECT subject, events.* FROM events LEFT JOIN users ON users.id = user_id
                       WHERE events.id = sizes.id AND events.created_at = sizes.created_at
                   ) AS line
                   WHERE bytes <= $5 OR position = 1
                   ORDER BY sizes.id"#,
                copy.from,
                copy.until,
                after,
                CHUNK_ROWS,
                CHUNK_BYTES as f64,
            )
            .fetch(&self.pool)
            .map_err(StoreError::from)
            .boxed(),
            MonthlyTable::TaskHistory => sqlx::query_as!(
                MonthRow,
                r#"SELECT line.id::text AS "id!", line.user_id AS "user_id!", row_to_json(line)::text AS "line!"
                   FROM (SELECT subject, task_history.* FROM task_history LEFT JOIN users ON users.id = user_id
                         WHERE settled_at >= $1 AND settled_at < $2 AND ($3::text IS NULL OR task_history.id > $3::text::uuid)
                         ORDER BY task_history.id LIMIT $4) AS line
                   ORDER BY line.id"#,
                copy.from,
                copy.until,
                after,
                CHUNK_ROWS,
            )
            .fetch(&self.pool)
            .map_err(StoreError::from)
            .boxed(),
        }
    }

    /// Number of rows of a month after one id and up to another (`None`: without that bound).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn count_month_rows(
        &self,
        copy: &MonthCopy,
        after: Option<&str>,
        until: Option<&str>,
    ) -> Result<i64, StoreError> {
        let MonthCopy { from, until: end, .. } = *copy;
        Ok(match copy.table {
            MonthlyTable::Events => {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM events
                       WHERE created_at >= $1 AND created_at < $2 AND ($3::text IS NULL OR id > $3::text::bigint)
                             AND ($4::text IS NULL OR id <= $4::text::bigint)"#,
                    from,
                    end,
                    after,
                    until,
                )
                .fetch_one(&self.pool)
                .await?
            }
            MonthlyTable::TaskHistory => {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM task_history
                       WHERE settled_at >= $1 AND settled_at < $2 AND ($3::text IS NULL OR id > $3::text::uuid)
                             AND ($4::text IS NULL OR id <= $4::text::uuid)"#,
                    from,
                    end,
                    after,
                    until,
                )
                .fetch_one(&self.pool)
                .await?
            }
        })
    }
}
