//! The figures of one second, which all viewers share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use maud::{Markup, html};
use pulse_store::WorkerRow;
use pulse_store::console::{EventRow, Overview, Range};
use tokio::sync::{Semaphore, watch};

use crate::document::icon;
use crate::format::{duration_text, time};

/// Maximum number of live streams; further pages stay as they were loaded.
pub(crate) const MAX_VIEWERS: usize = 256;
/// Age from which figures are not called live.
const FRESH: Duration = Duration::from_secs(3);

/// What viewers share.
#[derive(Clone)]
pub(crate) struct Live {
    /// The latest frame.
    pub(crate) frames: watch::Receiver<Arc<Frame>>,
    /// Places of streams.
    pub(crate) viewers: Arc<Semaphore>,
    /// Places of those that show events, which are only read while one of them is taken.
    pub(crate) tails: Arc<Semaphore>,
}

impl Live {
    pub(crate) fn new(frames: watch::Receiver<Arc<Frame>>) -> Self {
        let places = || Arc::new(Semaphore::new(MAX_VIEWERS));
        Self { frames, viewers: places(), tails: places() }
    }

    pub(crate) fn frame(&self) -> Arc<Frame> {
        self.frames.borrow().clone()
    }

    /// Whether one more page can be live.
    pub(crate) fn has_place(&self) -> bool {
        self.viewers.available_permits() > 0
    }
}

/// The figures of one second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    /// What PostgreSQL said last; `None` before the first answer.
    pub(crate) figures: Option<Arc<Figures>>,
    /// Whether the last reading failed. Otherwise old figures mean that the present one takes long.
    pub(crate) failed: bool,
    /// The charts of each [`Range`], rendered; `None` before the first answer.
    pub(crate) charts: [Option<Arc<str>>; 3],
    /// The live part of the overview, as a server-sent event.
    pub(crate) overview: Bytes,
    /// The live part of the workers.
    pub(crate) workers: Bytes,
}

/// A server-sent event of one line.
pub(crate) fn message(content: &Markup) -> Bytes {
    format!("data: {}\n\n", content.0.replace(['\r', '\n'], " ")).into()
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) read_at: Instant,
    pub(crate) overview: Overview,
    pub(crate) workers: Vec<WorkerRow>,
    /// The newest events; `None` if no page shows them.
    pub(crate) tail: Option<Tail>,
}

/// The newest events of all users, newest first.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) events: Vec<EventRow>,
    /// Whether more events arrived since the reading before than one reading has.
    pub(crate) is_partial: bool,
}

impl Frame {
    pub(crate) fn charts(&self, range: Range) -> Option<&str> {
        self.charts[range as usize].as_deref()
    }

    /// The age of the figures if they are not live.
    pub(crate) fn stale(&self) -> Option<Duration> {
        let age = self.figures.as_ref()?.read_at.elapsed();
        (age > FRESH).then_some(age)
    }

    /// When the figures were true, for the head of a live part.
    pub(crate) fn as_of(&self) -> Markup {
        let now = self.figures.as_ref().map(|figures| figures.overview.now);
        let why = if self.failed { "PostgreSQL does not answer" } else { "PostgreSQL answers slowly" };
        html! {
            @match (now, self.stale()) {
                (Some(now), Some(age)) => span.live.live-off { (icon("warn")) (why) ": figures of " time datetime=(now.to_rfc3339()) { (time(now)) " UTC" } ", " (duration_text(age.as_secs_f64())) " old" },
                (Some(now), None) => span.live { (icon("dot")) "Live " time datetime=(now.to_rfc3339()) { (time(now)) " UTC" } },
                (None, _) if self.failed => span.live.live-off { (icon("warn")) (why) ": no figures yet" },
                (None, _) => span.live { "No figures yet" },
            }
        }
    }
}
