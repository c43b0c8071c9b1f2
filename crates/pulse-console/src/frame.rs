//! The figures of one second, which all viewers share.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use pulse_store::WorkerRow;
use pulse_store::console::Overview;

use crate::document::icon;
use crate::format::time;

/// The figures of one second.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// What PostgreSQL said last; `None` before the first answer.
    pub(crate) figures: Option<Arc<Figures>>,
    /// Since when PostgreSQL does not answer.
    pub(crate) away_since: Option<DateTime<Utc>>,
    /// The live part of the overview.
    pub(crate) overview: Arc<str>,
    /// The live part of the workers.
    pub(crate) workers: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) overview: Overview,
    pub(crate) workers: Vec<WorkerRow>,
}

impl Frame {
    /// When the figures were true, for the head of a live part.
    pub(crate) fn as_of(&self) -> Markup {
        let now = self.figures.as_ref().map(|figures| figures.overview.now);
        html! {
            @match (self.away_since, now) {
                (Some(since), _) => span.live.live-off { (icon("warn")) "PostgreSQL away since " (time(since)) },
                (None, Some(now)) => span.live { (icon("dot")) "Live " time datetime=(now.to_rfc3339()) { (time(now)) " UTC" } },
                (None, None) => span.live { "No figures yet" },
            }
        }
    }
}
