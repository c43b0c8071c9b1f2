//! Tasks: a filter in the URL, the tasks that match, and the way from any id to its task.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{TimeDelta, Utc};
use maud::{Markup, html};
use pulse_store::console::{PageFilter, TaskRow};
use serde::Deserialize;
use uuid::Uuid;

use crate::console::Console;
use crate::document;
use crate::document::state;
use crate::error::PageError;
use crate::format::{age, clipped, count, short};
use crate::layout;
use crate::session::Viewer;

const PAGE: usize = 50;
const STATES: [&str; 6] = ["pending", "running", "retrying", "dead", "completed", "cancelled"];
/// Longest filter that is read, in bytes.
const MAX_FILTER: usize = 1024;

#[derive(Deserialize)]
pub(crate) struct Shown {
    #[serde(default)]
    q: String,
    below: Option<Uuid>,
}

/// The conditions of a filter such as `state:dead,retrying user:ada error:"timed out" since:1h`, and its words that are none.
fn conditions(text: &str) -> (Vec<(&str, &str)>, Vec<&str>) {
    const KEYS: [&str; 7] = ["state", "user", "event", "reason", "error", "group", "since"];
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut rest = text.trim();
    while !rest.is_empty() {
        let quote = rest.find(":\"").filter(|at| !rest[..*at].contains(char::is_whitespace));
        let end = match quote {
            Some(at) => rest[at + 2..].find('"').map_or(rest.len(), |end| at + 3 + end),
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        let word = &rest[..end];
        match word.split_once(':').filter(|(key, value)| KEYS.contains(key) && !value.is_empty()) {
            Some((key, value)) => known.push((key, value.trim_matches('"'))),
            None => unknown.push(word),
        }
        rest = rest[end..].trim_start();
    }
    (known, unknown)
}

/// A time such as `15m`, `1h` or `7d`.
fn since(text: &str) -> Option<TimeDelta> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = number.parse().ok().filter(|number| (1..=10_000).contains(number))?;
    match unit {
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        _ => None,
    }
}

