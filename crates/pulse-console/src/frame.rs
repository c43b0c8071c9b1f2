//! The figures of one second, which all viewers share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use maud::{Markup, html};
use pulse_store::WorkerRow;
use pulse_store::console::{Overview, Range};

use crate::document::icon;
use crate::format::{duration_text, time};

/// Age from which figures are not called live.
const FRESH: Duration = Duration::from_secs(3);

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

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) read_at: Instant,
    pub(crate) overview: Overview,
    pub(crate) workers: Vec<WorkerRow>,
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
