//! The parts of the OpenAPI 3.1 document that routes share. Routes and types have their own descriptions.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use pulse_http::{ErrorDocument, ProblemCode, ProblemDocument, add_bearer, text_header};
use utoipa::openapi::header::Header;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, OpenApi as OpenApiDocument, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, ToSchema};

use crate::wire::{BatchAccepted, EventAccepted, ItemResult, Status, WarningDocument};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "PulseBoard Ingest",
        description = "Post events, and read events and tasks. A 202 means that the event and its task are committed \
                       in PostgreSQL. Tasks run at least once; their effect in PostgreSQL happens exactly once.",
    ),
    components(schemas(
        BatchAccepted, EventAccepted, ErrorDocument, ProblemDocument, ItemResult, WarningDocument, Status
    )),
    tags(
        (name = "events", description = "Events: post, read, list and count."),
        (name = "tasks", description = "Tasks: the processing of one event or one batch."),
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
pub(crate) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApiDocument) {
        let scopes = "The claim `scope` has the scopes, separated by spaces: `events:write` to post, `events:read` to \
                      read. A token without `scope` has both.";
        add_bearer(document, scopes);
    }
}

/// Request headers of all routes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what pulse-http reads")]
pub(crate) struct ReadHeaders {
    /// Id of the request in responses, tasks, logs and traces: 1 to 128 letters, digits, `.`, `_` or `-`. An absent or
    /// invalid id is replaced by a generated one.
    #[param(rename = "X-Request-Id", value_type = String, required = false)]
    request_id: Option<String>,
}

/// Request headers of the routes that post events.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what the handlers read")]
pub(crate) struct PostHeaders {
    /// Identifies the request, 1 to 255 visible ASCII characters, unique per user and route. For 24 hours, a request
    /// with the same key, the same body and the same `Prefer: handling` repeats the first response and stores nothing.
    /// The same key with another body or handling gives 422 `idempotency_key_reused`.
    #[param(
        rename = "Idempotency-Key", value_type = String, required = false,
        min_length = 1, max_length = 255, pattern = "^[!-~]{1,255}$",
    )]
    idempotency_key: Option<String>,
    /// `handling=strict` rejects what is otherwise ignored with a warning, such as unknown fields. `handling=lenient` accepts the valid items of a batch and rejects only
    /// the others. Other preferences are ignored.
    #[param(rename = "Prefer", value_type = String, required = false, example = "handling=lenient")]
    prefer: Option<String>,
    /// Id of the request in responses, tasks, logs and traces: 1 to 128 letters, digits, `.`, `_` or `-`. An absent or
    /// invalid id is replaced by a generated one.
    #[param(rename = "X-Request-Id", value_type = String, required = false)]
    request_id: Option<String>,
    /// W3C trace context. The trace of the processing is linked to it. A malformed value is ignored.
    #[param(value_type = String, required = false)]
    traceparent: Option<String>,
}

/// 202 with the body `T`.
pub(crate) struct Accepted<T>(std::marker::PhantomData<T>);

impl<T: ToSchema> IntoResponses for Accepted<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
        let task = LinkBuilder::new()
            .operation_id("get_task")
            .parameter("task_id", "$response.body#/task_id")
            .description("State of the task.")
            .build();
        let response = ResponseBuilder::new()
            .description("Committed. A worker is notified best effort.")
            .content("application/json", body)
            .header("X-Request-Id", text_header("Id of the request."))
            .header("Idempotency-Replayed", text_header("`true` if the response repeats an earlier one."))
            .header("Preference-Applied", text_header("The preference that was applied."))
            .link("task", task);
        let response =
            rate_limit_headers().into_iter().fold(response, |response, (name, header)| response.header(name, header));
        BTreeMap::from([("202".to_owned(), response.build().into())])
    }
}

/// Problems of every route.
const COMMON: &[ProblemCode] = &[
    ProblemCode::InvalidRequest,
    ProblemCode::MissingToken,
    ProblemCode::InvalidToken,
    ProblemCode::InsufficientScope,
    ProblemCode::UnknownUser,
    ProblemCode::UserDisabled,
    ProblemCode::UserGone,
    ProblemCode::UriTooLong,
    ProblemCode::HeadersTooLarge,
    ProblemCode::RateLimited,
    ProblemCode::TooManyInFlight,
    ProblemCode::UnsupportedTransferCoding,
    ProblemCode::Unavailable,
    ProblemCode::Overloaded,
    ProblemCode::RequestTimeout,
];

/// Problems of the routes that post events.
pub(crate) struct PostProblems;

impl IntoResponses for PostProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ProblemCode::MalformedJson,
            ProblemCode::MalformedEncoding,
            ProblemCode::IncompleteBody,
            ProblemCode::InvalidIdempotencyKey,
            ProblemCode::BodyTimeout,
            ProblemCode::IdempotencyKeyInProgress,
            ProblemCode::UserLocked,
            ProblemCode::BodyTooLarge,
            ProblemCode::EventTooLarge,
            ProblemCode::UnsupportedMediaType,
            ProblemCode::UnsupportedEncoding,
            ProblemCode::ValidationError,
            ProblemCode::BatchTooLarge,
            ProblemCode::IdempotencyKeyReused,
            ProblemCode::Refused,
        ])
    }
}

/// Problems of a route without parameters.
pub(crate) struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[])
    }
}

/// Problems of a route with query parameters.
pub(crate) struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[ProblemCode::ValidationError, ProblemCode::InvalidCursor, ProblemCode::QueryTooBroad])
    }
}

/// Problems of a route with an id in its path.
pub(crate) struct FindProblems;

impl IntoResponses for FindProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[ProblemCode::EventNotFound, ProblemCode::TaskNotFound, ProblemCode::ValidationError])
    }
}

/// Returns one response for each status of `codes` and of the common ones.
fn problems(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut responses = pulse_http::problems(codes.iter().chain(COMMON).copied());
    if let Some(RefOr::T(response)) = responses.get_mut(StatusCode::TOO_MANY_REQUESTS.as_str()) {
        response.headers.extend(rate_limit_headers().map(|(name, header)| (name.to_owned(), header.into())));
    }
    responses
}

/// The header fields of draft-ietf-httpapi-ratelimit-headers.
fn rate_limit_headers() -> [(&'static str, Header); 2] {
    let policy = "Limits of the user in the process that answered, as structured fields: `q` units in `w` seconds, such as \
                  `\"events\";q=1000;w=1`. Absent if the user has no limit.";
    let remaining = "What remains of each limit: `r` units, with more after `t` seconds, such as `\"events\";r=0;t=1`.";
    [("RateLimit-Policy", text_header(policy)), ("RateLimit", text_header(remaining))]
}
