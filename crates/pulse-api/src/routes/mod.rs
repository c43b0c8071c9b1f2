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
use utoipa::openapi::OpenApi as OpenApiDocument;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi::Document;
use crate::state::AppState;

/// Builds the router of the API, if `docs` with the OpenAPI document and its documentation page.
pub fn router(state: AppState, docs: bool) -> Router {
    let (routes, document) = documented().split_for_parts();
    let routes = routes.with_state(state);
    if docs { routes.merge(docs::router(&document)) } else { routes }
}

/// Builds the OpenAPI document of all routes.
pub fn openapi() -> OpenApiDocument {
    documented().into_openapi()
}

/// Builds the routes of the OpenAPI document. Each also answers with a slash at the end of its path, where FastAPI
/// redirected: some clients always write one, and to follow a redirect they send the body twice.
fn documented() -> OpenApiRouter<AppState> {
    let routes = [
        routes!(list::list_events, submit::submit_event),
        routes!(batch::submit_batch),
        routes!(unprocessed::count_unprocessed),
        routes!(event::get_event),
        routes!(task::get_task),
    ];
    routes.into_iter().fold(OpenApiRouter::with_openapi(Document::openapi()), |router, route| {
        let (_, paths, methods) = &route;
        let with_slash: Vec<_> = paths.paths.keys().map(|path| (format!("{path}/"), methods.clone())).collect();
        with_slash.into_iter().fold(router.routes(route), |router, (path, methods)| router.route(&path, methods))
    })
}

#[cfg(test)]
mod tests {
    use pulse_http::ProblemCode;
    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(openapi()).expect("serialises")
    }

    #[test]
    fn document_has_every_route_with_its_responses() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, method) in [
            ("/api/v1/events", "post"),
            ("/api/v1/events", "get"),
            ("/api/v1/events/batch", "post"),
            ("/api/v1/events/{id}", "get"),
            ("/api/v1/events/status/unprocessed", "get"),
            ("/api/v1/tasks/{task_id}", "get"),
        ] {
            let responses = &document["paths"][path][method]["responses"];
            assert!(responses["503"].is_object(), "{method} {path}");
            assert!(responses["500"].is_null(), "{method} {path}");
        }
    }

    #[test]
    fn document_has_every_code_that_a_client_can_handle() {
        let text = document().to_string();
        use ProblemCode::{ForgedForm, IdNotFound, Internal, MethodNotAllowed, NotFound, ReadOnly, TooManyActs};
        // The last ones are those of the console.
        let outside = [NotFound, MethodNotAllowed, Internal, ReadOnly, ForgedForm, IdNotFound, TooManyActs];
        for code in ProblemCode::all().filter(|code| !outside.contains(code)) {
            assert!(text.contains(&format!("* `{}`: ", code.as_str())), "{code:?}");
        }
    }

    #[test]
    fn document_says_what_is_kept_of_a_payload_and_names_no_pod() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        for schema in ["Event", "StoredEvent"] {
            let text = schemas[schema]["properties"]["payload"]["description"].as_str().unwrap_or_default();
            assert!(text.contains("order") && text.contains("spelling"), "{schema}: {text}");
        }
        assert!(
            schemas["Task"]["properties"]["state"].is_object() && schemas["Task"]["properties"]["worker"].is_null()
        );
    }

    #[test]
    fn document_references_resolve() {
        let document = document();
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.contains(&"#/components/schemas/Problem".to_owned()));
        for reference in references {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect_references(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                into.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| collect_references(field, into));
            }
            Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
            _ => {}
        }
    }
}
