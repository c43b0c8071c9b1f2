//! The ingest role: the HTTP contract, from the body of a POST to its 202.
//!
//! A 202 means that the event and its task are committed in PostgreSQL; Redis is told afterwards, as well as it can be.
//! The routes and the JSON of the replaced system are kept, field for field. Each handler reads: who calls, what was
//! sent, what the store says, what is answered. Whatever a client sends, the answer is a documented one and never a 500.
//!
//! It does not serve by itself: the listener, time-outs, request ids and the rendering of problems are `pulse-http`'s,
//! which `router` expects around it (`pulse_http::layered`).

mod auth;
mod body;
mod cursor;
mod error;
mod idempotency;
mod metrics;
mod openapi;
mod prefer;
mod query;
mod routes;
mod state;
mod users;
mod wire;

pub use metrics::ApiMetrics;
pub use openapi::openapi;
pub use routes::router;
pub use state::{Api, ApiConfig, AppState};
