//! Maps errors to problem details.
//!
//! An unavailable PostgreSQL gives 503, never 500. A 500 means a defect of this program.

use pulse_core::FieldError;
use pulse_http::{Problem, ProblemCode};
use pulse_store::{AcceptError, KeyConflict, ListError, OwnerProblem, StoreError};

use crate::body::BodyError;
use crate::cursor::CursorError;
use crate::query::parameter_error;

/// 422 with every invalid value.
pub(crate) fn validation(errors: &[FieldError]) -> Problem {
    let detail = match errors {
        [FieldError { msg, .. }] => format!("1 value is not valid: {msg}"),
        errors => format!("{} values are not valid: see errors", errors.len()),
    };
    Problem::new(ProblemCode::ValidationError, detail).with_errors(errors)
}

/// Problem of a rejected body.
pub(crate) fn bad_body(error: BodyError) -> Problem {
    match error {
        BodyError::Malformed(detail) => Problem::new(ProblemCode::MalformedJson, detail),
        BodyError::TooLarge(error) => {
            Problem::new(ProblemCode::EventTooLarge, error.msg.as_str()).with_errors(&[error])
        }
        BodyError::TooMany { items, limit } => {
            let detail = format!("the batch has {items} events, the limit is {limit}: split it into several batches");
            let error = FieldError::new("events", "too_long", format!("the list should have at most {limit} events"));
            Problem::new(ProblemCode::BatchTooLarge, detail).with_errors(&[error])
        }
        BodyError::Invalid(errors) => validation(&errors),
    }
}

/// Problem of a rejected cursor.
pub(crate) fn bad_cursor(error: CursorError) -> Problem {
    let kind = match error {
        CursorError::Invalid => "invalid_cursor",
        CursorError::OtherFilters => "cursor_of_other_filters",
    };
    let error = parameter_error("query", "cursor", kind, error.to_string());
    Problem::new(ProblemCode::InvalidCursor, error.msg.as_str()).with_errors(&[error])
}

/// Problem of a failed store operation.
pub(crate) fn store_failed(error: StoreError) -> Problem {
    match &error {
        StoreError::Unavailable(_)
        | StoreError::TimedOut(_)
        | StoreError::Locked(_)
        | StoreError::StatementLimit(_) => unavailable(),
        StoreError::Refused { .. } => Problem::new(
            ProblemCode::Refused,
            "the database rejected one of the values: change the value before you send the request again",
        ),
        StoreError::Unexpected(_) => Problem::internal(),
    }
    .caused_by(error)
}

/// Problem of a list that cannot be returned.
pub(crate) fn list_failed(error: ListError) -> Problem {
    let detail = match error {
        ListError::Store(error) => return store_failed(error),
        ListError::TooBroad(_) => {
            "the events could not be read in time: choose a shorter time with from and to, or a smaller limit"
        }
        ListError::OffsetTooFar => {
            "the offset is further than one page reads with these filters: follow next_cursor instead of an offset"
        }
    };
    Problem::new(ProblemCode::QueryTooBroad, detail).caused_by(error)
}

/// 503 for an unavailable database and for an unknown outcome.
fn unavailable() -> Problem {
    Problem::unavailable(
        "the database is unavailable: send the request again, with an Idempotency-Key if it posts events",
    )
}

/// Problem of events that were not accepted.
pub(crate) fn accept_failed(error: AcceptError) -> Problem {
    match error {
        AcceptError::Store(error) => store_failed(error),
        AcceptError::Interrupted => unavailable().caused_by(error),
        AcceptError::Overloaded => Problem::new(
            ProblemCode::Overloaded,
            "too many requests are waiting for the database: send the request again later",
        )
        .retry_after(1),
        AcceptError::Owner(OwnerProblem::Deleted) => {
            Problem::new(ProblemCode::UserGone, "the user of this token was deleted: use the token of another user")
        }
        AcceptError::Owner(OwnerProblem::Disabled) => user_disabled(),
        AcceptError::Owner(OwnerProblem::Locked) => Problem::new(
            ProblemCode::UserLocked,
            "the user of this token is being changed or deleted: send the request again later",
        )
        .retry_after(1),
        AcceptError::Key(KeyConflict::OtherBody) => Problem::new(
            ProblemCode::IdempotencyKeyReused,
            "the Idempotency-Key was used with another body or Prefer handling: use a new key for a new request",
        ),
        AcceptError::Key(KeyConflict::InProgress) => Problem::new(
            ProblemCode::IdempotencyKeyInProgress,
            "the first request with this Idempotency-Key is still in progress: send the request again later",
        )
        .retry_after(1),
    }
}

/// 403 for a disabled user.
pub(crate) fn user_disabled() -> Problem {
    Problem::new(ProblemCode::UserDisabled, "the user of this token is disabled: ask an administrator to enable it")
}

/// 404 for an unknown id.
pub(crate) fn not_found(code: ProblemCode, what: &str) -> Problem {
    Problem::new(code, format!("you have no {what} with this id: check the id and the token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_status_and_code() {
        let field = || FieldError::new("events", "missing", "field required");
        for (problem, status, code) in [
            (bad_body(BodyError::Malformed("x".into())), 400, ProblemCode::MalformedJson),
            (bad_body(BodyError::TooLarge(field())), 413, ProblemCode::EventTooLarge),
            (bad_body(BodyError::TooMany { items: 101, limit: 100 }), 422, ProblemCode::BatchTooLarge),
            (bad_body(BodyError::Invalid(vec![field()])), 422, ProblemCode::ValidationError),
            (bad_cursor(CursorError::Invalid), 422, ProblemCode::InvalidCursor),
            (list_failed(ListError::OffsetTooFar), 422, ProblemCode::QueryTooBroad),
            (accept_failed(AcceptError::Overloaded), 503, ProblemCode::Overloaded),
            (accept_failed(AcceptError::Interrupted), 503, ProblemCode::Unavailable),
            (accept_failed(KeyConflict::OtherBody.into()), 422, ProblemCode::IdempotencyKeyReused),
            (accept_failed(KeyConflict::InProgress.into()), 409, ProblemCode::IdempotencyKeyInProgress),
            (not_found(ProblemCode::EventNotFound, "event"), 404, ProblemCode::EventNotFound),
        ] {
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
        }
    }
}
