//! Error responses: RFC 9457 `application/problem+json` with a stable code.
//!
//! The client receives a code and a message without internals. The middleware logs the cause, once.

use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::problem_code::ProblemCode;

/// An error response. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Problem(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: ProblemCode,
    detail: String,
    errors: Vec<Value>,
    retry_after: Option<u64>,
    challenge: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// The body, in reading order.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Value],
}

impl Problem {
    /// Creates a problem. `detail` says what is wrong and what the client can do, without internals.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// Creates 503 `unavailable` with `Retry-After: 1`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Unavailable, detail).retry_after(1)
    }

    /// Creates 500 `internal`, which means a defect of this program.
    pub fn internal() -> Self {
        let detail = "an internal error occurred: report the request id in `instance` to an administrator";
        Self::new(ProblemCode::Internal, detail)
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds the invalid values with their paths.
    #[must_use]
    pub fn with_errors<T: Serialize>(self, errors: &[T]) -> Self {
        let errors = errors.iter().map(|error| serde_json::to_value(error).unwrap_or_default()).collect();
        self.edit(|inner| inner.errors = errors)
    }

    /// Adds `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.edit(|inner| inner.retry_after = Some(seconds))
    }

    /// Adds `WWW-Authenticate`.
    #[must_use]
    pub fn challenge(self, challenge: impl Into<String>) -> Self {
        self.edit(|inner| inner.challenge = Some(challenge.into()))
    }

    /// Adds other headers.
    #[must_use]
    pub fn with_headers(self, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        self.edit(|inner| inner.headers.extend(headers))
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.cause = Some(Arc::new(cause)))
    }

    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    /// Stable code.
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// Logs 500 as error, other server errors as warning, and client errors at debug level.
    pub(crate) fn log(&self, request_id: &str) {
        let Inner { code, cause, .. } = &*self.0;
        let cause = cause.as_deref().map(|cause| cause as &(dyn Error + 'static));
        let (status, code) = (code.status().as_u16(), code.as_str());
        match status {
            500 => tracing::error!(request_id, status, code, error = cause, "request failed"),
            502.. => {
                tracing::warn!(request_id, status, code, error = cause, "request rejected: temporarily unavailable")
            }
            _ => tracing::debug!(request_id, status, code, error = cause, "request rejected"),
        }
    }

    /// The body of the response, as JSON; `instance` is the id of the request.
    pub(crate) fn body(&self, instance: &str) -> Vec<u8> {
        let Inner { code, detail, errors, .. } = &*self.0;
        let document = Document {
            kind: code.type_uri(),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            instance,
            code: code.as_str(),
            errors,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Builds the response; `instance` is the id of the request.
    pub(crate) fn render(&self, instance: &str) -> Response {
        let Inner { code, retry_after, challenge, headers: more, .. } = &*self.0;
        let mut response = Response::new(Body::from(self.body(instance)));
        *response.status_mut() = code.status();
        let headers = response.headers_mut();
        headers.extend(more.iter().cloned());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if let Some(challenge) = challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Only carries the problem: the middleware renders it, because it knows the id of the request.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
