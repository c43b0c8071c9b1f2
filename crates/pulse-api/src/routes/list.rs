//! `GET /api/v1/events`: a page of the user's events.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pulse_http::{Holder, Problem};
use pulse_store::{EventPage as StoredPage, PageLimits, PageStart};

use crate::auth::Reader;
use crate::cursor;
use crate::error::{bad_cursor, list_failed, validation};
use crate::openapi::{ListProblems, ReadHeaders};
use crate::query::{ListParams, TextFilters};
use crate::state::AppState;
use crate::wire::EventPage;

const PATH: &str = "/api/v1/events";
/// Size from which a page is complete, in bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Maximum number of events that a page reads: more than the largest offset and the largest page have together.
const PAGE_WALK: i64 = 12_000;

/// List events
///
/// Returns the events of the token's user, newest first. A page may have fewer events than `limit`, even none, although
/// more follow: it ends at about 2 MiB, and after reading 12 000 events that do not match. To read all events, follow
/// `next_cursor` or the `Link` header with `rel="next"` until there is none. Unlike `offset`, a cursor does not become slower with each page and does not repeat events when
/// new ones arrive.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(ListParams, TextFilters, ReadHeaders),
    responses(
        (status = OK, description = "A page of events.", body = EventPage, headers(
            ("Link" = String, description = "URL of the next page, with `rel=\"next\"`; absent on the last page."),
        )),
        ListProblems,
    ),
)]
pub(crate) async fn list_events(
    State(state): State<AppState>,
    reader: Reader,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let params = ListParams::parse(query.as_deref().unwrap_or_default()).map_err(|errors| validation(&errors))?;
    let filter = params.filter();
    let _list = state.limits.admit_list(&reader.usage)?;
    let start = match &params.cursor {
        Some(cursor) => cursor::decode(&filter, cursor).map_err(bad_cursor)?,
        None => PageStart::Offset(params.offset.unwrap_or(0)),
    };
    let limits = PageLimits { events: params.page_size(), bytes: PAGE_BYTES, walk: PAGE_WALK };
    let found = state.store.list_events(reader.user_id, &filter, start, limits).await;
    let StoredPage { events, next, .. } = found.map_err(list_failed)?;
    let next_cursor = next.map(|position| cursor::encode(&filter, position));
    let link = next_cursor.as_deref().map(|cursor| format!("<{PATH}?{}>; rel=\"next\"", params.next_query(cursor)));

    let events = events.into_iter().map(Into::into).collect();
    let page = EventPage { events, limit: limits.events, offset: params.offset.unwrap_or(0), next_cursor };
    let mut response = (state.limits.fields(&reader.usage), Json(page)).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response.extensions_mut().insert(Holder(reader.user_id));
    Ok(response)
}
