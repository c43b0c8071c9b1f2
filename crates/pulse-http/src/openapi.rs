//! The parts of OpenAPI 3.1 documents that all of them share: problem details.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Object, OpenApi, Ref, RefOr};

use crate::problem_code::ProblemCode;

/// An error response, as in RFC 9457.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes Problem")]
pub struct ProblemDocument {
    /// URI of the problem type; ends with `code`.
    r#type: String,
    /// Text of the HTTP status.
    title: String,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and what to do. The text may change; use `code` in programs.
    detail: String,
    /// Id of the request.
    instance: String,
    /// Stable code of the problem type, in snake case.
    code: String,
    /// All invalid values; absent if the problem is not about values.
    #[schema(nullable = false)]
    errors: Option<Vec<ErrorDocument>>,
}

/// An invalid value.
#[derive(ToSchema)]
#[schema(as = ProblemError)]
#[expect(dead_code, reason = "describes pulse_core::FieldError")]
pub struct ErrorDocument {
    #[schema(schema_with = location)]
    loc: Vec<Value>,
    /// What is wrong, and which values are valid.
    msg: String,
    /// Stable code of the error type, in snake case.
    r#type: String,
    /// Index of the item in a batch, from 0; absent outside a batch.
    #[schema(nullable = false)]
    index: Option<usize>,
}

fn location() -> Array {
    let part = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer]));
    ArrayBuilder::new()
        .description(Some("Path to the value, for example `[\"body\", \"events\", 3, \"event_name\"]`."))
        .items(part)
        .build()
}

/// Adds the security scheme `bearer`; `scopes` says what the claim `scope` has.
pub fn add_bearer(document: &mut OpenApi, scopes: &str) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(format!("The claims `exp` and `sub` are required. {scopes}")))
        .build();
    document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
}

/// One response for each status of the codes.
pub fn problems(codes: impl IntoIterator<Item = ProblemCode>) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<StatusCode, Vec<ProblemCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(code);
    }
    let response = |(status, codes): (StatusCode, Vec<_>)| (status.as_str().to_owned(), problem(status, &codes).into());
    by_status.into_iter().map(response).collect()
}

fn problem(status: StatusCode, codes: &[ProblemCode]) -> Response {
    let line = |code: &ProblemCode| format!("* `{}`: {}.", code.as_str(), code.meaning());
    let lines: Vec<_> = codes.iter().map(line).collect();
    let example = codes.first().map(|code| {
        json!({
            "type": code.type_uri(), "title": code.title(), "status": status.as_u16(), "code": code.as_str(),
            "detail": "what is wrong: what to do", "instance": "0193a0b1-7c3e-7cc2-9d5e-0a4b5c6d7e8f",
        })
    });
    let body =
        ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemDocument::name()))).example(example).build();
    let response = ResponseBuilder::new()
        .description(lines.join("\n"))
        .content("application/problem+json", body)
        .header("X-Request-Id", text_header("Id of the request."));
    match status {
        StatusCode::UNAUTHORIZED => response.header("WWW-Authenticate", text_header("Authentication scheme.")),
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            response.header("Retry-After", text_header("Seconds to wait before the next request."))
        }
        _ => response,
    }
    .build()
}

/// A header with a text.
pub fn text_header(description: &str) -> Header {
    let schema: Object = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
