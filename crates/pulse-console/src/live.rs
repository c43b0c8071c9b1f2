//! Streams of live figures to their viewers.
//!
//! Each viewer waits for the latest frame. A viewer that reads slowly skips frames, so it holds one of them and what the
//! kernel buffers, which `pulse-http` bounds; it also closes the connection of a viewer that does not read. The bytes of a
//! frame are shared.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use pulse_metrics::Gauge;
use tokio::sync::OwnedSemaphorePermit;

use crate::console::Console;
use crate::error::PageError;
use crate::fields::Query;
use crate::frame::{Frame, MAX_VIEWERS, message};
use crate::pages::{events, tasks};
use crate::session::Viewer;

/// Maximum duration of a stream. The browser then connects again, with a token that is checked
/// again, and a user that may be disabled.
const STREAM_TIME: Duration = Duration::from_mins(5);
/// The latest end of a token, in seconds since 1970: the year 2286.
const MAX_TIME: u64 = 9_999_999_999;

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

/// The time until a token expires.
fn time_left(expires_at: u64) -> Duration {
    (UNIX_EPOCH + Duration::from_secs(expires_at.min(MAX_TIME))).duration_since(SystemTime::now()).unwrap_or_default()
}

/// What a viewer gets of each frame; nothing of one without it.
type Part = Box<dyn FnMut(&Frame) -> Option<Bytes> + Send>;

async fn part(console: &Console, viewer: &Viewer, name: &str, shown: &str) -> Result<Part, PageError> {
    viewer.require_admin()?;
    let shown = shown.to_owned();
    Ok(match name {
        "overview" => Box::new(|frame| Some(frame.overview.clone())),
        "workers" => Box::new(|frame| Some(frame.workers.clone())),
        "states" => Box::new(move |frame| Some(message(&tasks::states(frame, &shown)))),
        "events" => {
            let mut list = events::list(console, &viewer.identity, &shown, None).await?;
            let place = console.live.tails.clone().try_acquire_owned();
            Box::new(move |frame| {
                let _place = &place;
                list.update(frame.figures.as_ref()?.tail.as_ref()?);
                Some(message(&list.show(&frame.as_of())))
            })
        }
        _ => return Err(PageError::NotFound),
    })
}

/// The stream of a page. It ends with its token, and at the shutdown, so that the drain does not wait for it.
pub(crate) async fn stream(
    State(console): State<Console>,
    viewer: Viewer,
    Path(name): Path<String>,
    Query(fields): Query,
) -> Response {
    let Ok(place) = console.live.viewers.clone().try_acquire_owned() else {
        let text =
            format!("{MAX_VIEWERS} pages are live already: close one of them, or reload this page for its figures.\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], text).into_response();
    };
    let part = match part(&console, &viewer, &name, fields.get("q")).await {
        Ok(part) => part,
        Err(error) => return error.into_response(),
    };
    let place = Place::new(place, console.metrics.viewers.clone());
    let frames =
        stream::unfold((console.live.frames.clone(), part, place), |(mut frames, mut part, place)| async move {
            loop {
                frames.changed().await.ok()?;
                let content = part(&frames.borrow_and_update());
                if let Some(content) = content {
                    return Some((Ok::<_, Infallible>(content), (frames, part, place)));
                }
            }
        });
    let (shutdown, left) = (console.shutdown.clone(), time_left(viewer.identity.expires_at).min(STREAM_TIME));
    let frames = frames.take_until(async move { tokio::time::timeout(left, shutdown.cancelled()).await });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(frames)).into_response()
}
