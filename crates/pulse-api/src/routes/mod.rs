//! The routes of the API.

mod batch;
mod commit;
mod docs;
mod event;
mod list;
mod path;
mod post;
mod submit;
mod task;
mod unprocessed;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi::Document;
use crate::state::AppState;

/// Builds the router of the API, with the OpenAPI document and its documentation page.
pub fn router(state: AppState) -> Router {
    let (routes, _) = documented().split_for_parts();
    routes.with_state(state).merge(docs::router())
}

/// Builds the routes of the OpenAPI document.
pub(crate) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list::list_events, submit::submit_event))
        .routes(routes!(batch::submit_batch))
        .routes(routes!(unprocessed::count_unprocessed))
        .routes(routes!(event::get_event))
        .routes(routes!(task::get_task))
}
