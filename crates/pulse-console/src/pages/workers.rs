//! Workers, live.

use std::ops::Range;

use axum::extract::State;
use maud::{Markup, html};
use pulse_store::WorkerRow;

use crate::console::Console;
use crate::document;
use crate::error::PageError;
use crate::format::{age, duration_text, short};
use crate::frame::Frame;
use crate::layout;
use crate::session::Viewer;

/// Maximum number of workers on the page: every viewer gets all of them each second.
const SHOWN: usize = 50;

pub(crate) async fn page(State(console): State<Console>, viewer: Viewer) -> Result<Markup, PageError> {
    viewer.require_admin()?;
    let frame = console.live.frame();
    let content = html! {
        div.head { h1 { "Workers" } span.end { a.btn href="/queue" { "Pause all claims…" } } }
        (layout::live(&console, "workers", &figures(&frame)))
        section.sec { div.sec-h { h2 { "What drain means" } } p.soft { "A worker that drains claims nothing more, ends its attempts, and returns the other tasks without using an attempt." } }
    };
    Ok(layout::page(&console, &viewer, "/workers", "Workers", content))
}

/// The live part.
pub(crate) fn figures(frame: &Frame) -> Markup {
    let Some(figures) = &frame.figures else { return html! { p { (frame.as_of()) } } };
    let now = figures.overview.now;
    html! {
        p { (frame.as_of()) " " span.dim { (figures.overview.workers) " run, " (figures.overview.draining) " drain, " (figures.overview.in_flight) " tasks in flight" } }
        @if let Some(seconds) = figures.overview.drain_seconds {
            section.why.why-running { div { h2 { "Why the backlog waits" } p { b { (figures.overview.in_flight) " tasks are in flight on " (figures.overview.slots) " slots." } } p { "The backlog drains in " (duration_text(seconds)) "." } } }
        }
        section.sec {
            table.t.t-list role="table" {
                caption.vh { "Workers" }
                thead role="rowgroup" { tr role="row" {
                    @for (class, name) in [("nw p-a", "Worker"), ("nw p-b", "State"), ("nw p-4", "Busy"), ("r nw", "In flight"), ("r nw", "Last claim"), ("nw gap wide full", "Longest in flight"), ("nw", "Version"), ("r nw p-3", "Up for")] {
                        th role="columnheader" scope="col" class=(class) { (name) }
                    }
                } }
                tbody role="rowgroup" { @for worker in figures.workers.iter().take(SHOWN) { (row(worker, now)) } }
            }
            @if figures.workers.len() > SHOWN { p.dim { "These are " (SHOWN) " of the workers of the last hour, those that run first." } }
            @if figures.workers.is_empty() { p.dim { "No worker ran in the last hour. Start one with " code { "pulse worker" } "." } }
        }
    }
}

fn row(worker: &WorkerRow, now: chrono::DateTime<chrono::Utc>) -> Markup {
    let (class, icon, word) = match worker.state.as_str() {
        "running" => ("completed", "completed", "claims"),
        "draining" => ("retrying", "wait", "drains"),
        "stopped" => ("cancelled", "cancelled", "stopped"),
        _ => ("dead", "dead", "gone"),
    };
    html! {
        tr role="row" {
            td.nw.p-a role="cell" { b { (worker.name) } }
            td.nw.p-b role="cell" { span class={ "st st-" (class) } { (document::icon(icon)) (word) } }
            td.nw.p-4 role="cell" { (busy(worker.running, worker.concurrency)) }
            td.r.nw role="cell" data-l="in flight" { (worker.in_flight) " of " (worker.concurrency) }
            td.r.nw role="cell" data-l="last claim" { @if let Some(at) = worker.last_claim_at { (age(now, at)) " ago" } }
            td.nw.gap.wide.full role="cell" data-l="longest" {
                @if let (Some(task), Some(since)) = (worker.longest_task, worker.longest_since) { a.id href={ "/tasks/" (task) } { (short(task)) } " " span.dim { (age(now, since)) } }
            }
            td.nw role="cell" data-l="version" { (worker.version) }
            td.r.nw.p-3 role="cell" data-l="up" { (age(worker.seen_at, worker.started_at)) }
        }
    }
}

/// One cell for each of the first 16 slots.
fn busy(running: i32, slots: i32) -> Markup {
    html! {
        svg.busy viewBox="0 0 143 10" role="img" aria-label={ (running) " of " (slots) " slots busy" } {
            @let shown = slots.min(16);
            path.on d=(cells(0..running.min(shown))) {} path.off d=(cells(running.min(shown)..shown)) {}
        }
    }
}

/// The path of these cells.
fn cells(cells: Range<i32>) -> String {
    cells.map(|cell| format!("M{} 0h8v10h-8z", cell * 9)).collect()
}
