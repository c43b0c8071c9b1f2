//! Who calls, and with what.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use pulse_http::{Problem, ProblemCode, RequestSubject, Scope, WireBody};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::console::Console;
use crate::error::PageError;
use crate::fields::{Fields, Id};
use crate::identity::{self, Identity};

/// The sender of a bearer token. A session of the pages is none, so that no page of another origin can call.
pub(crate) struct Caller(pub(crate) Identity);

impl FromRequestParts<Console> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Problem> {
        let claims = console.verifier.verify(parts.headers.get(AUTHORIZATION)).await?;
        RequestSubject::note(parts, &claims.subject);
        if !identity::opens(&claims) {
            claims.require(Scope::EventsRead)?;
        }
        Ok(Self(Identity::of(console, claims, &parts.method).await?))
    }
}

/// The id in a path.
pub(crate) struct PathId(pub(crate) Uuid);

impl FromRequestParts<Console> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Problem> {
        let Id(id) = Id::from_request_parts(parts, console).await?;
        Ok(Self(id))
    }
}

/// A body; an empty one is an empty object.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Console> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Problem> {
        let body = WireBody::from_request(request, console).await?;
        let content: &[u8] = if body.content.is_empty() { b"{}" } else { &body.content };
        serde_json::from_slice(content).map(Self).map_err(|error| {
            let code = if error.is_data() { ProblemCode::ValidationError } else { ProblemCode::MalformedJson };
            Problem::new(code, format!("the body is not valid: {error}"))
        })
    }
}

/// The size of a page.
pub(crate) fn page_size(fields: &Fields) -> Result<u8, PageError> {
    const PROBLEM: &str = "The limit is not from 1 to 200: correct it.";
    let size: u8 = fields.read("limit", PROBLEM)?.unwrap_or(50);
    if (1..=200).contains(&size) { Ok(size) } else { Err(PageError::Field(PROBLEM)) }
}
