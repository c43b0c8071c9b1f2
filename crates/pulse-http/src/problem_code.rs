//! The codes of problems. The OpenAPI document and docs/reference/problem-codes.md are made of the rows here.

use axum::http::StatusCode;

/// Stable code of a problem. Clients and metrics depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "TABLE describes the codes")]
pub enum ProblemCode {
    MalformedJson,
    MalformedEncoding,
    IncompleteBody,
    InvalidRequest,
    InvalidIdempotencyKey,
    MissingToken,
    InvalidToken,
    InsufficientScope,
    UnknownUser,
    UserDisabled,
    UserGone,
    ReadOnly,
    ForgedForm,
    NotFound,
    EventNotFound,
    TaskNotFound,
    IdNotFound,
    MethodNotAllowed,
    BodyTimeout,
    IdempotencyKeyInProgress,
    TooManyActs,
    BodyTooLarge,
    EventTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    UnsupportedEncoding,
    ValidationError,
    BatchTooLarge,
    InvalidCursor,
    QueryTooBroad,
    IdempotencyKeyReused,
    Refused,
    RateLimited,
    TooManyInFlight,
    HeadersTooLarge,
    Internal,
    UnsupportedTransferCoding,
    Unavailable,
    Overloaded,
    UserLocked,
    RequestTimeout,
}

/// What is known about a code.
struct Row {
    code: ProblemCode,
    /// In JSON, metrics and logs.
    name: &'static str,
    status: StatusCode,
    meaning: &'static str,
}

const fn row(code: ProblemCode, name: &'static str, status: StatusCode, meaning: &'static str) -> Row {
    Row { code, name, status, meaning }
}

