//! Compares the events that were accepted with a 202 to the events in the database.

use std::path::Path;

use serde_json::Value;
use sqlx::{PgPool, Row};

/// Checks the ledger of a load run: each accepted event is stored once, and processed exactly once or dead-lettered.
/// Returns the number of accepted events.
///
/// # Errors
/// If an event is missing, stored twice, settled twice, or neither processed nor dead-lettered.
pub async fn check_ledger(db: &PgPool, file: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(file)?;
    let mut accepted: Vec<i64> = Vec::new();
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line)?;
        accepted.extend(answer["event_id"].as_i64());
        accepted.extend(answer["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_i64));
    }
    let total = accepted.len();
    accepted.sort_unstable();
    accepted.dedup();
    anyhow::ensure!(accepted.len() == total, "an event id was returned twice");
    let row = sqlx::query(
        "SELECT count(*), count(DISTINCT accepted.id), count(*) FILTER (WHERE events.id IS NULL),
                count(*) FILTER (WHERE NOT events.processed AND events.processing_error IS NULL)
         FROM unnest($1::bigint[]) AS accepted (id) LEFT JOIN events ON events.id = accepted.id",
    )
    .bind(&accepted)
    .fetch_one(db)
    .await?;
    let [rows, distinct, missing, open]: [i64; 4] =
        [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
    anyhow::ensure!(rows == distinct, "{} events are stored twice", rows - distinct);
    anyhow::ensure!(missing == 0, "{missing} of {total} accepted events are not stored");
    anyhow::ensure!(open == 0, "{open} of {total} accepted events are neither processed nor dead-lettered");
    let twice = "SELECT count(*) FROM (SELECT id FROM task_history GROUP BY id HAVING count(*) > 1) AS twice";
    let twice: i64 = sqlx::query_scalar(twice).fetch_one(db).await?;
    anyhow::ensure!(twice == 0, "a task was settled twice");
    Ok(total)
}
