//! The OpenAPI 3.1 document, made from the code: the routes and types describe themselves, and this adds what they share.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Object, ObjectBuilder, OpenApi as OpenApiDocument, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, ToSchema};

use crate::routes::documented;
use crate::wire::{BatchAccepted, ErrorDocument, EventAccepted, ItemResult, ProblemDocument, Status, WarningDocument};

/// The OpenAPI document of all routes.
pub fn openapi() -> OpenApiDocument {
    documented().into_openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "PulseBoard Ingest",
        description = "Post events and read them back. A 202 means that the event and its task are committed in \
                       PostgreSQL. Tasks run at least once; their effect in PostgreSQL happens exactly once.",
    ),
    components(schemas(
        BatchAccepted, EventAccepted, ErrorDocument, ProblemDocument, ItemResult, WarningDocument, Status
    )),
    tags(
        (name = "events", description = "What you post."),
        (name = "tasks", description = "The work that is owed for it."),
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
pub(crate) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApiDocument) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "`exp` and `sub` are required. Scopes are in `scope`: `events:write` to post, `events:read` to read; \
                 a token without `scope` has both.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The headers that every request may have.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what pulse-http reads")]
pub(crate) struct ReadHeaders {
    /// Names the request in answers, tasks, logs and traces: 1 to 128 letters, digits, `.`, `_` or `-`. Anything else, or
    /// nothing, is replaced by an id of ours.
    #[param(rename = "X-Request-Id", value_type = String, required = false)]
    request_id: Option<String>,
}

/// The headers that a request with events may have.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what the handlers read")]
pub(crate) struct PostHeaders {
    /// Your name for this request, 1 to 255 visible ASCII characters. For 24 hours, the same key with the same body
    /// repeats the first answer and stores nothing.
    #[param(
        rename = "Idempotency-Key", value_type = String, required = false,
        min_length = 1, max_length = 255, pattern = "^[!-~]{1,255}$",
    )]
    idempotency_key: Option<String>,
    /// `handling=strict` refuses unknown fields. `handling=lenient` accepts the good items of a batch, whatever the others
    /// are. Other preferences are ignored.
    #[param(rename = "Prefer", value_type = String, required = false, example = "handling=lenient")]
    prefer: Option<String>,
    /// Names the request in answers, tasks, logs and traces: 1 to 128 letters, digits, `.`, `_` or `-`. Anything else, or
    /// nothing, is replaced by an id of ours.
    #[param(rename = "X-Request-Id", value_type = String, required = false)]
    request_id: Option<String>,
    /// The W3C trace context that the processing is linked to; a malformed one is ignored.
    #[param(value_type = String, required = false)]
    traceparent: Option<String>,
}

/// The 202 with the body `T`.
pub(crate) struct Accepted<T>(std::marker::PhantomData<T>);

impl<T: ToSchema> IntoResponses for Accepted<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
        let task = LinkBuilder::new()
            .operation_id("get_task")
            .parameter("task_id", "$response.body#/task_id")
            .description("What became of it.")
            .build();
        let response = ResponseBuilder::new()
            .description("Committed, and told to a worker.")
            .content("application/json", body)
            .header("X-Request-Id", text_header("The id of the request."))
            .header("Idempotency-Replayed", text_header("`true` if this repeats an earlier answer."))
            .header("Preference-Applied", text_header("The preference that was honoured."))
            .link("task", task)
            .build();
        BTreeMap::from([("202".to_owned(), response.into())])
    }
}

const UNAUTHORIZED: Refusal =
    Refusal(401, "missing_token", "No token, or one that is not valid: `missing_token`, `invalid_token`.");
const FORBIDDEN: Refusal = Refusal(
    403,
    "insufficient_scope",
    "The token lacks the scope, or its user may not: `insufficient_scope`, `unknown_user`, `user_disabled`, `user_gone`.",
);
const INVALID: Refusal =
    Refusal(422, "validation_error", "A value is not valid: `validation_error`, `invalid_cursor`.");
const UNAVAILABLE: Refusal = Refusal(
    503,
    "unavailable",
    "PostgreSQL is away, or we are overloaded: `unavailable`, `overloaded`, `request_timeout`. Send the request again.",
);

/// How a POST of events can be refused.
pub(crate) struct PostProblems;

impl IntoResponses for PostProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            Refusal(
                400,
                "malformed_json",
                "The body is not JSON, or a header is malformed: `malformed_json`, `invalid_idempotency_key`, `incomplete_body`.",
            ),
            UNAUTHORIZED,
            FORBIDDEN,
            Refusal(408, "body_timeout", "The body did not arrive in time."),
            Refusal(
                409,
                "idempotency_key_in_progress",
                "The first request with this Idempotency-Key is still running.",
            ),
            Refusal(
                413,
                "body_too_large",
                "The body or the single event is too large: `body_too_large`, `event_too_large`. An event of a batch is 422.",
            ),
            Refusal(
                415,
                "unsupported_media_type",
                "The body is not said to be JSON, or is encoded: `unsupported_media_type`, `unsupported_encoding`.",
            ),
            Refusal(
                422,
                "validation_error",
                "A value is not valid; `errors` lists them all: `validation_error`, `batch_too_large`, \
                 `idempotency_key_reused`, `refused`.",
            ),
            UNAVAILABLE,
        ])
    }
}

/// How a read can be refused.
pub(crate) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[UNAUTHORIZED, FORBIDDEN, UNAVAILABLE])
    }
}

/// How a read with parameters can be refused.
pub(crate) struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[UNAUTHORIZED, FORBIDDEN, INVALID, UNAVAILABLE])
    }
}

/// How a read by id can be refused.
pub(crate) struct FindProblems;

impl IntoResponses for FindProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let missing =
            Refusal(404, "event_not_found", "You have nothing with this id: `event_not_found`, `task_not_found`.");
        problems(&[UNAUTHORIZED, FORBIDDEN, missing, INVALID, UNAVAILABLE])
    }
}

/// A status, the code of the example, and what it means.
struct Refusal(u16, &'static str, &'static str);

fn problems(refusals: &[Refusal]) -> BTreeMap<String, RefOr<Response>> {
    refusals.iter().map(|refusal| (refusal.0.to_string(), problem(refusal).into())).collect()
}

fn problem(Refusal(status, code, description): &Refusal) -> Response {
    let title = axum::http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
    let example = json!({
        "type": format!("https://pulseboard.dev/problems/{code}"), "title": title, "status": status,
        "detail": "what is wrong and what to do", "instance": "0193a0b1-7c3e-7cc2-9d5e-0a4b5c6d7e8f", "code": code,
    });
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ProblemDocument::name())))
        .example(Some(example))
        .build();
    let response = ResponseBuilder::new()
        .description(*description)
        .content("application/problem+json", body)
        .header("X-Request-Id", text_header("The id of the request."));
    match status {
        401 => response.header("WWW-Authenticate", text_header("How to authenticate.")),
        409 | 503 => response.header("Retry-After", text_header("Seconds to wait before the next try.")),
        _ => response,
    }
    .build()
}

fn text_header(description: &str) -> utoipa::openapi::Header {
    let schema: Object = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(openapi()).expect("serialises")
    }

    #[test]
    fn every_route_of_the_contract_is_documented() {
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
    fn every_reference_leads_somewhere() {
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
