//! Tasks: a filter in the URL, the tasks that match, and the way from any id to its task.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;
use maud::{Markup, html};
use pulse_store::console::TaskRow;

use crate::acts::Verb;
use crate::console::Console;
use crate::document;
use crate::document::state;
use crate::error::PageError;
use crate::fields::Query;
use crate::filter::STATES;
use crate::filter_text::{condition, query};
use crate::format::{age, clipped, count, short};
use crate::frame::Frame;
use crate::layout;
use crate::reads;
use crate::session::Viewer;

const PAGE: usize = 50;
const VERBS: [Verb; 3] = [Verb::Retry, Verb::Cancel, Verb::Discard];
/// States in which nothing can be done with a task.
const SETTLED: [&str; 3] = ["completed", "cancelled", "orphaned"];

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Markup, PageError> {
    let shown = fields.get("q");
    let below = fields.read("below", "The page does not exist: go back to the first one.")?;
    let (page, problems) = reads::tasks(&console, &viewer.identity, shown, below, PAGE).await?;
    let can_act = viewer.identity.is_admin && !console.config.read_only;
    let content = html! {
        div.head { h1 { "Tasks" } }
        div.split {
            (rail(&console, &viewer, shown))
            div {
                form.filter method="get" action="/tasks" role="search" aria-label="Tasks" {
                    div.fbox {
                        (document::icon("search"))
                        label.vh for="q" { "Filter" }
                        input #q name="q" value=(shown) placeholder="state:dead user:… event:… reason:… error:… since:1h" autocomplete="off" spellcheck="false" list="filters";
                        datalist #filters { @for name in STATES { option value={ "state:" (name) } {} } option value="since:1h" {} option value="since:24h" {} option value="reason:timeout" {} }
                        button.btn.btn-s { "Filter" }
                    }
                }
                @for problem in &problems { p role="alert" { (problem) "." } }
                form method="get" action="/acts/new" {
                    (table(&page.tasks, can_act))
                    @if can_act && !page.tasks.is_empty() { (bulk(shown, problems.is_empty())) }
                }
                nav.page-nav aria-label="Pages" {
                    span { (page.tasks.len()) " tasks, newest first" @if let Some(until) = page.searched_until { ", searched until " (crate::format::time(until)) } }
                    @if let Some(next) = page.next { span.end { a.btn.btn-s href={ "/tasks?" (query(shown)) "&below=" (next) } { "Older" (document::icon("right")) } } }
                }
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/tasks", "Tasks", content))
}

/// What can be done with the selected tasks, or with all that match.
fn bulk(shown: &str, is_understood: bool) -> Markup {
    html! {
        div.bulk {
            span { "The selected tasks:" }
            span.end { @for verb in VERBS { button.btn.btn-s name="do" value=(verb.as_str()) { (verb.title()) "…" } } }
            @if is_understood && !shown.is_empty() {
                span { "All that match:" }
                span.end { @for verb in VERBS { a.btn.btn-s href={ "/acts/new?do=" (verb.as_str()) "&" (query(shown)) } { (verb.title()) " all…" } } }
            }
        }
    }
}

/// States, for administrators with their counts, which are those of the instance.
fn rail(console: &Console, viewer: &Viewer, shown: &str) -> Markup {
    html! {
        nav.rail aria-label="States" {
            h2 { "State" }
            @if viewer.identity.is_admin {
                (layout::live(console, &format!("states?{}", query(shown)), &states(&console.live.frame(), shown)))
            } @else {
                (states(&Frame::default(), shown))
            }
        }
    }
}

/// The live part.
pub(crate) fn states(frame: &Frame, shown: &str) -> Markup {
    let gauges = frame.figures.as_ref().and_then(|figures| figures.overview.gauges.as_ref());
    let number = |name: &str| {
        let gauges = gauges?;
        Some(match name {
            "pending" => gauges.pending,
            "running" => gauges.running,
            "retrying" => gauges.retrying,
            "dead" => gauges.dead,
            _ => return None,
        })
    };
    html! {
        ul {
            li { a href="/tasks" aria-current=[shown.is_empty().then_some("true")] { span { "All" } span {} } }
            @for name in STATES {
                @let filter = format!("state:{name}");
                li { a href={ "/tasks?" (query(&filter)) } aria-current=[(filter == shown).then_some("true")] { (state(name)) span { @if let Some(number) = number(name) { (count(number)) } } } }
            }
        }
    }
}

fn table(tasks: &[TaskRow], can_act: bool) -> Markup {
    let now = Utc::now();
    html! {
        table.t.t-list.t-pad.t-check[can_act] role="table" {
            caption.vh { "Tasks" }
            thead role="rowgroup" { tr role="row" {
                @if can_act { th.c1 role="columnheader" scope="col" { span.vh { "Selected" } } }
                @for (class, name) in [("id p-a", "Id"), ("nw", "Event"), ("nw", "User"), ("nw p-b", "State"), ("r nw", "Attempts"), ("r nw", "Next run"), ("r nw", "Age"), ("clip", "Error")] {
                    th role="columnheader" scope="col" class=(class) { (name) }
                }
            } }
            tbody role="rowgroup" {
                @for task in tasks {
                    tr role="row" {
                        @if can_act { td.c1 role="cell" { @if SETTLED.contains(&task.state.as_str()) {} @else { input type="checkbox" name="id" value=(task.id) aria-label={ "Select " (short(task.id)) }; } } }
                        td.id.p-a role="cell" { a.id href={ "/tasks/" (task.id) } { (short(task.id)) } }
                        td.nw role="cell" { (task.event_name.as_deref().unwrap_or("deleted")) @if task.events > 1 { span.dim { " and " (task.events - 1) " more" } } }
                        td.nw role="cell" { @if let Some(user) = &task.user { a href={ "/tasks?" (query(&condition("user", user))) } { (user) } } }
                        td.nw.p-b role="cell" { (state(&task.state)) }
                        td.r.nw role="cell" data-l="attempts" { (task.attempts) @if let Some(max) = task.max_attempts { " of " (max) } }
                        td.r.nw role="cell" data-l="next run" { @if let Some(at) = task.next_run_at { @if at > now { "in " (age(at, now)) } @else { "now" } } }
                        td.r.nw role="cell" data-l="age" { (age(now, task.created_at)) }
                        td.clip role="cell" { @if let Some(error) = &task.error { span.err title=(clipped(error)) { (clipped(error)) } } }
                    }
                }
            }
        }
        @if tasks.is_empty() { p.dim { "No task matches here." } }
    }
}

/// Leads to the task of an id, or lists the tasks of a request or trace.
pub(crate) async fn go(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Response, PageError> {
    let wanted = fields.get("id");
    let hits = reads::search(&console, &viewer.identity, wanted).await?;
    match hits.as_slice() {
        [] => Err(PageError::NotFound),
        [hit] => Ok(Redirect::to(&format!("/tasks/{}", hit.task_id)).into_response()),
        hits => {
            let content = html! {
                div.head { h1 { (hits.len()) " tasks of " span.mono { (wanted) } } }
                ul { @for hit in hits { li { a.id href={ "/tasks/" (hit.task_id) } { (hit.task_id) } " " span.dim { (crate::format::time(hit.created_at)) } } } }
            };
            Ok(layout::page(&console, &viewer, "/tasks", "Search", content).into_response())
        }
    }
}
