//! The middleware of a router: everything that each request passes, in one place and in order.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::access_log::AccessLog;
use crate::body::{self, BodyLimits};
use crate::budget::{Holder, MemoryBudget};
use crate::in_flight::Place;
use crate::metrics::HttpMetrics;
use crate::problem::Problem;
use crate::problem_code::ProblemCode;
use crate::protocol;
use crate::request_id::{self, RequestId};
use crate::server::ServerConfig;

/// Size from which an answer takes from the memory budget, in bytes. Smaller ones fit into the buffers of a connection.
const LARGE_ANSWER: usize = 16 * 1024;

/// Makes the trace context in the headers, if any, the parent of the request's span.
pub type ContinueTrace = fn(&Span, &HeaderMap) -> RequestTrace;

/// The trace of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestTrace {
    /// The `traceparent` to store with the task of the request.
    pub traceparent: Option<String>,
    /// Its id, if the request's span is exported.
    pub exported_id: Option<String>,
}

/// The `traceparent` to store with the task of a request, in the extensions of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(pub Option<String>);

struct Middleware {
    metrics: HttpMetrics,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
    max_body_bytes: usize,
    body_idle_timeout: Duration,
    budget: MemoryBudget,
    continue_trace: Option<ContinueTrace>,
    access_log: AccessLog,
}

/// Adds the middleware to `router`: request id, load shedding, time-out, panic handling, problem details, metrics, one
/// log line per request. Without `continue_trace`, requests have no trace.
pub fn layered(
    router: Router,
    metrics: HttpMetrics,
    config: &ServerConfig,
    continue_trace: Option<ContinueTrace>,
) -> Router {
    let middleware = Middleware {
        metrics,
        in_flight: Arc::new(Semaphore::new(config.max_in_flight)),
        timeout: config.request_timeout,
        max_body_bytes: config.max_body_bytes,
        body_idle_timeout: config.body_idle_timeout,
        budget: MemoryBudget::new(config.memory_bytes, body::largest(config.max_body_bytes)),
        continue_trace,
        access_log: config.access_log.clone(),
    };
    with_fallbacks(router).layer(from_fn_with_state(Arc::new(middleware), handle))
}

/// Answers unknown routes and methods with problem details.
fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || Problem::new(ProblemCode::NotFound, "no route has this path: check its spelling"))
        .method_not_allowed_fallback(async || {
            let detail = "the route does not support this method: use a method of the Allow header";
            Problem::new(ProblemCode::MethodNotAllowed, detail)
        })
}

async fn handle(State(middleware): State<Arc<Middleware>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", |path| path.as_str().trim_end_matches('/'));
    let method = request.method().clone();
    let (span, trace) = match middleware.continue_trace {
        Some(continue_trace) => {
            let method = method.as_str();
            let span = tracing::info_span!("http_request", request_id = &*id.0, method, route, trace_id = Empty);
            let trace = continue_trace(&span, request.headers());
            (span, trace)
        }
        None => (Span::none(), RequestTrace::default()),
    };
    request.extensions_mut().insert(TraceParent(trace.traceparent));
    request.extensions_mut().insert(id.clone());
    let entry = middleware.access_log.begin(&mut request);

    middleware.metrics.active.inc();
    let mut response = match protocol::check(&request) {
        Ok(()) => respond(&middleware, request, next).instrument(span).await,
        Err(problem) => problem.into_response(),
    };
    middleware.metrics.active.dec();

    let problem = response.extensions_mut().remove::<Problem>();
    let code = problem.as_ref().map(|problem| problem.code().as_str());
    if let Some(problem) = problem {
        middleware.metrics.count_problem(problem.code().as_str());
        problem.log(&id.0);
        let rendered = problem.render(&id.0);
        response = keep_headers(response.headers(), rendered);
    }
    if let Some(value) = id.header_value() {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    secure(response.headers_mut());
    let (status, duration) = (response.status(), started.elapsed());
    middleware.metrics.record(route, &method, status, duration, trace.exported_id.as_deref());
    if let Some(entry) = entry {
        middleware.access_log.end(entry, (&id.0, &method, route), (status, code, duration));
    }
    let duration_ms = duration.as_secs_f64() * 1000.0;
    tracing::debug!(
        request_id = &*id.0,
        method = method.as_str(),
        route,
        status = status.as_u16(),
        duration_ms,
        "request"
    );
    response
}

async fn respond(middleware: &Middleware, mut request: Request, next: Next) -> Response {
    let place = match Place::take(&middleware.in_flight) {
        Ok(place) => place,
        Err(problem) => return problem.into_response(),
    };
    let deadline = tokio::time::Instant::now() + middleware.timeout;
    request.extensions_mut().insert(BodyLimits {
        bytes: middleware.max_body_bytes,
        idle: middleware.body_idle_timeout,
        deadline,
        budget: middleware.budget.clone(),
        place: place.clone(),
    });
    match tokio::time::timeout_at(deadline, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
        Ok(Ok(response)) => holding_memory(&middleware.budget, response).await,
        Ok(Err(panic)) => Problem::internal().caused_by(Panicked(panic_message(&*panic))).into_response(),
        Err(_) => {
            let detail = "the request took too long, and its outcome is unknown: send it again later";
            Problem::new(ProblemCode::RequestTimeout, detail).retry_after(1).into_response()
        }
    }
}

/// Adds headers for browsers and caches, unless the route has set them: a response belongs to one user, is not a page,
/// and is what its media type says.
fn secure(headers: &mut HeaderMap) {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Takes the memory of a large answer from the budget until it is sent; without any, the answer is 503.
async fn holding_memory(budget: &MemoryBudget, response: Response) -> Response {
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
    if bytes < LARGE_ANSWER {
        return response;
    }
    let held = match budget.take(response.extensions().get::<Holder>().copied(), bytes) {
        Ok(held) => held,
        Err(exhausted) => return Problem::from(exhausted).into_response(),
    };
    let (parts, body) = response.into_parts();
    // A body of known size is one piece, so this copies nothing.
    match axum::body::to_bytes(body, bytes).await {
        Ok(content) => Response::from_parts(parts, Body::from(held.until_dropped(content))),
        Err(error) => Problem::internal().caused_by(error).into_response(),
    }
}

/// Keeps headers that the router added to the response, such as `Allow`.
fn keep_headers(from: &HeaderMap, mut rendered: Response) -> Response {
    for (name, value) in from {
        if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    rendered
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
