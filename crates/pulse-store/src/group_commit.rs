//! Group commit: while a commit is in flight, the next requests wait in a channel and then go into one statement. There
//! is no timer, so an idle server adds no latency. A caller gets its answer after the COMMIT. If PostgreSQL refuses a
//! group, its members are committed one by one, so that a bad row affects only its sender. If the connection is lost, the
//! outcome is unknown: the caller gets [`StoreError::Unavailable`] or [`StoreError::TimedOut`], and no statement is sent twice.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::accept::insert;
use crate::acceptance::{AcceptError, Acceptance, KeyConflict, NewTask};
use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;
use crate::idempotency;

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
    /// [`AcceptError`]. After [`StoreError::Unavailable`] and [`StoreError::TimedOut`] the outcome is unknown: the task may
    /// be committed.
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
        Err(error) => tasks.iter().map(|task| Err(refusal(task, error.clone()))).collect(),
    }
}

/// With a key, a lock time-out means that the first request with this key is still running.
fn refusal(task: &NewTask, error: StoreError) -> AcceptError {
    match error {
        StoreError::Locked(_) if task.key.is_some() => KeyConflict::InProgress.into(),
        other => other.into(),
    }
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
