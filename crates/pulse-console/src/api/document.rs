//! The parts of the OpenAPI document that routes share.

use std::collections::BTreeMap;

use pulse_http::{ErrorDocument, ProblemCode, ProblemDocument, add_bearer, problems};
use utoipa::openapi::response::Response;
use utoipa::openapi::{OpenApi as OpenApiDocument, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "PulseBoard Ingest console",
        description = "What the console shows and does, as JSON. A token with the scope `admin` sees and does everything, \
                       one with `events:read` sees the tasks and events of its own user. New fields may be added.",
    ),
    components(schemas(ErrorDocument, ProblemDocument)),
    tags(
        (name = "read", description = "What happens."),
        (name = "act", description = "Retry, cancel, discard, pause, resume. Each act leaves a row in the audit log."),
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
pub(crate) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApiDocument) {
        add_bearer(document, "The claim `scope` has `admin` or `events:read`.");
    }
}

/// Problems of every route.
const COMMON: [ProblemCode; 13] = [
    ProblemCode::InvalidRequest,
    ProblemCode::MissingToken,
    ProblemCode::InvalidToken,
    ProblemCode::InsufficientScope,
    ProblemCode::UserDisabled,
    ProblemCode::UriTooLong,
    ProblemCode::ValidationError,
    ProblemCode::Refused,
    ProblemCode::HeadersTooLarge,
    ProblemCode::UnsupportedTransferCoding,
    ProblemCode::Unavailable,
    ProblemCode::Overloaded,
    ProblemCode::RequestTimeout,
];

/// Problems of the routes that read.
pub(crate) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(COMMON)
    }
}

/// Problems of the routes with an id in their path.
pub(crate) struct FindProblems;

impl IntoResponses for FindProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(COMMON.into_iter().chain([ProblemCode::IdNotFound]))
    }
}

/// Problems of the routes that act.
pub(crate) struct ActProblems;

impl IntoResponses for ActProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(COMMON.into_iter().chain([
            ProblemCode::MalformedJson,
            ProblemCode::MalformedEncoding,
            ProblemCode::IncompleteBody,
            ProblemCode::ReadOnly,
            ProblemCode::IdNotFound,
            ProblemCode::BodyTimeout,
            ProblemCode::TooManyActs,
            ProblemCode::BodyTooLarge,
            ProblemCode::UnsupportedMediaType,
            ProblemCode::UnsupportedEncoding,
        ]))
    }
}
