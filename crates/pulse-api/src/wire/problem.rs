//! The shape of a problem, which `pulse-http` writes.

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};

/// Why a request was refused: RFC 9457.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes pulse_http::Problem")]
pub(crate) struct ProblemDocument {
    /// Names the kind of problem.
    r#type: String,
    /// The kind of problem, for a person.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// This problem, for a person.
    detail: String,
    /// The id of the request.
    instance: String,
    /// The kind of problem in snake case, for programs; these stay as they are.
    code: String,
    /// Every wrong value.
    #[schema(nullable = false)]
    errors: Option<Vec<ErrorDocument>>,
}

/// One wrong value.
#[derive(ToSchema)]
#[schema(as = ProblemError)]
#[expect(dead_code, reason = "describes pulse_core::FieldError")]
pub(crate) struct ErrorDocument {
    #[schema(schema_with = location)]
    loc: Vec<Value>,
    /// What is wrong and what would be right.
    msg: String,
    /// The kind of mistake, in snake case.
    r#type: String,
    /// Which item of a batch, from 0.
    #[schema(nullable = false)]
    index: Option<usize>,
}

fn location() -> Array {
    let part = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer]));
    ArrayBuilder::new()
        .description(Some("Where it is: `[\"body\", \"events\", 3, \"event_name\"]`."))
        .items(part)
        .build()
}
