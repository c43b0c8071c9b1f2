//! Errors as pages.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::html;
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

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum PageError {
    Store(StoreError),
    /// The token lacks the scope `admin`.
    NeedsAdmin,
    /// The console does not change anything.
    ReadOnly,
    /// The form was not sent by a page of this session.
    Forged,
    NotFound,
    /// A field of the form is missing or wrong; the text says which.
    Field(&'static str),
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, detail) = match self {
            Self::Store(error) => {
                tracing::warn!(%error, "a page of the console cannot be shown");
                let detail = "PostgreSQL did not answer in time. Nothing that was accepted is lost: reload this page.";
                (StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL is away", detail)
            }
            Self::NeedsAdmin => {
                let detail = "This needs a token with the scope admin: sign in with one.";
                (StatusCode::FORBIDDEN, "Only for administrators", detail)
            }
            Self::ReadOnly => {
                let detail = "This console runs with --read-only: use another console, or the commands of pulse.";
                (StatusCode::FORBIDDEN, "Read-only", detail)
            }
            Self::Forged => {
                let detail =
                    "The form does not belong to this session, and nothing was done: reload the page, and try again.";
                (StatusCode::FORBIDDEN, "Nothing was done", detail)
            }
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Not found", "There is nothing with this id, or it is another user's.")
            }
            Self::Field(detail) => (StatusCode::BAD_REQUEST, "Nothing was done", detail),
        };
        let page = document::gate(
            title,
            html! {
                section.why.why-dead role="alert" { div { h2 { (title) } p { b { (detail) } } } }
                p { a href="/" { "Overview, with the last known figures" } }
            },
        );
        (status, page).into_response()
    }
}
