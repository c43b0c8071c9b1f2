//! The OpenAPI document, and a documentation page that loads no external resources.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// The path of the document, and the one that FastAPI has for it.
const DOCUMENTS: [&str; 2] = ["/api/v1/openapi.json", "/openapi.json"];

pub(crate) fn router(document: &OpenApi) -> Router {
    let document = Bytes::from(document.to_json().expect("the document is made of strings and numbers"));
    let serve = get(async move || ([(header::CONTENT_TYPE, "application/json")], document.clone()));
    // Without "none", the page sends the document to an external validator.
    let page = SwaggerUi::new("/docs").config(Config::from(DOCUMENTS[0]).validator_url("none"));
    let page = Router::from(page).layer(map_response(allow_own_resources));
    DOCUMENTS.iter().fold(page, |router, path| router.route(path, serve.clone()))
}

/// Lets browsers load the page's scripts, styles and images, which other responses forbid.
async fn allow_own_resources(mut response: Response) -> Response {
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
