//! The console: server-rendered pages, live over server-sent events.
//!
//! Every page and action works without script: htmx only replaces the figures that change. One task reads the figures once
//! per second, however many viewers there are. A session is the token itself, in a cookie that scripts cannot read.

mod assets;
mod chart;
mod console;
mod decisions;
mod document;
mod error;
mod fields;
mod format;
mod frame;
mod layout;
mod live;
mod metrics;
mod pages;
mod session;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use pulse_http::Verifier;
use pulse_queue::Queue;
use pulse_store::Store;
use tokio_util::sync::CancellationToken;

pub use console::ConsoleConfig;
pub use metrics::ConsoleMetrics;

/// Starts the task that reads the figures once per second until `shutdown`, and returns the pages, without the middleware of
/// pulse-http.
pub fn start(
    config: ConsoleConfig,
    store: Store,
    queue: Queue,
    verifier: Verifier,
    metrics: ConsoleMetrics,
    shutdown: CancellationToken,
) -> Router {
    let frames = live::start(&store, metrics.figures_age.clone(), shutdown.clone());
    let console = console::Console::new(config, store, queue, verifier, frames, metrics, shutdown);
    let routes = pages::routes().route("/live/{part}", get(live::stream));
    routes
        .with_state(console)
        .layer(from_fn(error::in_time))
        .layer(from_fn(assets::compress))
        .layer(from_fn(assets::secure))
}
