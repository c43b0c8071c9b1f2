//! Accept: commits events and their task together.
//!
//! *Group commit*: while a commit is in flight, the next requests wait in a channel and then go into one statement. There
//! is no timer, so an idle server adds no latency. A caller gets its answer after the COMMIT. If PostgreSQL refuses a
//! group, its members are committed one by one, so that a bad row affects only its sender. If the connection is lost, the
//! outcome is unknown: the caller gets [`StoreError::Unavailable`], and no statement is sent twice.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use pulse_core::{NewEvent, TaskKind, TextFields};
use sqlx::PgConnection;
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;
use crate::idempotency::{self, KeyConflict, NewKey};

/// Settings of the group commit.
#[derive(Debug, Clone)]
pub struct AcceptConfig {
    /// Number of dedicated connections that commit in parallel.
    pub connections: usize,
    /// A group is complete once it has this many events.
    pub group_events: usize,
    /// Maximum number of waiting requests; further ones fail with [`AcceptError::Overloaded`].
    pub queue: usize,
    /// Name of this process in the running totals. Must be unique.
    pub writer: String,
}

/// A task to accept, with its events.
#[derive(Debug)]
pub struct NewTask {
    /// A UUIDv7.
    pub id: Uuid,
    /// Owner of the events.
    pub user_id: i64,
    /// Whether the client posted one event or a batch.
    pub kind: TaskKind,
    /// In the order of the request. Must not be empty.
    pub events: Vec<NewEvent>,
    /// Maximum number of attempts.
    pub max_attempts: i32,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The client's Idempotency-Key.
    pub key: Option<NewKey>,
}

/// A committed request.
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// Committed by this request.
    Accepted {
        /// In the order of the request.
        event_ids: Vec<i64>,
    },
    /// Committed by an earlier request with the same key and body.
    Replayed {
        /// The earlier task.
        task_id: Uuid,
        /// In the order of the request.
        event_ids: Vec<i64>,
        /// The rest of the earlier answer.
        replay: serde_json::Value,
    },
}

/// A request that was not committed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// See [`KeyConflict`].
    #[error(transparent)]
    Key(#[from] KeyConflict),
    /// The queue is full ([`AcceptConfig::queue`]).
    #[error("too many requests are waiting for PostgreSQL")]
    Overloaded,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Accepts tasks. Cheap to clone; its connections close when the last clone is dropped.
#[derive(Clone)]
pub struct Acceptor {
    requests: mpsc::Sender<Request>,
}

struct Request {
    task: NewTask,
    reply: oneshot::Sender<Result<Acceptance, AcceptError>>,
}

impl Acceptor {
    /// Starts one committer per dedicated connection on the current tokio runtime.
    pub fn start(store: &Store, config: AcceptConfig) -> Self {
        let (requests, receiver) = mpsc::channel(config.queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..config.connections {
            let writer = format!("{}/accept-{number}", config.writer);
            tokio::spawn(run_committer(store.dedicated_connection(), receiver.clone(), config.group_events, writer));
        }
        Self { requests }
    }

    /// Commits the task and its events, and returns after the COMMIT. Dropping the future does not stop the commit.
    ///
    /// # Errors
    /// [`AcceptError`]. After [`StoreError::Unavailable`] the outcome is unknown: the task may be committed.
    pub async fn accept(&self, task: NewTask) -> Result<Acceptance, AcceptError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { task, reply }).map_err(|_| AcceptError::Overloaded)?;
        answer.await.unwrap_or(Err(AcceptError::Overloaded))
    }
}

async fn run_committer(
    mut connection: DedicatedConnection,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    group_events: usize,
    writer: String,
) {
    loop {
        // One committer gathers at a time; the others commit meanwhile.
        let group = gather(&mut *requests.lock().await, group_events).await;
        if group.is_empty() {
            return;
        }
        let (tasks, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|request| (request.task, request.reply)).unzip();
        for (reply, result) in replies.into_iter().zip(commit_group(&mut connection, &tasks, &writer).await) {
            // A failed send means that the client hung up. The commit stays.
            let _ = reply.send(result);
        }
    }
}

/// Waits for one request, then takes those that wait already. Empty when all senders are dropped.
async fn gather(requests: &mut mpsc::Receiver<Request>, group_events: usize) -> Vec<Request> {
    let Some(first) = requests.recv().await else { return Vec::new() };
    let mut events = first.task.events.len();
    let mut group = vec![first];
    while events < group_events
        && let Ok(request) = requests.try_recv()
    {
        events += request.task.events.len();
        group.push(request);
    }
    group
}

async fn commit_group(
    connection: &mut DedicatedConnection,
    tasks: &[NewTask],
    writer: &str,
) -> Vec<Result<Acceptance, AcceptError>> {
    match commit(connection, tasks, writer).await {
        Ok(results) => results,
        Err(error) if error.may_be_split() && tasks.len() > 1 => {
            let mut results = Vec::with_capacity(tasks.len());
            for task in tasks {
                match commit(connection, std::slice::from_ref(task), writer).await {
                    Ok(alone) => results.extend(alone),
                    Err(error) => results.push(Err(refusal(task, error))),
                }
            }
            results
        }
        Err(error) => {
            let shared = error.to_string();
            let mut results: Vec<_> =
                tasks[1..].iter().map(|_| Err(AcceptError::Store(group_error(&shared)))).collect();
            results.insert(0, Err(refusal(&tasks[0], error)));
            results
        }
    }
}

/// With a key, a lock time-out means that the first request with this key is still running.
fn refusal(task: &NewTask, error: StoreError) -> AcceptError {
    match error {
        StoreError::Locked(_) if task.key.is_some() => KeyConflict::InProgress.into(),
        other => other.into(),
    }
}

/// The error of a group, copied for each member.
fn group_error(message: &str) -> StoreError {
    StoreError::Unavailable(sqlx::Error::Protocol(message.to_owned()))
}

/// Commits all of `tasks` in one transaction, which is a single statement unless there are idempotency keys.
async fn commit(
    connection: &mut DedicatedConnection,
    tasks: &[NewTask],
    writer: &str,
) -> Result<Vec<Result<Acceptance, AcceptError>>, StoreError> {
    if tasks.iter().all(|task| task.key.is_none()) {
        let all: Vec<&NewTask> = tasks.iter().collect();
        let ids = connection.run(async |connection| insert(connection, &all, writer).await).await?;
        return Ok(ids.into_iter().map(|event_ids| Ok(Acceptance::Accepted { event_ids })).collect());
    }
    connection.run(async |connection| idempotency::commit_with_keys(connection, tasks, writer).await).await
}

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
