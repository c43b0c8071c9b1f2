//! Cross-origin requests: pages of other origins may call the API from a browser.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
use crate::prefer::{PREFER, PREFERENCE_APPLIED};

/// How long a browser may keep the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Allows pages of these origins to call the API and to read its answers. Put it around everything else, also around
/// authentication and the limits of requests: a preflight request has no token, and pages read errors too.
pub fn cors(origins: impl IntoIterator<Item = HeaderValue>) -> CorsLayer {
    let header = HeaderName::from_static;
    let request_id = header("x-request-id");
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_ENCODING,
            CONTENT_TYPE,
            IDEMPOTENCY_KEY,
            PREFER,
            request_id.clone(),
            header("traceparent"),
            header("tracestate"),
        ])
        .expose_headers([
            IDEMPOTENCY_REPLAYED,
            LINK,
            PREFERENCE_APPLIED,
            header("ratelimit"),
            header("ratelimit-policy"),
            request_id,
            RETRY_AFTER,
        ])
        .max_age(MAX_AGE)
}
