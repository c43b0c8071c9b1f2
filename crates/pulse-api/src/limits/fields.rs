//! The header fields `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-10.

use std::convert::Infallible;
use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// One limit and what remains of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) quota: u64,
    pub(super) per_seconds: Option<u64>,
    /// Quota unit of the draft, unless it is the default.
    pub(super) unit: Option<&'static str>,
    pub(super) remaining: u64,
    pub(super) next_seconds: u64,
}

/// Both fields; none without limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateLimitFields(Option<(HeaderValue, HeaderValue)>);

impl RateLimitFields {
    pub(super) fn of(items: impl Iterator<Item = Item>) -> Self {
        let (mut policy, mut state) = (String::new(), String::new());
        for Item { name, quota, per_seconds, unit, remaining, next_seconds } in items {
            let comma = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, r#"{comma}"{name}";q={quota}"#);
            let _ = per_seconds.map(|seconds| write!(policy, ";w={seconds}"));
            let _ = unit.map(|unit| write!(policy, r#";qu="{unit}""#));
            let _ = write!(state, r#"{comma}"{name}";r={remaining};t={next_seconds}"#);
        }
        let value = |text: String| HeaderValue::try_from(text).ok().filter(|value| !value.is_empty());
        Self(value(policy).zip(value(state)))
    }
}

impl IntoIterator for RateLimitFields {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = std::iter::Flatten<std::option::IntoIter<[Self::Item; 2]>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|(policy, state)| [(POLICY, policy), (STATE, state)]).into_iter().flatten()
    }
}

impl IntoResponseParts for RateLimitFields {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        response.headers_mut().extend(self);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[Item]) -> Vec<String> {
        let fields = RateLimitFields::of(items.iter().copied());
        fields.into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect()
    }

    #[test]
    fn fields_are_lists_of_structured_items() {
        let events =
            Item { name: "events", quota: 1000, per_seconds: Some(1), unit: None, remaining: 0, next_seconds: 1 };
        assert_eq!(texts(&[events]), [r#"ratelimit-policy: "events";q=1000;w=1"#, r#"ratelimit: "events";r=0;t=1"#]);
        let lists = Item { name: "lists", per_seconds: None, unit: Some("concurrent-requests"), ..events };
        assert_eq!(
            texts(&[events, lists]),
            [
                r#"ratelimit-policy: "events";q=1000;w=1, "lists";q=1000;qu="concurrent-requests""#,
                r#"ratelimit: "events";r=0;t=1, "lists";r=0;t=1"#,
            ]
        );
        assert!(texts(&[]).is_empty());
    }
}
