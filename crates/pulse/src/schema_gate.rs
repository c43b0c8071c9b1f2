//! The gate between a role's start and its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pulse_http::Problem;

/// Closed until the database has a schema that this version can run on. Readiness and the API's routes share it, so that
/// a ready API accepts requests.
#[derive(Clone, Default)]
pub(crate) struct SchemaGate(Arc<AtomicBool>);

impl SchemaGate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Middleware that answers 503 `unavailable` while the gate is closed, so that early requests do not wait.
    pub(crate) async fn pass(State(gate): State<Self>, request: Request, next: Next) -> Response {
        if gate.is_open() {
            return next.run(request).await;
        }
        Problem::unavailable("the database is not available, or its schema is not ready: try again later")
            .into_response()
    }
}