/// One row for each code, in the order of [`ProblemCode`].
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(ProblemCode::MalformedJson, "malformed_json", StatusCode::BAD_REQUEST,
        "the body is not valid JSON"),
    row(ProblemCode::MalformedEncoding, "malformed_encoding", StatusCode::BAD_REQUEST,
        "the body is not valid in its `Content-Encoding`, or incomplete"),
    row(ProblemCode::IncompleteBody, "incomplete_body", StatusCode::BAD_REQUEST,
        "the body ended early"),
    row(ProblemCode::InvalidRequest, "invalid_request", StatusCode::BAD_REQUEST,
        "the request is not valid HTTP/1.1, or its `Host` or `Authorization` is repeated or not valid"),
    row(ProblemCode::InvalidIdempotencyKey, "invalid_idempotency_key", StatusCode::BAD_REQUEST,
        "the key is not exactly one header of 1 to 255 visible ASCII characters"),
    row(ProblemCode::MissingToken, "missing_token", StatusCode::UNAUTHORIZED,
        "there is no `Authorization: Bearer` header"),
    row(ProblemCode::InvalidToken, "invalid_token", StatusCode::UNAUTHORIZED,
        "the token is not valid, or has expired; the log has the reason at level `debug`"),
    row(ProblemCode::InsufficientScope, "insufficient_scope", StatusCode::FORBIDDEN,
        "the token lacks `events:write` or `events:read`, or `admin` for the console"),
    row(ProblemCode::UnknownUser, "unknown_user", StatusCode::FORBIDDEN,
        "the user does not exist, and `--auto-provision` is off"),
    row(ProblemCode::UserDisabled, "user_disabled", StatusCode::FORBIDDEN,
        "the user is disabled"),
    row(ProblemCode::UserGone, "user_gone", StatusCode::FORBIDDEN,
        "the user was deleted"),
    row(ProblemCode::ReadOnly, "read_only", StatusCode::FORBIDDEN,
        "the console runs with `--read-only`"),
    row(ProblemCode::ForgedForm, "forged_form", StatusCode::FORBIDDEN,
        "the form was not sent by a page of this session of the console"),
    row(ProblemCode::NotFound, "not_found", StatusCode::NOT_FOUND,
        "there is no such route"),
    row(ProblemCode::EventNotFound, "event_not_found", StatusCode::NOT_FOUND,
        "you have no event with this id"),
    row(ProblemCode::TaskNotFound, "task_not_found", StatusCode::NOT_FOUND,
        "you have no task with this id"),
    row(ProblemCode::IdNotFound, "id_not_found", StatusCode::NOT_FOUND,
        "the console has nothing with this id, or it is another user's"),
    row(ProblemCode::MethodNotAllowed, "method_not_allowed", StatusCode::METHOD_NOT_ALLOWED,
        "the `Allow` header has the supported methods"),
    row(ProblemCode::BodyTimeout, "body_timeout", StatusCode::REQUEST_TIMEOUT,
        "no part of the body arrived for `--body-timeout`, or the body arrived at less than 1 KiB per second"),
    row(ProblemCode::IdempotencyKeyInProgress, "idempotency_key_in_progress", StatusCode::CONFLICT,
        "the first request with this key is still running"),
    row(ProblemCode::TooManyActs, "too_many_acts", StatusCode::CONFLICT,
        "16 acts on tasks run at the same time: wait for one to end, or stop one"),
    row(ProblemCode::BodyTooLarge, "body_too_large", StatusCode::PAYLOAD_TOO_LARGE,
        "the body is larger than `--max-body-bytes`, encoded or decoded"),
    row(ProblemCode::EventTooLarge, "event_too_large", StatusCode::PAYLOAD_TOO_LARGE,
        "a single event is larger than `--max-event-bytes`, or would be larger than twice that when it is read back, \
         because numbers are stored without an exponent; in a batch this is a `validation_error`"),
    row(ProblemCode::UriTooLong, "uri_too_long", StatusCode::URI_TOO_LONG,
        "the URL is too long"),
    row(ProblemCode::UnsupportedMediaType, "unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body is not `application/json` in UTF-8"),
    row(ProblemCode::UnsupportedEncoding, "unsupported_encoding", StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the `Content-Encoding` is none of those in the `Accept-Encoding` header of the answer, or there are several"),
    row(ProblemCode::ValidationError, "validation_error", StatusCode::UNPROCESSABLE_ENTITY,
        "values are wrong: see `errors`"),
    row(ProblemCode::BatchTooLarge, "batch_too_large", StatusCode::UNPROCESSABLE_ENTITY,
        "the batch has more events than `--max-batch`"),
    row(ProblemCode::InvalidCursor, "invalid_cursor", StatusCode::UNPROCESSABLE_ENTITY,
        "the cursor is not valid, or belongs to other filters"),
    row(ProblemCode::QueryTooBroad, "query_too_broad", StatusCode::UNPROCESSABLE_ENTITY,
        "one page cannot be read in time: narrow `from` and `to`, lower `limit`, or follow `next_cursor` instead of an `offset`"),
    row(ProblemCode::IdempotencyKeyReused, "idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY,
        "the key was used with another body or preference"),
    row(ProblemCode::Refused, "refused", StatusCode::UNPROCESSABLE_ENTITY,
        "PostgreSQL cannot store a value"),
    row(ProblemCode::RateLimited, "rate_limited", StatusCode::TOO_MANY_REQUESTS,
        "a limit of the user per second is reached, or too many users are created: send the request again after the \
         seconds in `Retry-After`"),
    row(ProblemCode::TooManyInFlight, "too_many_in_flight", StatusCode::TOO_MANY_REQUESTS,
        "the user has too many requests in flight, or too many that list or count events: send fewer at the same time"),
    row(ProblemCode::HeadersTooLarge, "headers_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request line and headers are larger than 16 KiB, or more than 100 headers"),
    row(ProblemCode::Internal, "internal", StatusCode::INTERNAL_SERVER_ERROR,
        "a fault in the service: see the log"),
    row(ProblemCode::UnsupportedTransferCoding, "unsupported_transfer_coding", StatusCode::NOT_IMPLEMENTED,
        "the `Transfer-Encoding` is not `chunked`"),
    row(ProblemCode::Unavailable, "unavailable", StatusCode::SERVICE_UNAVAILABLE,
        "PostgreSQL is unavailable, or the outcome is unknown: send the request again"),
    row(ProblemCode::Overloaded, "overloaded", StatusCode::SERVICE_UNAVAILABLE,
        "too many requests at once, or requests that take too much memory: send the request again later"),
    row(ProblemCode::UserLocked, "user_locked", StatusCode::SERVICE_UNAVAILABLE,
        "another transaction has locked the user, for example to delete it; nothing was stored: send the request again after the seconds in `Retry-After`"),
    row(ProblemCode::RequestTimeout, "request_timeout", StatusCode::SERVICE_UNAVAILABLE,
        "the request took longer than `--request-timeout`, and its outcome is unknown: send it again"),
];

impl ProblemCode {
    /// Returns every code, by status.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.code)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The code in JSON, metrics and logs, in snake case.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// HTTP status of every problem with this code.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// Text of the HTTP status.
    pub fn title(self) -> &'static str {
        self.status().canonical_reason().unwrap_or("Error")
    }

    /// One sentence in Markdown, without a capital letter and a full stop.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// URI of the problem type.
    pub fn type_uri(self) -> String {
        format!("https://pulseboard.dev/problems/{}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_row() {
        assert_eq!(TABLE.len(), ProblemCode::RequestTimeout as usize + 1);
        for (index, code) in ProblemCode::all().enumerate() {
            assert_eq!(code as usize, index, "{code:?}");
        }
    }

    #[test]
    fn names_are_the_variants_in_snake_case() {
        for code in ProblemCode::all() {
            let joined = code.as_str().replace('_', "");
            assert_eq!(joined, format!("{code:?}").to_lowercase());
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        }
    }
}
