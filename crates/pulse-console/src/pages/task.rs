//! One task: from its request to its trace, and what can be done.

use axum::extract::State;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use pulse_explain::{Step, StepKind, steps};
use pulse_store::console::TaskDetail;

use crate::console::Console;
use crate::document;
use crate::document::state;
use crate::error::PageError;
use crate::fields::Id;
use crate::format::{age, clipped, count, duration_text, time};
use crate::layout::{self, act_fields};
use crate::pages::why;
use crate::reads;
use crate::session::Viewer;

/// Maximum number of events, children or failed attempts on the page.
const LISTED: usize = 20;

/// How many more than [`LISTED`] there are.
fn more(number: usize) -> Option<String> {
    number.checked_sub(LISTED).filter(|more| *more > 0).map(|more| count(more as i64))
}

pub(crate) async fn page(State(console): State<Console>, viewer: Viewer, Id(id): Id) -> Result<Markup, PageError> {
    let detail = reads::task(&console, &viewer.identity, id).await?;
    let task = &detail.task;
    let why = why::section(&console, &viewer, task).await;
    let can_act = viewer.identity.is_admin && !console.config.read_only;
    let content = html! {
        p.crumb.small { a href="/tasks" { "Tasks" } }
        div.head { h1 { (state(&task.state)) " " span.nw { (task.kind) } } span.id { (task.id) } }
        (why)
        div.cols {
            div {
                section.sec { div.sec-h { h2 { "Timeline" } } (timeline(&detail)) }
                @if !task.errors.0.is_empty() { section.sec {
                    div.sec-h { h2 { "Failed attempts" } span.small.dim { (task.errors.0.len()) } }
                    table.t.t-list role="table" {
                        thead role="rowgroup" { tr role="row" { th.nw.p-a role="columnheader" scope="col" { "No." } th.nw role="columnheader" scope="col" { "Failed" } th.nw role="columnheader" scope="col" { "Reason" } th.full.wide role="columnheader" scope="col" { "Error" } } }
                        tbody role="rowgroup" { @for failed in task.errors.0.iter().rev().take(LISTED) {
                            tr role="row" { td.nw.p-a role="cell" { (failed.attempt) } td.nw role="cell" { (time(failed.at)) } td.nw role="cell" { (failed.reason.as_str()) } td.full.wide role="cell" { span.err { (failed.error) } } }
                        } }
                    }
                } }
            }
            div {
                (facts(&detail))
                @if can_act { (actions(&viewer, &detail)) }
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/tasks", "Task", content))
}

fn timeline(detail: &TaskDetail) -> Markup {
    let task = &detail.task;
    let mut steps = steps(task, detail.events.first().map(|event| event.event_name.as_str()), Utc::now());
    let mut failures = steps.iter().filter(|step| step.kind == StepKind::Failure).count();
    steps.retain(|step| {
        let is_old = step.kind == StepKind::Failure && failures > LISTED;
        failures -= usize::from(is_old);
        !is_old
    });
    let last = steps.last().map_or(task.created_at, |step| step.at);
    let earlier: Vec<DateTime<Utc>> =
        std::iter::once(task.created_at).chain(steps.iter().map(|step| step.at)).collect();
    html! {
        ol.tl {
            @for (step, before) in steps.iter().zip(earlier) {
                li {
                    span.dim { (document::icon(icon(step, &task.state))) } b.nw { (step.kind.as_str()) } span.what { (clipped(&step.text)) }
                    span.r { "+" (duration_text((step.at - task.created_at).as_seconds_f64())) }
                    span.at { (time(step.at)) }
                    (bar(icon(step, &task.state), [before, step.at].map(|time| part(task.created_at, time, last))))
                }
            }
            @if let Some(trace) = &task.traceparent {
                li { span.dim { (document::icon("trace")) } b.nw { "trace" } span.what { span.mono { (trace) } } }
            }
        }
    }
}

fn icon(step: &Step, state: &str) -> &'static str {
    match step.kind {
        StepKind::Request => "req",
        StepKind::Accept => "event",
        StepKind::Enqueue => "pending",
        StepKind::Claim => "running",
        StepKind::Settlement if state == "completed" => "completed",
        StepKind::Failure | StepKind::Settlement => "dead",
        StepKind::LeaseEnd | StepKind::NextAttempt => "wait",
    }
}

/// Where `time` is between `first` and `last`, in percent of the bar's width.
fn part(first: DateTime<Utc>, time: DateTime<Utc>, last: DateTime<Utc>) -> f64 {
    let all = (last - first).as_seconds_f64().max(0.001);
    97.0 * ((time - first).as_seconds_f64() / all).clamp(0.0, 1.0)
}

/// The time until a step, and the step.
fn bar(icon: &str, [from, to]: [f64; 2]) -> Markup {
    let class = match icon {
        "dead" => "b-dead",
        "running" | "completed" => "b-run",
        "wait" => "b-next",
        _ => "b-ok",
    };
    html! {
        svg.bar aria-hidden="true" {
            line.b-wait x1=(format!("{from:.1}%")) x2=(format!("{to:.1}%")) y1="16" y2="16" {}
            rect class=(class) x=(format!("{to:.1}%")) y="11" width="6" height="10" rx="1" {}
        }
    }
}

fn facts(detail: &TaskDetail) -> Markup {
    let task = &detail.task;
    let now = Utc::now();
    html! {
        section.sec {
            div.sec-h { h2 { "Facts" } }
            dl.facts {
                @if let Some(user) = &detail.user { dt { "User" } dd { (user) } }
                dt { "Accepted" } dd { (time(task.created_at)) ", " (age(now, task.created_at)) " ago" }
                dt { "Attempts" } dd { (task.attempts) @if let Some(max) = task.max_attempts { " of " (max) } }
                @if let Some(at) = task.next_run_at { dt { "Next run" } dd { (time(at)) } }
                @if let Some(at) = task.lease_until { dt { "Lease until" } dd { (time(at)) } }
                @if let Some(worker) = &task.worker { dt { "Worker" } dd { (worker) @if let Some(known) = &detail.worker { ", " (known.state) } } }
                @if let Some(parent) = task.parent_id { dt { "Batch" } dd { a.id href={ "/tasks/" (parent) } { (parent) } } }
                @for child in task.children.iter().flatten().take(LISTED) { dt { "Child" } dd { a.id href={ "/tasks/" (child) } { (child) } } }
                @if let Some(more) = more(task.children.as_ref().map_or(0, Vec::len)) { dt { "Further children" } dd { (more) } }
                @if let Some(number) = detail.same_error { dt { "Like it" } dd { (count(number)) " dead letters with this error" } }
                @for event in detail.events.iter().take(LISTED) { dt { "Event " (event.id) } dd { (event.event_name) ", " (event.event_type) @if let Some(source) = &event.source { ", from " (source) } @if let Some(error) = &event.processing_error { ": " span.err { (clipped(error)) } } } }
                @if let Some(more) = more(task.event_ids.len()) { dt { "Further events" } dd { (more) } }
            }
        }
    }
}

fn actions(viewer: &Viewer, detail: &TaskDetail) -> Markup {
    let id = detail.task.id;
    let is_dead = detail.task.state == "dead";
    html! {
        @if is_dead || ["pending", "running", "retrying"].contains(&detail.task.state.as_str()) {
            section.sec {
                div.sec-h { h2 { "Act" } }
                form method="post" action="/acts" {
                    input type="hidden" name="id" value=(id);
                    (act_fields(viewer))
                    p {
                        @if is_dead { button.btn.btn-1 name="do" value="retry" { "Retry now" } " " button.btn.btn-dead name="do" value="discard" { "Discard" } }
                        @else { button.btn.btn-dead name="do" value="cancel" { "Cancel" } }
                    }
                }
            }
        }
    }
}
