//! Reads the facts. The only file with I/O.

use std::time::Duration;

use pulse_queue::{EntryFacts, Queue};
use pulse_store::{FoundTask, IdKind, Store, StoreError, TaskFacts, TaskFilter, TaskState, TaskStatus};
use tokio::time::timeout;
use uuid::Uuid;

use crate::facts::Facts;

/// Time limit for all statements, which have 5 s each.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Time limit for Redis, whose commands have 2 s each.
const REDIS_TIME_LIMIT: Duration = Duration::from_secs(5);

/// The task that an id names, with its facts.
#[derive(Debug)]
pub struct Found {
    /// What the id names.
    pub kind: IdKind,
    /// The other tasks of the request or of the trace, the newest first, at most 9.
    pub others: Vec<Uuid>,
    /// The facts of the task.
    pub facts: Facts,
}

/// Finds the task of an event, a task, a request or a trace, and reads its facts, within 20 s; `None` if nothing has this
/// id.
///
/// # Errors
/// [`StoreError::StatementLimit`] if the history is too long to search for a request or a trace;
/// [`StoreError::TimedOut`] or [`StoreError::Unavailable`] if PostgreSQL does not answer. A Redis that fails is a fact.
pub async fn gather(store: &Store, queue: &Queue, id: &str) -> Result<Option<Found>, StoreError> {
    let found = timeout(TIME_LIMIT, find(store, queue, id)).await;
    found.unwrap_or(Err(StoreError::TimedOut(TIME_LIMIT)))
}

async fn find(store: &Store, queue: &Queue, id: &str) -> Result<Option<Found>, StoreError> {
    let tasks = store.find_tasks(id).await?;
    let Some(FoundTask { kind, task_id }) = tasks.first().copied() else { return Ok(None) };
    let Some(mut facts) = facts_of(store, queue, task_id).await? else { return Ok(None) };
    let event_id = if kind == IdKind::Event { id.parse().ok() } else { None };
    if let Some(child) = child_of(store, &facts.task.task, event_id).await? {
        facts.child = facts_of(store, queue, child).await?.map(Box::new);
    }
    let others = tasks.into_iter().skip(1).map(|other| other.task_id).collect();
    Ok(Some(Found { kind, others, facts }))
}

async fn facts_of(store: &Store, queue: &Queue, id: Uuid) -> Result<Option<Facts>, StoreError> {
    let Some(before) = store.task_facts(id).await? else { return Ok(None) };
    let enqueued = before.task.enqueued_at;
    let enqueued_ago = enqueued.map(|at| (before.now - at).to_std().unwrap_or_default());
    let reading = timeout(REDIS_TIME_LIMIT, queue.facts(id, before.task.user_id, enqueued_ago));
    let mut queue = match reading.await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", REDIS_TIME_LIMIT.as_secs())),
    };
    // Read again: an entry is missing also because the task was settled meanwhile.
    let Some(task) = store.task_facts(id).await? else { return Ok(None) };
    if task.task.enqueued_at != enqueued
        && let Ok(facts) = &mut queue
    {
        facts.entry = EntryFacts::Unknown;
    }
    let instance = store.instance_facts(task.task.user_id, due_at(&task)).await?;
    Ok(Some(Facts { task, instance, queue, pause: None, child: None }))
}

fn due_at(facts: &TaskFacts) -> chrono::DateTime<chrono::Utc> {
    facts.task.next_run_at.unwrap_or(facts.task.created_at)
}

/// The child on which the state of a split batch depends: that of the event, or an unsettled one, or a dead one.
async fn child_of(store: &Store, batch: &TaskStatus, event_id: Option<i64>) -> Result<Option<Uuid>, StoreError> {
    let Some(children) = batch.children.clone().filter(|children| !children.is_empty()) else { return Ok(None) };
    let limit = i64::try_from(children.len()).unwrap_or(i64::MAX);
    let filter = TaskFilter { ids: Some(children), states: TaskState::ALL.to_vec(), user_id: None, reason: None };
    let open = store.list_tasks(&filter, limit).await?;
    let of_event = open.iter().find(|child| event_id.is_some_and(|id| child.event_ids.contains(&id)));
    Ok(of_event.or(open.first()).map(|child| child.id))
}
