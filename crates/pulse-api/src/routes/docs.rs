//! The OpenAPI document, and a documentation page that loads no external resources.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

const DOCUMENT: &str = "/api/v1/openapi.json";

pub(crate) fn router(document: &OpenApi) -> Router {
    let document = Bytes::from(document.to_json().expect("the document is made of strings and numbers"));
    // Without "none", the page sends the document to an external validator.
    let page = SwaggerUi::new("/docs").config(Config::from(DOCUMENT).validator_url("none"));
    Router::new()
        .route(DOCUMENT, get(async move || ([(header::CONTENT_TYPE, "application/json")], document.clone())))
        .merge(page)
}
