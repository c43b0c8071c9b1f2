//! Accepts parsed events: commits them with their task, then enqueues the task.

use std::time::Instant;

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pulse_core::{NewEvent, TaskKind};
use pulse_http::{HeldBytes, Problem, ProblemCode};
use pulse_queue::Entry;
use pulse_store::{AcceptError, Acceptance, NewKey, NewTask};
use serde::Serialize;
use tracing::Instrument;
use uuid::Uuid;

use crate::error::accept_failed;
use crate::idempotency::{IDEMPOTENCY_REPLAYED, fingerprint};
use crate::limits::{Place, RateLimitFields};
use crate::prefer::PREFERENCE_APPLIED;
use crate::routes::post::Post;
use crate::state::AppState;
use crate::wire::Extras;

/// The committed task, of this request or of an earlier one with the same Idempotency-Key.
pub(crate) struct Receipt {
    pub task_id: Uuid,
    /// Ids in the order of the request.
    pub event_ids: Vec<i64>,
    pub extras: Extras,
    pub replayed: bool,
    pub rate_limit: RateLimitFields,
}

/// Commits `events` with their task, and enqueues the task in Redis, best effort.
///
/// An Idempotency-Key is unique per user and `route`.
pub(crate) async fn commit(
    state: &AppState,
    post: Post,
    route: &'static str,
    kind: TaskKind,
    events: Vec<NewEvent>,
    extras: Extras,
) -> Result<Receipt, Problem> {
    state.limits.take_events(&post.writer.usage, events.len())?;
    let Post { writer, request_id, traceparent, handling, idempotency_key, body, held } = post;
    let key = match idempotency_key {
        Some(key) => {
            let replay = serde_json::to_value(&extras).map_err(|error| Problem::internal().caused_by(error))?;
            Some(NewKey { route, key, fingerprint: fingerprint(&body, handling), replay })
        }
        None => None,
    };
    drop(body);
    let task_id = Uuid::now_v7();
    let task = NewTask {
        id: task_id,
        user_id: writer.user_id,
        kind,
        events,
        max_attempts: state.max_attempts,
        traceparent,
        request_id: Some(request_id.0.as_ref().to_owned()),
        key,
    };
    // A separate tokio task: a client that disconnects stops neither the commit nor the enqueue, and the request is in
    // flight until then.
    let accepting = tokio::spawn(accept_and_enqueue(state.clone(), task, (held, writer.place)).in_current_span());
    let acceptance = match accepting.await.map_err(|error| Problem::internal().caused_by(error))? {
        Ok(acceptance) => acceptance,
        Err(error) => {
            let problem = accept_failed(error);
            if problem.code() == ProblemCode::UserGone {
                state.users.invalidate(&writer.subject).await;
            }
            return Err(problem);
        }
    };
    let rate_limit = state.limits.fields(&writer.usage);
    let receipt = match acceptance {
        Acceptance::Accepted { event_ids } => Receipt { task_id, event_ids, extras, replayed: false, rate_limit },
        Acceptance::Replayed { task_id, event_ids, replay } => {
            let extras = serde_json::from_value(replay).map_err(|error| Problem::internal().caused_by(error))?;
            Receipt { task_id, event_ids, extras, replayed: true, rate_limit }
        }
    };
    let Receipt { task_id, event_ids, replayed, .. } = &receipt;
    tracing::debug!(
        request_id = &*request_id.0,
        %task_id,
        user_id = writer.user_id,
        first_event_id = event_ids.first(),
        events = event_ids.len(),
        replayed,
        "accepted"
    );
    Ok(receipt)
}

/// `_held` is kept until the events are committed, even if the client has gone: their memory, and a place in flight.
async fn accept_and_enqueue(
    state: AppState,
    task: NewTask,
    _held: (HeldBytes, Place),
) -> Result<Acceptance, AcceptError> {
    let (task_id, user_id, bytes) = (task.id, task.user_id, task.bytes());
    let entry = Entry { task_id, user_id, bytes, traceparent: task.traceparent.clone() };
    let started = Instant::now();
    let result = state.acceptor.accept(task).await;
    state.metrics.accept_seconds.observe(started.elapsed().as_secs_f64());
    if let Ok(Acceptance::Accepted { event_ids }) = &result {
        state.publisher.enqueue(entry);
        state.metrics.accepted.inc_by(event_ids.len() as u64);
    }
    result
}

/// Builds the 202 with `Idempotency-Replayed`, `Preference-Applied` and the rate limit.
pub(crate) fn accepted(
    body: impl Serialize,
    replayed: bool,
    preference: Option<HeaderValue>,
    rate_limit: RateLimitFields,
) -> Response {
    let mut response = (StatusCode::ACCEPTED, rate_limit, Json(body)).into_response();
    let headers = response.headers_mut();
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(preference) = preference {
        headers.insert(PREFERENCE_APPLIED, preference);
    }
    response
}

/// Converts warnings and errors to the JSON that is stored with an Idempotency-Key.
pub(crate) fn to_values<T: Serialize>(items: &[T]) -> Result<Vec<serde_json::Value>, Problem> {
    items
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::internal().caused_by(error))
}
