//! Tasks.

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use pulse_store::TaskStatus;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A task, wherever it is on its way.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskAnswer {
    /// The task's id.
    task_id: Uuid,
    #[schema(value_type = TaskKindDocument)]
    kind: String,
    #[schema(value_type = TaskStateDocument)]
    state: String,
    /// The events that it processes.
    event_ids: Vec<i64>,
    /// Attempts begun.
    attempts: i32,
    /// Attempts that it may take; null once it is settled.
    #[schema(required = true)]
    max_attempts: Option<i32>,
    /// The attempts that failed.
    #[schema(value_type = Vec<AttemptDocument>)]
    errors: Vec<Attempt>,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    /// When the newest attempt began.
    #[schema(required = true)]
    started_at: Option<DateTime<Utc>>,
    /// When it was settled or given up.
    #[schema(required = true)]
    settled_at: Option<DateTime<Utc>>,
    /// When it may run next, unless it runs now or is settled.
    #[schema(required = true)]
    next_run_at: Option<DateTime<Utc>>,
    /// Milliseconds from the start of the newest attempt to its end.
    #[schema(required = true)]
    duration_ms: Option<i64>,
    /// Who worked on it last.
    #[schema(required = true)]
    worker: Option<String>,
    /// The trace of the request that posted it.
    #[schema(required = true)]
    trace_id: Option<String>,
    /// The id of the request that posted it.
    #[schema(required = true)]
    request_id: Option<String>,
}

/// What a task does.
#[derive(ToSchema)]
#[schema(as = TaskKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes pulse_core::TaskKind")]
pub(crate) enum TaskKindDocument {
    ProcessEvent,
    ProcessEventsBatch,
}

/// Where a task is on its way. `gone`: its events were deleted. `buried`: given up, kept for a replay.
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

/// One attempt that failed.
#[derive(ToSchema)]
#[schema(as = Attempt)]
#[expect(dead_code, reason = "describes pulse_core::Attempt")]
pub(crate) struct AttemptDocument {
    /// Which attempt, from 1.
    attempt: u32,
    /// When it failed.
    at: DateTime<Utc>,
    reason: FailureReasonDocument,
    /// For a person.
    error: String,
}

impl From<TaskStatus> for TaskAnswer {
    fn from(task: TaskStatus) -> Self {
        let TaskStatus {
            id,
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
            worker,
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
            duration_ms: duration.map(|duration| duration.num_milliseconds().max(0)),
            worker,
            trace_id: traceparent.as_deref().and_then(trace_id).map(str::to_owned),
            request_id,
        }
    }
}

/// The trace id of a W3C `traceparent`: `version-trace_id-parent_id-flags`.
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_id_is_the_second_part() {
        assert_eq!(
            trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
    }
}