async fn filter(console: &Console, viewer: &Viewer, text: &str) -> Result<(PageFilter, Vec<String>), PageError> {
    let (known, unknown) = conditions(text);
    let mut problems: Vec<String> = unknown.into_iter().map(|word| format!("“{word}” is not a condition")).collect();
    let mut filter = PageFilter { user_id: viewer.user_id, ..PageFilter::default() };
    for (key, value) in known {
        let owned = Some(value.to_owned());
        match key {
            "state" => filter.states = value.split(',').map(str::to_owned).collect(),
            "event" => filter.event_name = owned,
            "reason" => filter.reason = owned,
            "error" => filter.error_prefix = owned,
            "group" => filter.error_group = owned,
            "since" => match since(value) {
                Some(time) => filter.since = Some(Utc::now() - time),
                None => problems.push(format!("since:{value} is not a time such as 15m, 1h or 7d")),
            },
            // Others than administrators see their own data whatever they ask for.
            _ if viewer.is_admin => {
                filter.user_id = Some(console.store.find_user(value).await?.map_or(-1, |user| user.id))
            }
            _ => problems.push("only administrators select a user".into()),
        }
    }
    Ok((filter, problems))
}

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Markup, PageError> {
    if shown.q.len() > MAX_FILTER {
        return Err(PageError::Field("The filter is longer than 1,024 bytes: shorten it."));
    }
    let (filter, problems) = filter(&console, &viewer, &shown.q).await?;
    let page = console.store.task_page(&filter, shown.below, PAGE).await?;
    let content = html! {
        div.head { h1 { "Tasks" } }
        div.split {
            (rail(&console, &viewer, &shown.q))
            div {
                form.filter method="get" action="/tasks" role="search" aria-label="Tasks" {
                    div.fbox {
                        (document::icon("search"))
                        label.vh for="q" { "Filter" }
                        input #q name="q" value=(shown.q) placeholder="state:dead user:… event:… reason:… error:… since:1h" autocomplete="off" spellcheck="false" list="filters";
                        datalist #filters { @for name in STATES { option value={ "state:" (name) } {} } option value="since:1h" {} option value="since:24h" {} option value="reason:timeout" {} }
                        button.btn.btn-s { "Filter" }
                    }
                }
                @for problem in &problems { p role="alert" { (problem) "." } }
                (table(&page.tasks))
                nav.page-nav aria-label="Pages" {
                    span { (page.tasks.len()) " tasks, newest first" @if let Some(until) = page.searched_until { ", searched until " (crate::format::time(until)) } }
                    @if let Some(next) = page.next { span.end { a.btn.btn-s href={ "/tasks?" (query(&shown.q)) "&below=" (next) } { "Older" (document::icon("right")) } } }
                }
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/tasks", "Tasks", content))
}

fn query(filter: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("q", filter).finish()
}

/// States with their counts, which are those of the instance and so only for administrators.
fn rail(console: &Console, viewer: &Viewer, shown: &str) -> Markup {
    let frame = console.frames.borrow().clone();
    let gauges = frame.figures.as_ref().filter(|_| viewer.is_admin).and_then(|figures| figures.overview.gauges.clone());
    let number = |name: &str| {
        let gauges = gauges.as_ref()?;
        Some(match name {
            "pending" => gauges.pending,
            "running" => gauges.running,
            "retrying" => gauges.retrying,
            "dead" => gauges.dead,
            _ => return None,
        })
    };
    html! {
        nav.rail aria-label="States" {
            h2 { "State" }
            ul {
                li { a href="/tasks" aria-current=[shown.is_empty().then_some("true")] { span { "All" } span {} } }
                @for name in STATES {
                    @let filter = format!("state:{name}");
                    li { a href={ "/tasks?" (query(&filter)) } aria-current=[(filter == shown).then_some("true")] { (state(name)) span { @if let Some(number) = number(name) { (count(number)) } } } }
                }
            }
        }
    }
}

fn table(tasks: &[TaskRow]) -> Markup {
    let now = Utc::now();
    html! {
        table.t.t-list.t-pad role="table" {
            caption.vh { "Tasks" }
            thead role="rowgroup" { tr role="row" {
                @for (class, name) in [("id p-a", "Id"), ("nw", "Event"), ("nw", "User"), ("nw p-b", "State"), ("r nw", "Attempts"), ("r nw", "Next run"), ("r nw", "Age"), ("clip", "Error")] {
                    th role="columnheader" scope="col" class=(class) { (name) }
                }
            } }
            tbody role="rowgroup" {
                @for task in tasks {
                    tr role="row" {
                        td.id.p-a role="cell" { a.id href={ "/tasks/" (task.id) } { (short(task.id)) } }
                        td.nw role="cell" { (task.event_name.as_deref().unwrap_or("deleted")) @if task.events > 1 { span.dim { " and " (task.events - 1) " more" } } }
                        td.nw role="cell" { @if let Some(user) = &task.user { a href={ "/tasks?" (query(&format!("user:\"{user}\""))) } { (user) } } }
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

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    id: String,
}

/// Leads to the task of an id, or lists the tasks of a request or trace.
pub(crate) async fn go(
    State(console): State<Console>,
    viewer: Viewer,
    Query(wanted): Query<Wanted>,
) -> Result<Response, PageError> {
    if wanted.id.len() > MAX_FILTER {
        return Err(PageError::NotFound);
    }
    let hits = console.store.search(&wanted.id, viewer.user_id).await?;
    match hits.as_slice() {
        [] => Err(PageError::NotFound),
        [hit] => Ok(Redirect::to(&format!("/tasks/{}", hit.task_id)).into_response()),
        hits => {
            let content = html! {
                div.head { h1 { (hits.len()) " tasks of " span.mono { (wanted.id) } } }
                ul { @for hit in hits { li { a.id href={ "/tasks/" (hit.task_id) } { (hit.task_id) } " " span.dim { (crate::format::time(hit.created_at)) } } } }
            };
            Ok(layout::page(&console, &viewer, "/tasks", "Search", content).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_has_conditions_with_quoted_values() {
        let (known, unknown) = conditions(r#" state:dead,retrying error:"timed out: x" user:a foo bar:1 "#);
        assert_eq!(known, [("state", "dead,retrying"), ("error", "timed out: x"), ("user", "a")]);
        assert_eq!(unknown, ["foo", "bar:1"]);
        assert_eq!(conditions(r#"error:"open"#).0, [("error", "open")]);
        assert!(conditions("").0.is_empty());
    }

    #[test]
    fn time_of_a_filter_has_a_unit() {
        assert_eq!(since("15m"), Some(TimeDelta::minutes(15)));
        for wrong in ["", "m", "-1h", "1", "1é", "99999999999d"] {
            assert_eq!(since(wrong), None, "{wrong}");
        }
    }
}
