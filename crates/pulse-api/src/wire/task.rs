//! The JSON of tasks.

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use pulse_store::TaskStatus;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A task: the processing of one event or of one batch.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskAnswer {
    /// Id of the task.
    task_id: Uuid,
    #[schema(value_type = TaskKindDocument)]
    kind: String,
    #[schema(value_type = TaskStateDocument)]
    state: String,
    /// Ids of the events of the task.
    event_ids: Vec<i64>,
    /// Number of attempts started.
    attempts: i32,
    /// Maximum number of attempts; null for a completed, orphaned or cancelled task.
    #[schema(required = true)]
    max_attempts: Option<i32>,
    /// Failed attempts, oldest first.
    #[schema(value_type = Vec<AttemptDocument>)]
    errors: Vec<Attempt>,
    /// When the task was accepted.
    created_at: DateTime<Utc>,
    /// When the latest attempt started; null before the first one.
    #[schema(required = true)]
    started_at: Option<DateTime<Utc>>,
    /// When the task was completed, orphaned, cancelled or dead-lettered; null before.
    #[schema(required = true)]
    settled_at: Option<DateTime<Utc>>,
    /// Earliest time of the next attempt; null unless the task is pending or retrying.
    #[schema(required = true)]
    next_run_at: Option<DateTime<Utc>>,
    /// Time from the start of the latest attempt to `settled_at`, in milliseconds; null before.
    #[schema(required = true)]
    duration_ms: Option<i64>,
    /// For a batch, the ids of the tasks of its events that failed; empty without one. Their states decide that of the batch.
    children: Vec<Uuid>,
    /// For the task of an event that failed in a batch, the id of the batch's task.
    #[schema(required = true)]
    parent_task_id: Option<Uuid>,
    /// Trace id of the request that posted the task.
    #[schema(required = true)]
    trace_id: Option<String>,
    /// Id of the request that posted the task.
    #[schema(required = true)]
    request_id: Option<String>,
}

/// Kind of a task.
#[derive(ToSchema)]
#[schema(as = TaskKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes pulse_core::TaskKind")]
pub(crate) enum TaskKindDocument {
    ProcessEvent,
    ProcessEventsBatch,
}

/// State of a task.
///
/// * `pending`: waits for its first attempt.
/// * `running`: a worker has claimed the task.
/// * `retrying`: an attempt failed, and the task waits for the next one; or a child of the batch is not settled yet.
/// * `completed`: all events were processed.
/// * `orphaned`: its events were deleted with their user.
/// * `cancelled`: an administrator cancelled the task; its events stay unprocessed.
/// * `dead`: failed finally; kept for a retry by an administrator.
#[derive(ToSchema)]
#[schema(as = TaskState, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the states of pulse_store::TaskStatus")]
pub(crate) enum TaskStateDocument {
    Pending,
    Running,
    Retrying,
    Completed,
    Orphaned,
    Cancelled,
    Dead,
}

/// Why an attempt failed.
///
/// * `invalid_payload`: the payload can never be processed; not retried.
/// * `error`: the processor returned an error.
/// * `panic`: the processor panicked.
/// * `timeout`: the attempt took longer than the task time-out.
/// * `constraint`: PostgreSQL rejected the result.
/// * `crash`: the worker died during the attempt.
#[derive(ToSchema)]
#[schema(as = FailureReason, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes pulse_core::FailureReason")]
pub(crate) enum FailureReasonDocument {
    InvalidPayload,
    Error,
    Panic,
    Timeout,
    Constraint,
    Crash,
}

/// A failed attempt.
#[derive(ToSchema)]
#[schema(as = Attempt)]
#[expect(dead_code, reason = "describes pulse_core::Attempt")]
pub(crate) struct AttemptDocument {
    /// Number of the attempt, from 1.
    attempt: u32,
    /// When the attempt failed.
    at: DateTime<Utc>,
    reason: FailureReasonDocument,
    /// Human-readable error message.
    error: String,
}

impl From<TaskStatus> for TaskAnswer {
    fn from(task: TaskStatus) -> Self {
        let TaskStatus {
            id,
            user_id: _,
            kind,
            state,
            event_ids,
            attempts,
            max_attempts,
            errors,
            created_at,
            started_at,
            settled_at,
            next_run_at,
            enqueued_at: _,
            lease_until: _,
            // Names a pod of the cluster, so only `pulse tasks` and logs have it.
            worker: _,
            parent_id,
            children,
            traceparent,
            request_id,
        } = task;
        let duration = started_at.zip(settled_at).map(|(started, settled)| settled - started);
        Self {
            task_id: id,
            kind,
            state,
            event_ids,
            attempts,
            max_attempts,
            errors: errors.0,
            created_at,
            started_at,
            settled_at,
            next_run_at,
            children: children.unwrap_or_default(),
            parent_task_id: parent_id,
            duration_ms: duration.map(|duration| duration.num_milliseconds().max(0)),
            trace_id: traceparent.as_deref().and_then(trace_id).map(str::to_owned),
            request_id,
        }
    }
}

/// Returns the trace id of a W3C `traceparent`: `version-trace_id-parent_id-flags`.
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_id_is_the_second_part_of_traceparent() {
        assert_eq!(
            trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
    }
}
