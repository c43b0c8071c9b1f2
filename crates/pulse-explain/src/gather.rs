//! Reads the facts. The only file with I/O.

use std::time::Duration;

use pulse_queue::{EntryFacts, Queue};
use pulse_store::console::Matched;
use pulse_store::{Store, StoreError, TaskFacts, TaskFilter, TaskState, TaskStatus};
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
    pub matched: Matched,
    /// The other tasks of the request or of the trace, the newest first, at most 49.
    pub others: Vec<Uuid>,
    /// The facts of the task.
    pub facts: Facts,
}

/// Finds the newest task of an event, a task, a request or a trace, and reads its facts, within 20 s; `None` if nothing has
/// this id.
///
/// # Errors
/// [`StoreError::TimedOut`] or [`StoreError::Unavailable`] if PostgreSQL does not answer. A Redis that fails is a fact.
pub async fn gather(store: &Store, queue: &Queue, id: &str) -> Result<Option<Found>, StoreError> {
    let found = timeout(TIME_LIMIT, find(store, queue, id)).await;
    found.unwrap_or(Err(StoreError::TimedOut(TIME_LIMIT)))
}

/// Reads the facts of a task within `limit`; `None` if it does not exist.
///
/// # Errors
/// As [`gather`].
pub async fn read(store: &Store, queue: &Queue, id: Uuid, limit: Duration) -> Result<Option<Facts>, StoreError> {
    timeout(limit, with_child(store, queue, id)).await.unwrap_or(Err(StoreError::TimedOut(limit)))
}

async fn find(store: &Store, queue: &Queue, id: &str) -> Result<Option<Found>, StoreError> {
    let hits = store.search(id, None).await?;
    let Some(hit) = hits.first() else { return Ok(None) };
    let Some(facts) = with_child(store, queue, hit.task_id).await? else { return Ok(None) };
    let others = hits.iter().skip(1).map(|other| other.task_id).collect();
    Ok(Some(Found { matched: hit.matched, others, facts }))
}

async fn with_child(store: &Store, queue: &Queue, id: Uuid) -> Result<Option<Facts>, StoreError> {
    let Some(mut facts) = facts_of(store, queue, id).await? else { return Ok(None) };
    if let Some(child) = child_of(store, &facts.task.task).await? {
        facts.child = facts_of(store, queue, child).await?.map(Box::new);
    }
    Ok(Some(facts))
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
    Ok(Some(Facts { task, instance, queue, pause: store.find_pause().await?, child: None }))
}

fn due_at(facts: &TaskFacts) -> chrono::DateTime<chrono::Utc> {
    facts.task.next_run_at.unwrap_or(facts.task.created_at)
}

/// The child on which the state of a split batch depends: an unsettled one, or a dead one.
async fn child_of(store: &Store, batch: &TaskStatus) -> Result<Option<Uuid>, StoreError> {
    let Some(children) = batch.children.clone().filter(|children| !children.is_empty()) else { return Ok(None) };
    let states = TaskState::ALL.to_vec();
    let filter = TaskFilter { ids: Some(children), states, ..TaskFilter::default() };
    Ok(store.list_tasks(&filter, 1).await?.first().map(|child| child.id))
}
