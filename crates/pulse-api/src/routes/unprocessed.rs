//! `GET /api/v1/events/status/unprocessed`: counts the user's events that are not processed.

use axum::Json;
use axum::extract::State;
use pulse_http::Problem;

use crate::auth::Reader;
use crate::error::store_failed;
use crate::limits::RateLimitFields;
use crate::openapi::{ReadHeaders, ReadProblems};
use crate::state::AppState;
use crate::wire::UnprocessedAnswer;

/// Count unprocessed events
///
/// Counts the events of the token's user that have `processed: false`: those of unsettled, dead and cancelled tasks.
#[utoipa::path(
    get,
    path = "/api/v1/events/status/unprocessed",
    tag = "events",
    params(ReadHeaders),
    responses((status = OK, description = "Numbers of unprocessed events.", body = UnprocessedAnswer), ReadProblems),
)]
pub(crate) async fn count_unprocessed(
    State(state): State<AppState>,
    reader: Reader,
) -> Result<(RateLimitFields, Json<UnprocessedAnswer>), Problem> {
    let _list = state.limits.admit_list(&reader.usage)?;
    let counts = state.store.count_unprocessed(reader.user_id).await.map_err(store_failed)?;
    Ok((state.limits.fields(&reader.usage), Json(counts.into())))
}
