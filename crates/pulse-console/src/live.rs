//! Live figures: one task reads them once per second and renders them once, for all viewers.
//!
//! Each viewer waits for the latest frame. A viewer that reads slowly skips frames, so it holds one of them and what the
//! kernel buffers, which `pulse-http` bounds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use maud::Markup;
use pulse_metrics::{FloatGauge, Gauge};
use pulse_store::{Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::frame::{Figures, Frame};
use crate::pages::{overview, workers};
use crate::session::Viewer;

/// Time between two readings.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time without a byte, for proxies between.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Renders the live parts.
fn rendered(figures: Option<Arc<Figures>>, away_since: Option<DateTime<Utc>>) -> Frame {
    let mut frame = Frame { figures, away_since, ..Frame::default() };
    frame.overview = text(overview::figures(&frame));
    frame.workers = text(workers::figures(&frame));
    frame
}

/// A message must have no carriage return.
fn text(markup: Markup) -> Arc<str> {
    markup.into_string().replace('\r', " ").into()
}

/// Starts the task.
pub(crate) fn start(store: Store, age: FloatGauge, shutdown: CancellationToken) -> watch::Receiver<Arc<Frame>> {
    let (sender, receiver) = watch::channel(Arc::<Frame>::default());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read_at = Instant::now();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let last: Arc<Frame> = sender.borrow().clone();
            let frame = match read(&store).await {
                Ok(figures) => {
                    read_at = Instant::now();
                    rendered(Some(Arc::new(figures)), None)
                }
                Err(error) => {
                    tracing::debug!(%error, "no figures for the console");
                    rendered(last.figures.clone(), Some(last.away_since.unwrap_or_else(Utc::now)))
                }
            };
            age.set(read_at.elapsed().as_secs_f64());
            sender.send_replace(Arc::new(frame));
        }
    });
    receiver
}

async fn read(store: &Store) -> Result<Figures, StoreError> {
    Ok(Figures { overview: store.overview().await?, workers: store.workers().await? })
}

/// The place of a stream, which is counted as long as it lasts.
struct Place {
    _permit: OwnedSemaphorePermit,
    viewers: Gauge,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, viewers: Gauge) -> Self {
        viewers.inc();
        Self { _permit: permit, viewers }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.viewers.dec();
    }
}

/// The stream of a page. It ends at the shutdown, so that the drain does not wait for it.
pub(crate) async fn stream(State(console): State<Console>, viewer: Viewer, Path(part): Path<String>) -> Response {
    if let Err(denied) = viewer.require_admin() {
        return denied.into_response();
    }
    let part: fn(&Frame) -> Arc<str> = match part.as_str() {
        "overview" => |frame| frame.overview.clone(),
        "workers" => |frame| frame.workers.clone(),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let Ok(place) = console.viewers.clone().try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let place = Place::new(place, console.metrics.viewers.clone());
    let frames = stream::unfold((console.frames.clone(), place), move |(mut frames, place)| async move {
        frames.changed().await.ok()?;
        let content = part(&frames.borrow_and_update());
        Some((Ok::<_, Infallible>(Event::default().data(&*content)), (frames, place)))
    });
    let shutdown = console.shutdown.clone();
    let frames = frames.take_until(async move { shutdown.cancelled().await });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}
