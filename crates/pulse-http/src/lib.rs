//! The HTTP server that all ports share, built on axum.
//!
//! * [`serve`] is a custom accept loop, because `axum::serve` has no time-out for reading a request head. It limits the
//!   number of connections, closes slow and silent ones, and drains: every request that was sent is answered.
//! * [`layered`] adds the middleware of a router: request id, load shedding, time-out, panic handling, metrics, one log
//!   line per request, and every error as `application/problem+json`.
//! * [`Verifier`] verifies tokens, [`WireBody`] reads bodies within limits, [`admin_router`] serves probes and metrics.
//!
//! This crate does not depend on events, PostgreSQL or Redis.

mod access_log;
mod admin;
mod body;
mod budget;
mod connection;
mod content_coding;
mod http2;
mod in_flight;
mod media_type;
mod metrics;
mod middleware;
mod openapi;
mod peers;
mod places;
mod preface;
mod problem;
mod problem_code;
mod protocol;
mod refused_head;
mod request_body;
mod request_id;
mod reread;
mod server;
mod serving;
mod serving_limits;
mod state;
mod tls;
mod tokens;
mod transport;
mod unsent;

pub use access_log::{AccessLog, LoggedAddress, LoggedRequests, RequestSubject};
pub use admin::{Check, ProbeCheck, Status, admin_router};
pub use body::{FormBody, WireBody};
pub use budget::{HeldBytes, Holder};
pub use metrics::HttpMetrics;
pub use middleware::{ContinueTrace, RequestTrace, TraceParent, layered};
pub use openapi::{ErrorDocument, ProblemDocument, add_bearer, problems, text_header};
pub use problem::Problem;
pub use problem_code::ProblemCode;
pub use request_id::RequestId;
pub use server::{ServerConfig, serve};
pub use serving::{Encrypted, Peer};
pub use tls::{ServerTls, TlsFiles, TlsFilesError};
pub use tokens::{
    AuthConfig, Claims, IssueError, JwksConfig, KeyError, KeyFileError, KeySource, MAX_LIFETIME, NewClaims, Scope,
    Scopes, UsedKey, UsedKeys, Verifier, VerifierError, issue, jwks_url,
};
