//! The console: server-rendered pages, live over server-sent events.
//!
//! Every page and action works without script: htmx only replaces the figures that change. One task reads the figures once
//! per second, however many viewers there are. A session is the token itself, in a cookie that scripts cannot read.

mod acts;
mod api;
mod assets;
mod chart;
mod console;
mod decisions;
mod document;
mod error;
mod event_filter;
mod fields;
mod filter;
mod filter_text;
mod format;
mod frame;
mod identity;
mod layout;
mod live;
mod metrics;
mod pages;
mod reader;
mod reads;
mod session;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use pulse_http::Verifier;
use pulse_queue::Queue;
use pulse_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use api::openapi;
pub use console::ConsoleConfig;
pub use metrics::ConsoleMetrics;

/// Starts the task that reads the figures once per second until `shutdown`, and returns the routes, without the middleware
/// of pulse-http, and the acts on tasks that run: after `shutdown` each ends with its present transaction.
pub fn start(
    config: ConsoleConfig,
    store: Store,
    queue: Queue,
    verifier: Verifier,
    metrics: ConsoleMetrics,
    shutdown: CancellationToken,
) -> (Router, TaskTracker) {
    let live = reader::start(&store, metrics.figures_age.clone(), shutdown.clone());
    let console = console::Console::new(config, store, queue, verifier, live, metrics, shutdown);
    let acts = console.acts.clone();
    let pages = pages::routes().route("/live/{part}", get(live::stream)).layer(from_fn(session::same_origin));
    let routes = pages.layer(from_fn(error::in_time)).merge(api::routes()).with_state(console);
    (routes.layer(from_fn(assets::compress)).layer(from_fn(assets::secure)), acts)
}
