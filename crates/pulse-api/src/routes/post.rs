//! The parts of a request that both routes for posting events share.

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use pulse_http::{HeldBytes, Holder, Problem, RequestId, TraceParent, WireBody};

use crate::auth::Writer;
use crate::idempotency;
use crate::prefer::Handling;
use crate::state::AppState;

/// An authorised request that posts events. The body is not parsed yet.
pub(crate) struct Post {
    pub writer: Writer,
    pub request_id: RequestId,
    pub traceparent: Option<String>,
    pub handling: Handling,
    pub idempotency_key: Option<String>,
    pub body: Bytes,
    /// The memory of the body and of the events.
    pub held: HeldBytes,
}

impl FromRequest<AppState> for Post {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        read(request, state).await.inspect_err(|problem| state.metrics.reject(problem.code(), 1))
    }
}

/// Authenticates first: the body of an unauthorised client, or of a user beyond a limit, is not read.
async fn read(request: Request, state: &AppState) -> Result<Post, Problem> {
    let (mut parts, body) = request.into_parts();
    let writer = Writer::from_request_parts(&mut parts, state).await?;
    let Ok(request_id) = RequestId::from_request_parts(&mut parts, state).await;
    let traceparent = parts.extensions.remove::<TraceParent>().and_then(|TraceParent(traceparent)| traceparent);
    let handling = Handling::of(&parts.headers);
    let idempotency_key = idempotency::key(&parts.headers)?;
    state.limits.check_body(&writer.usage, body.size_hint().lower())?;
    parts.extensions.insert(Holder(writer.user_id));
    let WireBody { content: body, held } = WireBody::from_request(Request::from_parts(parts, body), state).await?;
    state.limits.take_bytes(&writer.usage, body.len())?;
    Ok(Post { writer, request_id, traceparent, handling, idempotency_key, body, held })
}
