//! The schema of problem details; `pulse-http` writes them.

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};

/// An error response, as in RFC 9457.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes pulse_http::Problem")]
pub(crate) struct ProblemDocument {
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
pub(crate) struct ErrorDocument {
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
