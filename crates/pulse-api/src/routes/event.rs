//! `GET /api/v1/events/{id}`: one event of the user.

use axum::Json;
use axum::extract::State;
use pulse_http::{Problem, ProblemCode};

use crate::auth::Reader;
use crate::error::{not_found, store_failed};
use crate::limits::RateLimitFields;
use crate::openapi::{FindProblems, ReadHeaders};
use crate::routes::path::EventId;
use crate::state::AppState;
use crate::wire::{EventAnswer, StoredEventDocument};

/// Read an event
///
/// Events of other users give 404.
#[utoipa::path(
    get,
    path = "/api/v1/events/{id}",
    tag = "events",
    params(
        ("id" = i64, Path, description = "Id of the event.", minimum = 1, maximum = 9_223_372_036_854_775_807_i64),
        ReadHeaders,
    ),
    responses((status = OK, description = "The event.", body = StoredEventDocument), FindProblems),
)]
pub(crate) async fn get_event(
    State(state): State<AppState>,
    reader: Reader,
    EventId(id): EventId,
) -> Result<(RateLimitFields, Json<EventAnswer>), Problem> {
    let event = state.store.find_event(reader.user_id, id).await.map_err(store_failed)?;
    let event = event.ok_or_else(|| not_found(ProblemCode::EventNotFound, "event"))?;
    Ok((state.limits.fields(&reader.usage), Json(event.into())))
}
