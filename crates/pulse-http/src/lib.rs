//! axum served safely: what every HTTP port of ours has in common.
//!
//! * [`serve`] is an accept loop of our own, because `axum::serve` sets no time-out for a request's head: slow, silent
//!   and too many connections are dealt with, and a drain answers every request that was sent.
//! * [`layered`] is the front door of a router: request id, load shedding, time-out, panics, metrics, one log line, and
//!   every error as `application/problem+json`.
//! * [`Verifier`] checks tokens; [`WireBody`] reads bodies within limits; [`admin_router`] has probes and metrics.
//!
//! It knows nothing of events, PostgreSQL or Redis.

mod admin;
mod auth;
mod body;
mod connection;
mod front;
mod metrics;
mod problem;
mod request_id;
mod server;
mod trace_context;

pub use admin::{Check, ProbeCheck, Status, admin_router};
pub use auth::{AuthConfig, AuthConfigError, Claims, IssueError, KeySource, Scope, Scopes, Verifier, issue};
pub use body::WireBody;
pub use front::{ContinueTrace, TraceParent, layered};
pub use metrics::HttpMetrics;
pub use problem::Problem;
pub use request_id::RequestId;
pub use server::{ServerConfig, serve};
