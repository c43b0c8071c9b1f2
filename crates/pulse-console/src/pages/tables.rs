//! Pages that are plain tables: schedules, queue, audit log.

use axum::extract::State;
use chrono::Utc;
use maud::{Markup, html};
use pulse_store::console::GaugesRow;

use crate::console::Console;
use crate::document;
use crate::error::PageError;
use crate::fields::{Fields, Query};
use crate::format::{age, clipped, count, time};
use crate::layout::{self, act_fields};
use crate::reads;
use crate::session::Viewer;

/// Rows of a page: few enough for 100 KB with the longest texts that there can be.
pub(super) const ROWS: i64 = 50;

pub(super) fn below(fields: &Fields) -> Result<Option<i64>, PageError> {
    fields.read("below", "The page does not exist: go back to the first one.")
}

pub(super) fn table(caption: &str, columns: &[&str], rows: impl Iterator<Item = Vec<Markup>>) -> Markup {
    html! {
        table.t.t-list role="table" {
            caption.vh { (caption) }
            thead role="rowgroup" { tr role="row" { @for name in columns { th.nw role="columnheader" scope="col" { (name) } } } }
            tbody role="rowgroup" { @for row in rows { tr role="row" { @for (cell, name) in row.iter().zip(columns) { td role="cell" data-l=(name.to_lowercase()) { (cell) } } } } }
        }
    }
}

/// The way to the next page; `path` ends with `?` or `&`.
pub(super) fn older(path: &str, below: Option<i64>) -> Markup {
    html! { @if let Some(below) = below { nav.page-nav aria-label="Pages" { span.end { a.btn.btn-s href={ (path) "below=" (below) } { "Older" (document::icon("right")) } } } } }
}

pub(crate) async fn schedules(State(console): State<Console>, viewer: Viewer) -> Result<Markup, PageError> {
    let schedules = reads::schedules(&console, &viewer.identity).await?;
    let now = Utc::now();
    let rows = schedules.jobs.iter().map(|job| {
        vec![
            html! { b { (job.name) } },
            html! { (age(now, job.last_run_at)) " ago" },
            html! { @if let Some(at) = job.next_run_at { (time(at)) } },
            html! { @if let Some(ms) = job.last_duration_ms { (ms) " ms" } },
            html! { (job.last_outcome.as_deref().unwrap_or("runs")) },
        ]
    });
    let content = html! {
        div.head {
            h1 { "Schedules" }
            @match &schedules.leader {
                Some(leader) if leader.expires_at > now => span.dim { (leader.holder) " leads" },
                _ => span.st.st-dead { (document::icon("dead")) "no scheduler runs" },
            }
        }
        (table("Schedules", &["Job", "Last run", "Next run", "Took", "Outcome"], rows))
    };
    Ok(layout::page(&console, &viewer, "/schedules", "Schedules", content))
}

pub(crate) async fn queue(State(console): State<Console>, viewer: Viewer) -> Result<Markup, PageError> {
    let view = reads::queue(&console, &viewer.identity).await?;
    let unknown = || "unknown".to_owned();
    let figure = |of: fn(&GaugesRow) -> Option<i64>| view.gauges.as_ref().and_then(of).map_or_else(unknown, count);
    let facts = [
        ("Pending, running, retrying", figure(|gauges| Some(gauges.unsettled()))),
        ("Due in PostgreSQL", figure(|gauges| Some(gauges.due))),
        ("Of these, not on the stream", figure(|gauges| Some(gauges.due_not_enqueued))),
        ("Undelivered in Redis", figure(|gauges| gauges.undelivered)),
        ("In flight in Redis", figure(|gauges| gauges.in_flight)),
        ("Drift: believed to be on the stream, and not there", view.drift.map_or_else(unknown, count)),
        ("Lost tasks enqueued again in the last hour", count(view.requeued_last_hour)),
        ("Refused settlements in the last hour", count(view.refused_last_hour)),
    ];
    let content = html! {
        div.head { h1 { "Queue" } }
        section.why.why-retrying[view.pause.is_some()].why-running[view.pause.is_none()] {
            div { @match &view.pause {
                Some(pause) => { h2 { "Paused" } p { b { "No worker claims since " (time(pause.paused_at)) ", by " (pause.actor) @if let Some(reason) = &pause.reason { ": " (reason) } "." } } p { "Running tasks end; events are accepted and wait." } },
                None => { h2 { "Claims" } p { b { "Workers claim tasks." } } },
            } }
            @if !console.config.read_only {
                form method="post" action=(if view.pause.is_some() { "/queue/resume" } else { "/queue/pause" }) {
                    (act_fields(&viewer)) p { button.btn.btn-1 { (if view.pause.is_some() { "Resume all claims" } else { "Pause all claims" }) } }
                }
            }
        }
        section.sec { dl.facts { @for (name, value) in &facts { dt { (name) } dd { (value) } } } }
    };
    Ok(layout::page(&console, &viewer, "/queue", "Queue", content))
}

pub(crate) async fn audit(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Markup, PageError> {
    let (rows, next) = reads::audit(&console, &viewer.identity, below(&fields)?, ROWS).await?;
    let cells = rows.iter().map(|row| {
        vec![
            html! { (time(row.at)) },
            html! { b { (row.actor) } },
            html! { (row.action) },
            html! { (clipped(&row.target)) },
            html! { (count(row.count)) },
            html! { (row.outcome.as_deref().unwrap_or_default()) },
            html! { (row.reason.as_deref().unwrap_or_default()) },
            html! { (row.via) },
            html! { (row.database_role) },
        ]
    });
    let columns = ["Time", "Who", "Act", "Target", "Count", "Outcome", "Reason", "Via", "Database role"];
    let content =
        html! { div.head { h1 { "Audit log" } } (table("Audit log", &columns, cells)) (older("/audit?", next)) };
    Ok(layout::page(&console, &viewer, "/audit", "Audit log", content))
}
