//! Group commit: while a commit is in flight, the next requests wait in a channel and then go into one statement. There
//! is no timer, so an idle server adds no latency. A caller gets its answer after the COMMIT. If PostgreSQL refuses a
//! group, its members are committed one by one, so that a bad row affects only its sender. If the connection is lost,
//! the outcome is unknown: the caller gets [`StoreError::Unavailable`] or [`StoreError::TimedOut`], and no statement is
//! sent twice. A committer that panics is restarted with a new connection; the outcome of its group is unknown too.

use std::sync::Arc;

use pulse_core::TRACE;
use pulse_core::defaults::API_DEDICATED;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::{Instrument, Span};

use crate::accept::insert;
use crate::acceptance::{AcceptError, Acceptance, KeyConflict, NewTask};
use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;
use crate::refusal;
use crate::supervisor::{TaskHealth, supervise};

/// Number of events from which a group is complete.
const GROUP_EVENTS: usize = 128;
/// Maximum number of waiting requests; further ones fail with [`AcceptError::Overloaded`].
const QUEUE: usize = 4096;

/// Accepts tasks. Cheap to clone; its connections close when the last clone is dropped.
#[derive(Clone)]
pub struct Acceptor {
    requests: mpsc::Sender<Request>,
    health: AcceptorHealth,
}

/// Health of an acceptor, for the probes. Cheap to clone.
#[derive(Clone)]
pub struct AcceptorHealth(Arc<[TaskHealth]>);

impl AcceptorHealth {
    /// Returns why the acceptor is not live, or `None` if it is.
    pub fn problem(&self) -> Option<String> {
        let failing = self.0.iter().filter(|committer| !committer.is_live()).count();
        (failing > 0).then(|| format!("{failing} committers panic again and again: restart the process"))
    }
}

struct Request {
    task: NewTask,
    span: Span,
    reply: oneshot::Sender<Result<Acceptance, AcceptError>>,
}

impl Acceptor {
    /// Starts one committer per dedicated connection on the current tokio runtime. `writer` is the name of this process
    /// in the running totals, and must be unique.
    pub fn start(store: &Store, writer: &str) -> Self {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        let start = |number| {
            let (name, health) = (format!("{writer}/accept-{number}"), TaskHealth::default());
            let committer = Committer {
                store: store.clone(),
                requests: receiver.clone(),
                writer: name.clone(),
                health: health.clone(),
            };
            let supervised = health.clone();
            tokio::spawn(async move { supervise(&name, supervised, || committer.clone().run()).await });
            health
        };
        Self { requests, health: AcceptorHealth((0..API_DEDICATED).map(start).collect()) }
    }

    /// Returns the health of the acceptor, for the probes.
    pub fn health(&self) -> AcceptorHealth {
        self.health.clone()
    }

    /// Commits the task and its events, and returns after the COMMIT. Dropping the future does not stop the commit.
    ///
    /// # Errors
    /// [`AcceptError`]. After [`StoreError::Unavailable`], [`StoreError::TimedOut`] and [`AcceptError::Interrupted`]
    /// the outcome is unknown: the task may be committed.
    pub async fn accept(&self, task: NewTask) -> Result<Acceptance, AcceptError> {
        let (reply, answer) = oneshot::channel();
        let span = tracing::debug_span!(target: TRACE, "accept");
        self.requests.try_send(Request { task, span: span.clone(), reply }).map_err(|error| match error {
            TrySendError::Full(_) => AcceptError::Overloaded,
            TrySendError::Closed(_) => AcceptError::Interrupted,
        })?;
        answer.instrument(span).await.unwrap_or(Err(AcceptError::Interrupted))
    }
}

/// Commits groups of requests on one dedicated connection.
#[derive(Clone)]
struct Committer {
    store: Store,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    writer: String,
    health: TaskHealth,
}

impl Committer {
    /// Runs until all senders are dropped. A panic drops the replies of the current group, so each sender gets an
    /// error.
    async fn run(self) {
        let mut connection = self.store.dedicated_connection();
        loop {
            // One committer gathers at a time; the others commit meanwhile.
            let group = gather(&mut *self.requests.lock().await).await;
            if group.is_empty() {
                return;
            }
            let span = span_of(&group);
            let (tasks, replies): (Vec<_>, Vec<_>) =
                group.into_iter().map(|request| (request.task, request.reply)).unzip();
            let results = commit_group(&mut connection, &tasks, &self.writer).instrument(span).await;
            for (reply, result) in replies.into_iter().zip(results) {
                // A failed send means that the client hung up. The commit stays.
                let _ = reply.send(result);
            }
            self.health.record_progress();
        }
    }
}

/// Waits for one request, then takes those that wait already. Empty when all senders are dropped.
async fn gather(requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let Some(first) = requests.recv().await else { return Vec::new() };
    let mut events = first.task.events.len();
    let mut group = vec![first];
    while events < GROUP_EVENTS
        && let Ok(request) = requests.try_recv()
    {
        events += request.task.events.len();
        group.push(request);
    }
    group
}

/// The span of the statement that accepts these requests. Each belongs to another trace, so it is linked.
fn span_of(group: &[Request]) -> Span {
    let span = tracing::debug_span!(target: TRACE, parent: None, "commit", requests = group.len());
    for request in group {
        span.follows_from(&request.span);
    }
    span
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

/// Commits `tasks` with one statement. Those that it does not accept are answered by a second one.
async fn commit(
    connection: &mut DedicatedConnection,
    tasks: &[NewTask],
    writer: &str,
) -> Result<Vec<Result<Acceptance, AcceptError>>, StoreError> {
    connection
        .run(async |connection| {
            let accepted = insert(connection, tasks, writer).await?;
            let not_accepted = tasks.iter().zip(&accepted).filter_map(|(task, ids)| ids.is_none().then_some(task));
            let not_accepted: Vec<&NewTask> = not_accepted.collect();
            let mut answers = match not_accepted.as_slice() {
                [] => Vec::new(),
                not_accepted => refusal::answers(connection, not_accepted).await?,
            }
            .into_iter();
            let result = |event_ids| match event_ids {
                Some(event_ids) => Ok(Acceptance::Accepted { event_ids }),
                None => answers.next().expect("each task that is not accepted has an answer"),
            };
            Ok(accepted.into_iter().map(result).collect())
        })
        .await
}

#[cfg(test)]
mod tests {
    use pulse_core::TaskKind;
    use uuid::Uuid;

    use super::*;

    fn task() -> NewTask {
        NewTask {
            id: Uuid::nil(),
            user_id: 1,
            kind: TaskKind::ProcessEvent,
            events: Vec::new(),
            max_attempts: 3,
            traceparent: None,
            request_id: None,
            key: None,
        }
    }

    #[tokio::test]
    async fn request_is_interrupted_if_its_reply_is_dropped_and_overloaded_if_the_queue_is_full() {
        let (requests, mut receiver) = mpsc::channel(1);
        let acceptor = Acceptor { requests, health: AcceptorHealth(Arc::new([])) };
        let (first, second, ()) = tokio::join!(acceptor.accept(task()), acceptor.accept(task()), async {
            drop(receiver.recv().await);
        });
        assert!(matches!(first, Err(AcceptError::Interrupted)), "{first:?}");
        assert!(matches!(second, Err(AcceptError::Overloaded)), "{second:?}");
        drop(receiver);
        let closed = acceptor.accept(task()).await;
        assert!(matches!(closed, Err(AcceptError::Interrupted)), "{closed:?}");
    }
}
