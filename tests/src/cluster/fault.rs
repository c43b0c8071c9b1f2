//! What can go wrong between an operator and the API server.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is forwarded after this time.
    Delay(Duration),
    /// It is answered with this status code and is not forwarded. 429 and 503 say `Retry-After: 1`.
    Answer(u16),
    /// It is never answered and not forwarded, but the connection stays open.
    Hang,
    /// Its connection is closed, and it is not forwarded.
    Close,
    /// It is forwarded and carried out; the answer is lost, and the connection is closed.
    LoseAnswer,
    /// It is forwarded; each part of the answer's body, such as a watch event, comes this much later.
    Stale(Duration),
    /// It is forwarded; the connection breaks this long after the answer began, such as in the middle of a watch.
    Cut(Duration),
    /// A watch is told at once that its resource version is gone (an `ERROR` event with code 410).
    Expired,
}

impl Fault {
    /// How the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Answer(_) => "answer",
            Self::Hang => "hang",
            Self::Close => "close",
            Self::LoseAnswer => "lose-answer",
            Self::Stale(_) => "stale",
            Self::Cut(_) => "cut",
            Self::Expired => "expired",
        }
    }
}

/// The object that the API server answers with in such a case.
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
        "message": format!("{text}, as the test wants"), "reason": reason, "code": code,
    })
}
