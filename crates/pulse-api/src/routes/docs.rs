//! The OpenAPI document, and a documentation page that loads no external resources.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
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
        .merge(Router::from(page).layer(map_response(allow_own_resources)))
}

/// Lets browsers load the page's scripts, styles and images, which other responses forbid.
async fn allow_own_resources(mut response: Response) -> Response {
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
