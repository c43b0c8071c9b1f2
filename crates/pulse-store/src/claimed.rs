//! Rows of claimed tasks, and their events.

use chrono::{DateTime, Utc};
use pulse_core::{ClaimedTask, Event, TextFields};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;

/// A row of `claim.sql`. Only a claimed task has more than the id.
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) crashed: bool,
    pub(crate) paused: bool,
    pub(crate) user_id: Option<i64>,
    pub(crate) event_ids: Option<Vec<i64>>,
    pub(crate) bytes: Option<i64>,
    pub(crate) attempts: Option<i32>,
    pub(crate) max_attempts: Option<i32>,
    pub(crate) fencing_token: Option<i64>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) parent_id: Option<Uuid>,
    pub(crate) traceparent: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// A claimed task whose events are not read yet.
pub(crate) struct Leased {
    pub(crate) id: Uuid,
    pub(crate) fencing_token: i64,
    user_id: i64,
    event_ids: Vec<i64>,
    /// `events.task_id`: the task that the events were posted with.
    posted_with: Uuid,
    task: ClaimedTask,
}

impl Row {
    /// The claimed task; `None` if the task was not claimed.
    pub(crate) fn claimed(self) -> Option<Leased> {
        match self {
            Self {
                id,
                crashed: _,
                paused: _,
                user_id: Some(user_id),
                event_ids: Some(event_ids),
                bytes: Some(bytes),
                attempts: Some(attempts),
                max_attempts: Some(max_attempts),
                fencing_token: Some(fencing_token),
                created_at: Some(created_at),
                parent_id,
                traceparent,
                request_id,
            } => Some(Leased {
                id,
                fencing_token,
                user_id,
                posted_with: parent_id.unwrap_or(id),
                task: ClaimedTask {
                    id,
                    events: Vec::with_capacity(event_ids.len()),
                    bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                    attempt: u32::try_from(attempts).unwrap_or(u32::MAX).saturating_add(1),
                    max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
                    fencing_token,
                    created_at,
                    traceparent,
                    request_id,
                },
                event_ids,
            }),
            _ => None,
        }
    }
}

/// Reads the events of the tasks. Events that were deleted are missing.
///
/// The events of a task are one short range of either index of one partition, because they were inserted together with
/// ascending ids. Looked up by id, each of them would be searched among all events that its user posted in the same
/// commit.
pub(crate) async fn read_events(
    connection: &mut PgConnection,
    tasks: Vec<Leased>,
) -> Result<Vec<ClaimedTask>, StoreError> {
    let users: Vec<i64> = tasks.iter().map(|task| task.user_id).collect();
    let times: Vec<DateTime<Utc>> = tasks.iter().map(|task| task.task.created_at).collect();
    let first: Vec<i64> = tasks.iter().map(|task| task.event_ids.first().copied().unwrap_or(0)).collect();
    let last: Vec<i64> = tasks.iter().map(|task| task.event_ids.last().copied().unwrap_or(0)).collect();
    let posted_with: Vec<Uuid> = tasks.iter().map(|task| task.posted_with).collect();
    let rows = sqlx::query!(
        r#"SELECT wanted.position AS "position!", events.id, events.user_id, event_name, event_type, source, session_id,
                  payload::text AS "payload!", ip_address, user_agent, event_timestamp, events.created_at
           FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::uuid[]) WITH ORDINALITY
                AS wanted (user_id, created_at, first_event, last_event, task_id, position)
           JOIN events ON events.user_id = wanted.user_id AND events.created_at = wanted.created_at
                          AND events.id BETWEEN wanted.first_event AND wanted.last_event
                          AND events.task_id = wanted.task_id
           ORDER BY wanted.position, events.id"#,
        &users,
        &times,
        &first,
        &last,
        &posted_with,
    )
    .fetch_all(connection)
    .await?;
    let mut claimed: Vec<ClaimedTask> = tasks.into_iter().map(|task| task.task).collect();
    for row in rows {
        let position = usize::try_from(row.position - 1).unwrap_or(usize::MAX);
        let Some(task) = claimed.get_mut(position) else { continue };
        task.events.push(Event {
            id: row.id,
            task_id: task.id,
            user_id: row.user_id,
            fields: TextFields {
                event_name: row.event_name,
                event_type: row.event_type,
                source: row.source,
                session_id: row.session_id,
                ip_address: row.ip_address,
                user_agent: row.user_agent,
            },
            payload: row.payload,
            event_timestamp: row.event_timestamp,
            created_at: row.created_at,
        });
    }
    Ok(claimed)
}
