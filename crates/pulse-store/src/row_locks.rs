//! Finds the tasks that other transactions keep from being settled.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;
use crate::settlement::Settlement;

/// Locks the rows of the tasks and of the events that settling updates, without waiting. Returns the tasks of which another
/// transaction has locked a row; a row that does not exist is not locked.
pub(crate) async fn locked(
    connection: &mut PgConnection,
    settlements: &[&Settlement],
) -> Result<HashSet<Uuid>, StoreError> {
    let tasks: Vec<Uuid> = settlements.iter().map(|settlement| settlement.task_id).collect();
    let locked_tasks = sqlx::query_scalar!(
        "WITH free AS (SELECT id FROM tasks WHERE id = ANY ($1) FOR UPDATE SKIP LOCKED)
         SELECT id FROM tasks WHERE id = ANY ($1) AND (id IN (SELECT id FROM free)) IS NOT TRUE",
        &tasks,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut events: Vec<(Uuid, i64, DateTime<Utc>)> = Vec::new();
    for settlement in settlements.iter().filter(|settlement| settlement.updates_events()) {
        events.extend(settlement.event_ids.iter().map(|id| (settlement.task_id, *id, settlement.created_at)));
    }
    let ids: Vec<i64> = events.iter().map(|(_, id, _)| *id).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|(_, _, time)| *time).collect();
    let locked_events = sqlx::query_scalar!(
        "WITH free AS (
             SELECT events.id FROM unnest($1::bigint[], $2::timestamptz[]) AS wanted (id, created_at)
             JOIN events ON events.id = wanted.id AND events.created_at = wanted.created_at
             FOR NO KEY UPDATE OF events SKIP LOCKED
         )
         SELECT events.id FROM unnest($1::bigint[], $2::timestamptz[]) AS wanted (id, created_at)
         JOIN events ON events.id = wanted.id AND events.created_at = wanted.created_at
         WHERE (events.id IN (SELECT id FROM free)) IS NOT TRUE",
        &ids,
        &times,
    )
    .fetch_all(connection)
    .await?;
    let locked_events: HashSet<i64> = locked_events.into_iter().collect();
    let of_events = events.iter().filter(|(_, id, _)| locked_events.contains(id)).map(|(task, ..)| *task);
    Ok(locked_tasks.into_iter().chain(of_events).collect())
}
