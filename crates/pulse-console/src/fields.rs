//! The fields of a form.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};

use crate::error::PageError;

/// Maximum size of a form, in bytes: the longest token, and some ids.
const MAX_BYTES: usize = 16 * 1024;

/// The fields of a form, in order.
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The first field with this name; empty without one.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.trim())
    }
}

impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = PageError;

    async fn from_request(request: Request, _: &S) -> Result<Self, PageError> {
        let body = to_bytes(request.into_body(), MAX_BYTES).await;
        let body = body.map_err(|_| PageError::Field("The form is longer than 16 KiB: shorten its fields."))?;
        Ok(Self(form_urlencoded::parse(&body).into_owned().collect()))
    }
}
