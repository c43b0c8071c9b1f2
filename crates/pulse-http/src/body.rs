//! Request bodies, read within limits of size and time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// Limits of a request body. The middleware adds them to the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: usize,
    pub(crate) idle: Duration,
}

/// A complete body whose media type is JSON or absent.
///
/// Rejects another media type or a content encoding (415), more bytes than the limit (413), and a pause of the client
/// beyond the idle time-out (408). A rejection closes the connection, because the rest of the body is not read.
#[derive(Debug, Clone)]
pub struct WireBody(pub Bytes);

impl<S: Sync> FromRequest<S> for WireBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limits = *request.extensions().get::<BodyLimits>().expect("the middleware sets the limits");
        check_headers(request.headers(), limits)?;
        let mut body = request.into_body();
        let mut read = BytesMut::new();
        let mut single: Option<Bytes> = None;
        loop {
            let frame = match tokio::time::timeout(limits.idle, body.frame()).await {
                Err(_) => return Err(stalled(limits)),
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    let detail = "the body ended early or is not valid HTTP: send the request again";
                    return Err(Problem::new(ProblemCode::IncompleteBody, detail).caused_by(error));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else { continue };
            if read.len() + single.as_ref().map_or(0, Bytes::len) + piece.len() > limits.bytes {
                return Err(too_large(limits));
            }
            // Nearly every body arrives in one piece, which is used without a copy.
            if single.is_none() && read.is_empty() {
                single = Some(piece);
            } else {
                read.extend(single.take().into_iter().flatten());
                read.extend_from_slice(&piece);
            }
        }
        Ok(Self(single.unwrap_or_else(|| read.freeze())))
    }
}

fn check_headers(headers: &HeaderMap, limits: BodyLimits) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase());
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
            let detail = "the media type is not JSON: send the header Content-Type: application/json";
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
        }
    }
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "the content encoding is not supported: send the body as it is, without Content-Encoding";
        return Err(Problem::new(ProblemCode::UnsupportedEncoding, detail));
    }
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large(limits));
    }
    Ok(())
}

fn too_large(limits: BodyLimits) -> Problem {
    let detail = format!("the body is larger than {} bytes: send fewer or smaller events", limits.bytes);
    Problem::new(ProblemCode::BodyTooLarge, detail)
}

fn stalled(limits: BodyLimits) -> Problem {
    let detail = format!("no part of the body arrived for {} s: send the request again", limits.idle.as_secs_f64());
    Problem::new(ProblemCode::BodyTimeout, detail)
}
