//! Accept: inserts events and their task with one statement.

use chrono::{DateTime, Utc};
use pulse_core::{NewEvent, TextFields};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::acceptance::NewTask;
use crate::error::StoreError;

/// Inserts events, tasks and the running total; returns the event ids of each task, in order.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    tasks: &[&NewTask],
    writer: &str,
) -> Result<Vec<Vec<i64>>, StoreError> {
    let mut events = EventColumns::default();
    let mut new_tasks = TaskColumns::default();
    for task in tasks {
        new_tasks.push(task);
        for event in &task.events {
            events.push(task, event);
        }
    }
    let rows = sqlx::query!(
        r#"
        WITH new_events AS (
            INSERT INTO events (user_id, task_id, event_name, event_type, source, session_id, payload,
                                ip_address, user_agent, event_timestamp, created_at)
            SELECT user_id, task_id, event_name, event_type, source, session_id, payload::jsonb,
                   ip_address, user_agent, coalesce(event_timestamp, now()), now()
            FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                        $8::text[], $9::text[], $10::timestamptz[])
                 AS posted (user_id, task_id, event_name, event_type, source, session_id, payload,
                            ip_address, user_agent, event_timestamp)
            RETURNING id, task_id
        ), grouped AS (
            SELECT task_id, array_agg(id ORDER BY id) AS event_ids FROM new_events GROUP BY task_id
        ), new_tasks AS (
            INSERT INTO tasks (id, kind, user_id, max_attempts, traceparent, request_id, event_ids)
            SELECT id, kind, user_id, max_attempts, traceparent, request_id, grouped.event_ids
            FROM unnest($11::uuid[], $12::text[], $13::bigint[], $14::int[], $15::text[], $16::text[])
                 AS posted (id, kind, user_id, max_attempts, traceparent, request_id)
            JOIN grouped ON grouped.task_id = posted.id
        ), counted AS (
            INSERT INTO throughput (writer, accepted) VALUES ($17, cardinality($11::uuid[]))
            ON CONFLICT (writer) DO UPDATE
            SET accepted = throughput.accepted + excluded.accepted, updated_at = now()
        )
        SELECT task_id AS "task_id!", event_ids AS "event_ids!" FROM grouped
        "#,
        &events.user_id,
        &events.task_id,
        &events.event_name as &[&str],
        &events.event_type as &[&str],
        &events.source as &[Option<&str>],
        &events.session_id as &[Option<&str>],
        &events.payload as &[&str],
        &events.ip_address as &[Option<&str>],
        &events.user_agent as &[Option<&str>],
        &events.event_timestamp as &[Option<DateTime<Utc>>],
        &new_tasks.id,
        &new_tasks.kind as &[&str],
        &new_tasks.user_id,
        &new_tasks.max_attempts,
        &new_tasks.traceparent as &[Option<&str>],
        &new_tasks.request_id as &[Option<&str>],
        writer,
    )
    .fetch_all(connection)
    .await?;
    let mut by_task: std::collections::HashMap<Uuid, Vec<i64>> =
        rows.into_iter().map(|row| (row.task_id, row.event_ids)).collect();
    Ok(tasks.iter().map(|task| by_task.remove(&task.id).expect("each task was inserted with its events")).collect())
}

/// Columns of the events of a group. Identity ids follow this order.
#[derive(Default)]
struct EventColumns<'a> {
    user_id: Vec<i64>,
    task_id: Vec<Uuid>,
    event_name: Vec<&'a str>,
    event_type: Vec<&'a str>,
    source: Vec<Option<&'a str>>,
    session_id: Vec<Option<&'a str>>,
    payload: Vec<&'a str>,
    ip_address: Vec<Option<&'a str>>,
    user_agent: Vec<Option<&'a str>>,
    event_timestamp: Vec<Option<DateTime<Utc>>>,
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, task: &NewTask, event: &'a NewEvent) {
        let NewEvent { fields, payload, event_timestamp } = event;
        let TextFields { event_name, event_type, source, session_id, ip_address, user_agent } = fields;
        self.user_id.push(task.user_id);
        self.task_id.push(task.id);
        self.event_name.push(event_name);
        self.event_type.push(event_type);
        self.source.push(source.as_deref());
        self.session_id.push(session_id.as_deref());
        self.payload.push(payload);
        self.ip_address.push(ip_address.as_deref());
        self.user_agent.push(user_agent.as_deref());
        self.event_timestamp.push(*event_timestamp);
    }
}

/// Columns of the tasks of a group.
#[derive(Default)]
struct TaskColumns<'a> {
    id: Vec<Uuid>,
    kind: Vec<&'a str>,
    user_id: Vec<i64>,
    max_attempts: Vec<i32>,
    traceparent: Vec<Option<&'a str>>,
    request_id: Vec<Option<&'a str>>,
}

impl<'a> TaskColumns<'a> {
    fn push(&mut self, task: &'a NewTask) {
        self.id.push(task.id);
        self.kind.push(task.kind.as_str());
        self.user_id.push(task.user_id);
        self.max_attempts.push(task.max_attempts);
        self.traceparent.push(task.traceparent.as_deref());
        self.request_id.push(task.request_id.as_deref());
    }
}
