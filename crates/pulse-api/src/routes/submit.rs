//! `POST /api/v1/events`: one event.

use axum::extract::State;
use axum::response::Response;
use pulse_core::TaskKind;
use pulse_http::Problem;

use crate::body::parse_single;
use crate::error::bad_body;
use crate::openapi::{Accepted, PostHeaders, PostProblems};
use crate::prefer::Handling;
use crate::routes::commit::{Receipt, accepted, commit, to_values};
use crate::routes::post::Post;
use crate::state::AppState;
use crate::wire::{EventAccepted, EventDocument, Extras};

/// Namespace of the Idempotency-Keys of this route.
const ROUTE: &str = "POST /api/v1/events";

/// Post an event
///
/// The response is sent after the event and its task are committed. After a 503 or a lost connection, the outcome is
/// unknown: send the request again with the same Idempotency-Key, and the event is stored only once.
#[utoipa::path(
    post,
    path = "/api/v1/events",
    tag = "events",
    params(PostHeaders),
    request_body = EventDocument,
    responses(Accepted<EventAccepted>, PostProblems),
)]
pub(crate) async fn submit_event(State(state): State<AppState>, post: Post) -> Result<Response, Problem> {
    submit(&state, post).await.inspect_err(|problem| state.metrics.reject(problem.code(), 1))
}

async fn submit(state: &AppState, post: Post) -> Result<Response, Problem> {
    let handling = post.handling;
    let (event, warnings) = parse_single(&post.body, &state.event_limits, handling).map_err(bad_body)?;
    let extras = Extras { warnings: to_values(&warnings)?, lenient: None };
    let receipt = commit(state, post, ROUTE, TaskKind::ProcessEvent, vec![event], extras).await?;
    let Receipt { task_id, event_ids, extras, replayed, rate_limit } = receipt;
    let answer = EventAccepted::new(task_id, event_ids[0], extras);
    // Lenient handling applies only to batches.
    let preference = handling.applied().filter(|_| handling == Handling::Strict);
    Ok(accepted(answer, replayed, preference, rate_limit))
}
