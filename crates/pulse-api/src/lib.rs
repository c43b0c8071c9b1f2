//! The HTTP API: accepts events and answers queries about events and tasks.
//!
//! A 202 means that the event and its task are committed in PostgreSQL. The task id is then enqueued in Redis, best
//! effort. The paths and JSON fields of the five event routes are stable: existing clients depend on them. Each handler
//! authenticates the client, parses the request, calls the store and builds the response. No request of a client may
//! cause a 500; every other response is in the OpenAPI document.
//!
//! This crate does not open a port. `pulse-http` provides the listener, time-outs, request ids and the rendering of
//! problem details; the caller wraps `router` with `pulse_http::layered`.

mod auth;
mod body;
mod cors;
mod cursor;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod idempotency;
mod limits;
mod limits_update;
mod metrics;
mod openapi;
mod prefer;
mod query;
mod routes;
mod state;
mod users;
mod wire;

pub use cors::cors;
pub use metrics::ApiMetrics;
pub use routes::{openapi, router};
pub use state::{Api, ApiConfig, AppState};
