//! Errors, as pages and as problem details.

use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;
use pulse_http::{Problem, ProblemCode};
use pulse_store::StoreError;

use crate::document;

/// Time limit of a page, which may need several answers of PostgreSQL.
const PAGE_TIME: Duration = Duration::from_secs(10);

/// Gives up a page that takes too long. An act always runs to its end.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    let page = tokio::time::timeout(PAGE_TIME, next.run(request)).await;
    page.unwrap_or_else(|_| PageError::Store(StoreError::TimedOut(PAGE_TIME)).into_response())
}

/// Why there is no page, or no JSON.
#[derive(Debug)]
pub(crate) enum PageError {
    Store(StoreError),
    /// The token lacks the scope `admin`.
    NeedsAdmin,
    /// The user of the token was disabled.
    Disabled,
    /// The console does not change anything.
    ReadOnly,
    /// The form was not sent by a page of this session.
    Forged,
    NotFound,
    /// Too many acts on tasks run.
    TooManyActs,
    /// PostgreSQL has not answered since the console started.
    NoFigures,
    /// A field is missing or wrong; the text says which.
    Field(&'static str),
    /// The filter has a part that is not understood.
    Filter(String),
    /// The form is too large, or arrived too slowly.
    Body(Problem),
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is wrong, and what to do.
struct Shown {
    code: ProblemCode,
    title: &'static str,
    detail: String,
}

fn shown(code: ProblemCode, title: &'static str, detail: impl Into<String>) -> Shown {
    Shown { code, title, detail: detail.into() }
}

/// Only what waiting mends is called unavailable.
fn of_store(error: &StoreError) -> Shown {
    match error {
        StoreError::Unavailable(_) | StoreError::TimedOut(_) => shown(
            ProblemCode::Unavailable,
            "PostgreSQL is away",
            "PostgreSQL did not answer in time. Nothing that was accepted is lost: try again.",
        ),
        StoreError::Locked(_) => shown(
            ProblemCode::Unavailable,
            "PostgreSQL is busy",
            "Another transaction has locked what this needs: try again.",
        ),
        StoreError::StatementLimit(_) => shown(
            ProblemCode::Unavailable,
            "This took too long",
            "PostgreSQL gave up because there is too much to look at: add a condition to the filter.",
        ),
        StoreError::Refused { .. } => shown(
            ProblemCode::Refused,
            "Not a value",
            "PostgreSQL cannot read one of the values, such as a character that no text can have: correct it.",
        ),
        StoreError::Unexpected(_) => shown(
            ProblemCode::Internal,
            "A fault of the console",
            "PostgreSQL answered what the console does not understand: see its log, and report it.",
        ),
    }
}

impl PageError {
    fn shown(&self) -> Shown {
        match self {
            Self::Store(error) => of_store(error),
            Self::NeedsAdmin => shown(
                ProblemCode::InsufficientScope,
                "Only for administrators",
                "This needs a token with the scope admin: use one.",
            ),
            Self::Disabled => shown(
                ProblemCode::UserDisabled,
                "Disabled",
                "The user of this token is disabled: ask an administrator to enable it.",
            ),
            Self::ReadOnly => shown(
                ProblemCode::ReadOnly,
                "Read-only",
                "This console runs with --read-only: use another console, or the commands of pulse.",
            ),
            Self::Forged => shown(
                ProblemCode::ForgedForm,
                "Nothing was done",
                "The form does not belong to this session, and nothing was done: reload the page, and try again.",
            ),
            Self::NotFound => {
                shown(ProblemCode::IdNotFound, "Not found", "There is nothing with this id, or it is another user's.")
            }
            Self::TooManyActs => shown(
                ProblemCode::TooManyActs,
                "Nothing was done",
                "16 acts on tasks run already: wait for one to end, or stop one.",
            ),
            Self::NoFigures => shown(
                ProblemCode::Unavailable,
                "No figures yet",
                "PostgreSQL has not answered since the console started: try again.",
            ),
            Self::Field(detail) => shown(ProblemCode::ValidationError, "Nothing was done", *detail),
            Self::Filter(problem) => shown(
                ProblemCode::ValidationError,
                "Nothing was done",
                format!("The filter is not understood: {problem}. Correct it, so that it does not match too much."),
            ),
            Self::Body(problem) => shown(
                problem.code(),
                "Nothing was done",
                "The form is larger than 16 KiB, or arrived too slowly: shorten its fields, and try again.",
            ),
        }
    }
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        let Shown { code, detail, .. } = error.shown();
        let problem = Self::new(code, detail);
        match error {
            PageError::Body(problem) => problem,
            PageError::Store(cause) if code == ProblemCode::Unavailable => problem.retry_after(1).caused_by(cause),
            PageError::Store(cause) => problem.caused_by(cause),
            PageError::NoFigures => problem.retry_after(1),
            PageError::NeedsAdmin => problem.challenge(r#"Bearer error="insufficient_scope", scope="admin""#),
            _ => problem,
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self {
            tracing::warn!(%error, "a page of the console cannot be shown");
        }
        let Shown { code, title, detail } = self.shown();
        let page = document::gate(
            title,
            html! {
                section.why.why-dead role="alert" { div { h2 { (title) } p { b { (detail) } } } }
                p { a href="/" { "Overview, with the last known figures" } }
            },
        );
        (code.status(), page).into_response()
    }
}
