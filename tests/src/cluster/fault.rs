//! Faults between a client and the API server.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

/// Treatment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards the request after this time.
    Delay(Duration),
    /// Responds with this status code without forwarding. 429 and 503 have the header `Retry-After: 1`.
    Respond(u16),
    /// Neither forwards nor responds; the connection stays open.
    Hang,
    /// Closes the connection without forwarding.
    Close,
    /// Forwards the request, so that it takes effect, and closes the connection instead of responding.
    LoseResponse,
    /// Forwards the request; each part of the response body, such as a watch event, arrives this much later.
    Stale(Duration),
    /// Forwards the request; the connection breaks this long after the response began, for example during a watch.
    Cut(Duration),
    /// Responds to a watch that its resource version has expired (an `ERROR` event with code 410).
    Expired,
}

impl Fault {
    /// Name for log output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Respond(_) => "respond",
            Self::Hang => "hang",
            Self::Close => "close",
            Self::LoseResponse => "lose-response",
            Self::Stale(_) => "stale",
            Self::Cut(_) => "cut",
            Self::Expired => "expired",
        }
    }
}

/// `Status` object that the API server sends with this status code.
pub(super) fn status_object(code: u16) -> Value {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    };
    let text = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or("?");
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{text}, injected by the test"), "reason": reason, "code": code,
    })
}
