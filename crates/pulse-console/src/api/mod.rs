//! The same as JSON, below `/api/v1/admin`. Each handler calls what its page calls.

mod acts;
mod caller;
mod document;
mod reads;
mod wire;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as OpenApiDocument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::document::Document;
use crate::console::Console;

fn documented() -> OpenApiRouter<Console> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(reads::overview))
        .routes(routes!(reads::series))
        .routes(routes!(reads::list_tasks))
        .routes(routes!(reads::get_task))
        .routes(routes!(reads::search))
        .routes(routes!(reads::dead_letters))
        .routes(routes!(reads::workers))
        .routes(routes!(reads::schedules))
        .routes(routes!(reads::queue))
        .routes(routes!(reads::events))
        .routes(routes!(reads::audit))
        .routes(routes!(acts::list_acts, acts::start_act))
        .routes(routes!(acts::get_act))
        .routes(routes!(acts::stop_act))
        .routes(routes!(acts::pause))
        .routes(routes!(acts::resume))
}

/// The OpenAPI document of the JSON routes.
pub fn openapi() -> OpenApiDocument {
    documented().into_openapi()
}

/// The JSON routes, and their document at `/api/v1/admin/openapi.json`.
pub(crate) fn routes() -> Router<Console> {
    let (routes, document) = documented().split_for_parts();
    let document = Bytes::from(document.to_json().expect("the document is made of strings and numbers"));
    let serve = get(async move || ([(header::CONTENT_TYPE, "application/json")], document.clone()));
    routes.route("/api/v1/admin/openapi.json", serve)
}

#[cfg(test)]
mod tests {
    use pulse_http::ProblemCode;

    use super::*;

    #[test]
    fn document_has_each_route_with_its_problems_and_no_fault() {
        let document = serde_json::to_value(openapi()).expect("serialises");
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), 16);
        for (path, methods) in paths {
            for (method, route) in methods.as_object().expect("methods") {
                let responses = &route["responses"];
                assert!(path.starts_with("/api/v1/admin/"), "{path}");
                assert!(responses["401"].is_object() && responses["403"].is_object(), "{method} {path}");
                assert!(responses["503"].is_object() && responses["500"].is_null(), "{method} {path}");
                assert_eq!(responses["409"].is_object(), method == "post", "{method} {path}");
            }
        }
        let text = document.to_string();
        for code in [ProblemCode::ReadOnly, ProblemCode::IdNotFound, ProblemCode::TooManyActs, ProblemCode::Refused] {
            assert!(text.contains(&format!("* `{}`: ", code.as_str())), "{code:?}");
        }
        assert!(!text.contains(ProblemCode::ForgedForm.as_str()), "only pages have forms");
    }
}
