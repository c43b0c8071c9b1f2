//! The id of a request, from the client or generated. It is in the response, the task, the log and the trace.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Request and response header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: `[A-Za-z0-9._-]{1,128}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// Returns the client's id if it is valid, else a new UUIDv7.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|text| is_valid(text));
        Self(given.map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from))
    }

    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

fn is_valid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_kept_if_valid_and_replaced_otherwise() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(text).expect("a header"));
            RequestId::of(&headers).0
        };
        assert_eq!(&*of("shop-1.A_b"), "shop-1.A_b");
        for bad in ["", "a b", "a\"b", &"x".repeat(129), "a/b"] {
            assert!(Uuid::parse_str(&of(bad)).is_ok(), "{bad}");
        }
    }
}
