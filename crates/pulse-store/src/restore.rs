//! Rows from the archive, back in their tables.

use std::time::Duration;

use chrono::NaiveDate;

use crate::connection::Store;
use crate::error::StoreError;
use crate::retention::MonthlyTable;

impl Store {
    /// Makes room for rows from the archive: the month is neither archived again nor dropped for the time of `keep`.
    /// `last_id` is that of the archive's last event, so that new events get greater ids.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn restore_month(
        &self,
        table: MonthlyTable,
        month: NaiveDate,
        keep: Duration,
        last_id: i64,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT restore_month_partition($1, $2, make_interval(secs => $3), $4)",
            table.as_str(),
            month,
            keep.as_secs_f64(),
            last_id,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Inserts rows from the archive, apart from those that exist. Users who do not exist are created. Returns the number
    /// of new rows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn restore_rows(&self, table: MonthlyTable, lines: &[String]) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "INSERT INTO users (subject)
             SELECT DISTINCT line::jsonb ->> 'subject' FROM unnest($1::text[]) AS line
             WHERE line::jsonb ->> 'subject' IS NOT NULL
             ON CONFLICT (subject) DO NOTHING",
            lines,
        )
        .execute(&mut *transaction)
        .await?;
        let restored = match table {
            MonthlyTable::Events => {
                sqlx::query!(
                    "INSERT INTO events (id, user_id, event_name, event_type, source, session_id, payload, properties, ip_address,
                                         user_agent, event_timestamp, created_at, processed, processed_at, processing_error,
                                         task_id)
                     SELECT row.id, users.id, event_name, event_type, source, session_id, payload, properties, ip_address,
                            user_agent, event_timestamp, row.created_at, processed, processed_at, processing_error, task_id
                     FROM unnest($1::text[]) AS line
                          CROSS JOIN LATERAL jsonb_populate_record(NULL::events, line::jsonb) AS row
                          JOIN users ON users.subject = line::jsonb ->> 'subject'
                     ON CONFLICT DO NOTHING",
                    lines,
                )
                .execute(&mut *transaction)
                .await?
            }
            MonthlyTable::TaskHistory => {
                sqlx::query!(
                    "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at,
                                               settled_at, worker, parent_id, children, traceparent, request_id)
                     SELECT row.id, kind, users.id, event_ids, outcome, attempts, errors, row.created_at, started_at,
                            settled_at, worker, parent_id, children, traceparent, request_id
                     FROM unnest($1::text[]) AS line
                          CROSS JOIN LATERAL jsonb_populate_record(NULL::task_history, line::jsonb) AS row
                          JOIN users ON users.subject = line::jsonb ->> 'subject'
                     ON CONFLICT DO NOTHING",
                    lines,
                )
                .execute(&mut *transaction)
                .await?
            }
        };
        transaction.commit().await?;
        Ok(restored.rows_affected())
    }
}
