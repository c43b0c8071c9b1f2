//! Request bodies, read within limits of size, time and memory.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::budget::{HeldBytes, Holder, MemoryBudget};
use crate::content_coding::{Coding, DecodeError, decode};
use crate::in_flight::Place;
use crate::media_type;
use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// How often a body is in memory until its request is answered: its bytes, and what the router makes of them.
const COPIES: usize = 2;
/// Average rate at which a body has to arrive after its first pause, in bytes per second. A pause may be as long as the
/// idle time-out, so without this, a few bytes a minute would keep a connection.
const MIN_RATE: f64 = 1024.0;

/// Returns the most bytes that reading a body takes from the budget.
pub(crate) fn largest(max_body_bytes: usize) -> usize {
    COPIES * max_body_bytes
}

/// Limits of a request body. The middleware adds them to the extensions of each request.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: usize,
    pub(crate) idle: Duration,
    /// When the body has to be complete.
    pub(crate) deadline: Instant,
    pub(crate) budget: MemoryBudget,
    /// The place of the request, which it leaves while it waits for the body.
    pub(crate) place: Place,
}

/// A complete body whose media type is JSON or absent.
///
/// Rejects another media type or charset and an unknown content coding (415), more bytes than the limit before or after
/// decoding (413), a body that is not in its coding (400), a client that sends too slowly (408), and a body for which
/// there is no memory or no place in flight (503). A rejection closes the connection, because the rest of the body may
/// not be read.
pub struct WireBody {
    /// The decoded content.
    pub content: Bytes,
    /// The memory of this body and of what is made of it: drop it when that is gone.
    pub held: HeldBytes,
}

/// The same, for a body whose media type is that of HTML forms.
pub struct FormBody(pub WireBody);

impl<S: Sync> FromRequest<S> for WireBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media_type::check(request.headers())?;
        body_of(request).await
    }
}

impl<S: Sync> FromRequest<S> for FormBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        media_type::check_form(request.headers())?;
        body_of(request).await.map(Self)
    }
}

async fn body_of(request: Request) -> Result<WireBody, Problem> {
    let limits = request.extensions().get::<BodyLimits>().expect("the middleware sets the limits").clone();
    let coding = Coding::of(request.headers())?;
    // The `Content-Length`; 0 without one.
    let declared = usize::try_from(request.body().size_hint().lower()).unwrap_or(usize::MAX);
    if declared > limits.bytes {
        return Err(too_large(&limits));
    }
    let holder = request.extensions().get::<Holder>().copied();
    let mut held = limits.budget.take(holder, COPIES * declared)?;
    let body = read(request.into_body(), declared, &limits, &mut held).await?;
    limits.place.take_again()?;
    let content = match coding {
        None => body,
        Some(coding) => {
            let decoded = decode(coding, &body, limits.bytes, |bytes| Ok(held.grow_to(COPIES * bytes)?)).await;
            Bytes::from(decoded.map_err(|error| not_decoded(error, &limits))?)
        }
    };
    Ok(WireBody { content, held })
}

async fn read(mut body: Body, declared: usize, limits: &BodyLimits, held: &mut HeldBytes) -> Result<Bytes, Problem> {
    let started = Instant::now();
    let mut pieces = Pieces::default();
    while let Some(piece) = next_piece(&mut body, started, pieces.len(), limits).await? {
        let bytes = pieces.len() + piece.len();
        if bytes > limits.bytes {
            return Err(too_large(limits));
        }
        held.grow_to(COPIES * bytes)?;
        pieces.push(piece, declared);
    }
    Ok(pieces.joined())
}

/// Returns the next piece of the body; `None` after the last one.
async fn next_piece(
    body: &mut Body,
    started: Instant,
    received: usize,
    limits: &BodyLimits,
) -> Result<Option<Bytes>, Problem> {
    loop {
        // Nearly every body is there with its head: then there is nothing to wait for.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                limits.place.leave();
                let slowest = started + limits.idle + Duration::from_secs_f64(received as f64 / MIN_RATE);
                let until = (Instant::now() + limits.idle).min(slowest).min(limits.deadline);
                tokio::time::timeout_at(until, body.frame()).await.map_err(|_| too_slow(limits))?
            }
        };
        match frame.transpose() {
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
            Err(error) => {
                let detail = "the body ended early or is not valid HTTP: send the request again";
                return Err(Problem::new(ProblemCode::IncompleteBody, detail).caused_by(error));
            }
        }
    }
}

/// The pieces of a body. Nearly every body has one piece, which is used without a copy.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    /// All pieces, if there are several.
    all: BytesMut,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    /// Adds a piece of a body that has `declared` bytes, or an unknown number if it is 0.
    fn push(&mut self, piece: Bytes, declared: usize) {
        if self.len() == 0 {
            self.first = piece;
        } else {
            if self.all.is_empty() {
                self.all.reserve(declared.max(self.first.len() + piece.len()));
            }
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
            self.all.extend_from_slice(&piece);
        }
    }

    fn joined(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

fn too_large(limits: &BodyLimits) -> Problem {
    let detail = format!("the body is larger than {} bytes: send fewer or smaller events", limits.bytes);
    Problem::new(ProblemCode::BodyTooLarge, detail)
}

fn too_slow(limits: &BodyLimits) -> Problem {
    let detail = format!(
        "the body arrived too slowly: send it without a pause of {} s, and at least {MIN_RATE} bytes per second",
        limits.idle.as_secs_f64()
    );
    Problem::new(ProblemCode::BodyTimeout, detail)
}

fn not_decoded(error: DecodeError, limits: &BodyLimits) -> Problem {
    match error {
        DecodeError::TooLarge => too_large(limits),
        DecodeError::Malformed(why) => {
            let detail = format!("the body is not valid in its content encoding, {why}: check how it is compressed");
            Problem::new(ProblemCode::MalformedEncoding, detail)
        }
        DecodeError::Refused(problem) => problem,
    }
}
