//! Events: a filter in the URL, and the newest events that match, live.

use axum::extract::State;
use maud::{Markup, html};
use pulse_store::console::{EventRow, TailFilter};

use crate::console::Console;
use crate::document;
use crate::error::PageError;
use crate::event_filter;
use crate::fields::Query;
use crate::filter_text::query;
use crate::format::{short, time};
use crate::frame::Tail;
use crate::identity::Identity;
use crate::layout;
use crate::pages::tables::{ROWS, below, older, table};
use crate::reads;
use crate::session::Viewer;

const COLUMNS: [&str; 8] = ["Id", "Accepted", "User", "Name", "Type", "Source", "Processed", "Task"];

/// The newest events that one viewer selects.
pub(crate) struct List {
    /// The filter as it was written.
    shown: String,
    filter: TailFilter,
    problems: Vec<String>,
    /// Newest first, at most [`ROWS`].
    events: Vec<EventRow>,
    /// The id below which the next page begins.
    next: Option<i64>,
    is_partial: bool,
}

/// The events that match, from PostgreSQL.
pub(crate) async fn list(
    console: &Console,
    identity: &Identity,
    shown: &str,
    below: Option<i64>,
) -> Result<List, PageError> {
    let (filter, problems) = event_filter::read(console, identity, shown).await?;
    let page = reads::events(console, identity, filter.clone(), below, ROWS).await?;
    Ok(List { shown: shown.to_owned(), filter, problems, events: page.events, next: page.next, is_partial: false })
}

impl List {
    /// Adds what is new. Of an event in both, the reading knows more.
    pub(crate) fn update(&mut self, tail: &Tail) {
        let oldest_read = tail.events.last().map_or(i64::MAX, |event| event.id);
        self.events.retain(|event| event.id < oldest_read);
        let new = tail.events.iter().filter(|event| self.filter.matches(event)).take(ROWS as usize).cloned();
        self.events.splice(0..0, new);
        if self.events.len() as i64 > ROWS {
            self.events.truncate(ROWS as usize);
            self.next = self.events.last().map(|event| event.id);
        }
        self.is_partial = tail.is_partial;
    }

    /// The live part.
    pub(crate) fn show(&self, as_of: &Markup) -> Markup {
        html! {
            p {
                (as_of)
                @if self.is_partial { span.dim { " More events arrive than are shown: reload the page to search all of them." } }
            }
            @for problem in &self.problems { p role="alert" { (problem) "." } }
            (table("Events", &COLUMNS, self.events.iter().map(row)))
            @if self.events.is_empty() { p.dim { "No event matches here." } }
            (older(&format!("/events?{}&", query(&self.shown)), self.next))
        }
    }
}

fn row(event: &EventRow) -> Vec<Markup> {
    vec![
        html! { (event.id) },
        html! { (time(event.created_at)) },
        html! { (event.user.as_deref().unwrap_or("–")) },
        html! { (event.event_name) },
        html! { (event.event_type) },
        html! { (event.source.as_deref().unwrap_or_default()) },
        html! { (if event.processed { "yes" } else { "no" }) },
        html! { a.id href={ "/tasks/" (event.task_id) } { (short(event.task_id)) } },
    ]
}

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Markup, PageError> {
    let (shown, below) = (fields.get("q"), below(&fields)?);
    let list = list(&console, &viewer.identity, shown, below).await?;
    // Older pages do not change, and live figures are those of the instance.
    let is_live = below.is_none() && viewer.identity.is_admin;
    let content = html! {
        div.head { h1 { "Events" } }
        form.filter method="get" action="/events" role="search" aria-label="Events" {
            div.fbox {
                (document::icon("search"))
                label.vh for="q" { "Filter" }
                input #q name="q" value=(shown) placeholder="user:… event:… type:… source:…" autocomplete="off" spellcheck="false";
                button.btn.btn-s { "Filter" }
            }
        }
        @if is_live {
            (layout::live(&console, &format!("events?{}", query(shown)), &list.show(&console.live.frame().as_of())))
        } @else {
            (list.show(&html! {}))
        }
    };
    Ok(layout::page(&console, &viewer, "/events", "Events", content))
}
