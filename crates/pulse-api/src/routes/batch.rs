//! `POST /api/v1/events/batch`: several events, one task.

use axum::extract::State;
use axum::response::Response;
use pulse_core::TaskKind;
use pulse_http::{Problem, ProblemCode};

use crate::body::{ParsedBatch, parse_batch};
use crate::error::bad_body;
use crate::openapi::{Accepted, PostHeaders, PostProblems};
use crate::prefer::Handling;
use crate::routes::commit::{Receipt, accepted, commit, to_values};
use crate::routes::post::Post;
use crate::state::AppState;
use crate::wire::{BatchAccepted, BatchDocument, Extras, Lenient};

/// Namespace of the Idempotency-Keys of this route.
const ROUTE: &str = "POST /api/v1/events/batch";

/// Post several events
///
/// The events are accepted together and processed by one task. One invalid item rejects the whole batch; the response
/// lists the errors of all items. With `Prefer: handling=lenient`, the valid items are accepted, and `results` has the
/// result of each item.
///
/// An event that is too large is an invalid item: the response is 422 with its index and the type `event_too_large`,
/// not 413 as for a single event. A body that is too large gives 413.
#[utoipa::path(
    post,
    path = "/api/v1/events/batch",
    tag = "events",
    params(PostHeaders),
    request_body = BatchDocument,
    responses(Accepted<BatchAccepted>, PostProblems),
)]
pub(crate) async fn submit_batch(State(state): State<AppState>, post: Post) -> Result<Response, Problem> {
    submit(&state, post).await.inspect_err(|problem| state.metrics.reject(problem.code(), 1))
}

async fn submit(state: &AppState, post: Post) -> Result<Response, Problem> {
    let handling = post.handling;
    let batch = parse_batch(&post.body, &state.event_limits, state.max_batch, handling).map_err(bad_body)?;
    let ParsedBatch { items, events, warnings, rejected } = batch;
    state.metrics.reject(ProblemCode::ValidationError, rejected.len() as u64);
    let lenient = if handling == Handling::Lenient {
        let rejected = rejected.iter().map(|(index, errors)| Ok((*index, to_values(errors)?)));
        Some(Lenient { items, rejected: rejected.collect::<Result<_, Problem>>()? })
    } else {
        None
    };
    let extras = Extras { warnings: to_values(&warnings)?, lenient };
    let receipt = commit(state, post, ROUTE, TaskKind::ProcessEventsBatch, events, extras).await?;
    let Receipt { task_id, event_ids, extras, replayed, rate_limit } = receipt;
    let answer = BatchAccepted::new(task_id, event_ids, extras);
    Ok(accepted(answer, replayed, handling.applied(), rate_limit))
}
