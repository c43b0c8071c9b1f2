//! Accept: inserts events, their tasks and Idempotency-Keys with one statement, `accept.sql`.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use pulse_core::{NewEvent, TextFields};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::acceptance::NewTask;
use crate::error::StoreError;
use crate::idempotency::{KeyColumns, KeyRow};

/// Accepts the tasks whose user is enabled and not locked, and whose Idempotency-Key is new; returns their event ids in the
/// order of the request, and `None` for the other tasks.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    tasks: &[NewTask],
    writer: &str,
) -> Result<Vec<Option<Vec<i64>>>, StoreError> {
    let mut events = EventColumns::default();
    let mut new_tasks = TaskColumns::default();
    let mut new_keys = Vec::new();
    for task in tasks {
        let first_event = position(events.task_id.len() + 1);
        for event in &task.events {
            events.push(task, event);
        }
        let last_event = position(events.task_id.len());
        new_tasks.push(task, first_event, last_event);
        new_keys.extend(task.key.as_ref().map(|key| KeyRow { task, key, first_event, last_event }));
    }
    let keys = KeyColumns::of(new_keys);
    let row = sqlx::query_file!(
        "src/accept.sql",
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
        &new_tasks.user_id,
        &new_tasks.kind as &[&str],
        &new_tasks.max_attempts,
        &new_tasks.traceparent as &[Option<&str>],
        &new_tasks.request_id as &[Option<&str>],
        &new_tasks.bytes,
        &new_tasks.has_key,
        writer,
        &keys.user_id,
        &keys.route as &[&str],
        &keys.key as &[&str],
        &keys.fingerprint as &[&[u8]],
        &keys.task_id,
        &keys.replay as &[&serde_json::Value],
        &keys.first_event,
        &keys.last_event,
        &new_tasks.first_event,
        &new_tasks.last_event,
    )
    .fetch_one(connection)
    .await?;
    let accepted: HashSet<Uuid> = row.accepted.into_iter().collect();
    let mut ids = row.ids.into_iter();
    Ok(tasks
        .iter()
        .map(|task| {
            let event_ids = ids.by_ref().take(task.events.len()).collect();
            accepted.contains(&task.id).then_some(event_ids)
        })
        .collect())
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
        let NewEvent { fields, payload, event_timestamp, .. } = event;
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
    user_id: Vec<i64>,
    kind: Vec<&'a str>,
    max_attempts: Vec<i32>,
    traceparent: Vec<Option<&'a str>>,
    request_id: Vec<Option<&'a str>>,
    bytes: Vec<i64>,
    has_key: Vec<bool>,
    /// First and last of the task's events among all events of the group, from 1.
    first_event: Vec<i32>,
    last_event: Vec<i32>,
}

impl<'a> TaskColumns<'a> {
    fn push(&mut self, task: &'a NewTask, first_event: i32, last_event: i32) {
        self.id.push(task.id);
        self.user_id.push(task.user_id);
        self.kind.push(task.kind.as_str());
        self.max_attempts.push(task.max_attempts);
        self.traceparent.push(task.traceparent.as_deref());
        self.request_id.push(task.request_id.as_deref());
        self.bytes.push(task.bytes().cast_signed());
        self.has_key.push(task.key.is_some());
        self.first_event.push(first_event);
        self.last_event.push(last_event);
    }
}

/// A position in an array of PostgreSQL. A group has far fewer events than an `int` counts.
fn position(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
