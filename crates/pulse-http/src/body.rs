//! Reading a request's body within limits of size and time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::problem::Problem;

/// The limits of a request's body; the front door puts them into the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: usize,
    pub(crate) idle: Duration,
}

/// A whole body that says, or does not deny, that it is JSON.
///
/// Refused are: another media type or an encoding (415), more bytes than the limit (413), a piece that does not arrive
/// in time (408). The connection is closed then, because the rest is not read.
#[derive(Debug, Clone)]
pub struct WireBody(pub Bytes);

impl<S: Sync> FromRequest<S> for WireBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limits = *request.extensions().get::<BodyLimits>().expect("the front door sets the limits");
        check_headers(request.headers(), limits)?;
        let mut body = request.into_body();
        let mut read = BytesMut::new();
        let mut only: Option<Bytes> = None;
        loop {
            let frame = match tokio::time::timeout(limits.idle, body.frame()).await {
                Err(_) => return Err(stalled(limits)),
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    let detail = "the body ended early or is not valid HTTP: send it again";
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "incomplete_body", detail)
                        .caused_by(error)
                        .closing());
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else { continue };
            if read.len() + only.as_ref().map_or(0, Bytes::len) + piece.len() > limits.bytes {
                return Err(too_large(limits));
            }
            // Nearly every body is one piece: that one is not copied.
            if only.is_none() && read.is_empty() {
                only = Some(piece);
            } else {
                read.extend(only.take().into_iter().flatten());
                read.extend_from_slice(&piece);
            }
        }
        Ok(Self(only.unwrap_or_else(|| read.freeze())))
    }
}

fn check_headers(headers: &HeaderMap, limits: BodyLimits) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
            let detail = "the body must be JSON: send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).closing());
        }
    }
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "the body must not be encoded: leave Content-Encoding out";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail).closing());
    }
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large(limits));
    }
    Ok(())
}

fn too_large(limits: BodyLimits) -> Problem {
    let detail = format!("the body has more than {} bytes: send fewer or smaller events", limits.bytes);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).closing()
}

fn stalled(limits: BodyLimits) -> Problem {
    let detail = format!("no piece of the body arrived for {} s: send it again", limits.idle.as_secs_f64());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail).closing()
}
