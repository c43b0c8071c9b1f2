//! The fields of a form or of a query.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use pulse_http::FormBody;
use uuid::Uuid;

use crate::error::PageError;

/// The fields, in order.
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The first field with this name; empty without one.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.trim())
    }

    /// The value of a field; `None` without one.
    pub(crate) fn read<T: FromStr>(&self, name: &str, problem: &'static str) -> Result<Option<T>, PageError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| PageError::Field(problem)),
        }
    }

    /// All fields `id`.
    pub(crate) fn ids(&self) -> Result<Vec<Uuid>, PageError> {
        let ids = self.0.iter().filter(|(field, _)| field == "id");
        let parsed: Result<Vec<Uuid>, _> = ids.map(|(_, value)| Uuid::parse_str(value)).collect();
        parsed.map_err(|_| PageError::Field("A selected task has no valid id: select it again."))
    }
}

/// The fields of a form.
impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &S) -> Result<Self, PageError> {
        let body = FormBody::from_request(request, state).await.map_err(PageError::Body)?;
        Ok(Self::parse(&body.0.content))
    }
}

/// The fields of a query.
pub(crate) struct Query(pub(crate) Fields);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(Fields::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// The id in a path; what is none is not found.
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, PageError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|axum::extract::Path(text)| Uuid::parse_str(&text).ok());
        id.map(Self).ok_or(PageError::NotFound)
    }
}
