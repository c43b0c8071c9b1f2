//! Dead letters by error, and the page before they are retried or discarded.

use axum::extract::{Query, State};
use maud::{Markup, html};
use pulse_store::console::{DeadGroup, DeadOrder};
use serde::Deserialize;

use crate::console::Console;
use crate::error::PageError;
use crate::format::{clipped, count, short, time};
use crate::layout::{self, act_fields};
use crate::pages::acts::MAX_TASKS;
use crate::session::Viewer;

/// Maximum number of groups of a page.
const GROUPS: i64 = 50;

#[derive(Deserialize)]
pub(crate) struct Shown {
    #[serde(default)]
    order: String,
}

fn query(action: &str, group: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("do", action).append_pair("group", group).finish()
}

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Markup, PageError> {
    viewer.require_admin()?;
    let is_newest = shown.order == "newest";
    let order = if is_newest { DeadOrder::Newest } else { DeadOrder::Count };
    let groups = console.store.dead_groups(order, GROUPS).await?;
    let content = html! {
        div.head {
            h1 { "Dead letters" }
            span.dim { "kept until they are retried or discarded" }
            span.end { nav.seg aria-label="Order" {
                a href="/dead-letters" aria-current=[(!is_newest).then_some("true")] { "By count" }
                a href="/dead-letters?order=newest" aria-current=[is_newest.then_some("true")] { "Newest" }
            } }
        }
        table.t.t-list role="table" {
            caption.vh { "Dead letters by error" }
            thead role="rowgroup" { tr role="row" {
                @for (class, name) in [("wide p-a", "Error"), ("r nw p-b", "Count"), ("nw p-3", "First"), ("nw", "Last"), ("r nw act", "Act")] { th role="columnheader" scope="col" class=(class) { (name) } }
            } }
            tbody role="rowgroup" { @for group in &groups { (row(group)) } }
        }
        @if groups.is_empty() { p.dim { "There are no dead letters." } }
        p.page-nav { span { "A retried dead letter begins at attempt 1 again and keeps its id. Discarding keeps the event and cancels its task." } }
    };
    Ok(layout::page(&console, &viewer, "/dead-letters", "Dead letters", content))
}

fn row(group: &DeadGroup) -> Markup {
    let shown = group.example_error.as_deref().unwrap_or(&group.error_group);
    html! {
        tr role="row" {
            td.wide.p-a role="cell" {
                span.err { (group.reason) ": " (clipped(shown)) } br;
                span.small.dim { @if let Some(user) = &group.example_user { (user) " · " } "for example " a.id href={ "/tasks/" (group.example) } { (short(group.example)) } }
            }
            td.r.nw.p-b role="cell" { b { (count(group.count)) } }
            td.nw.p-3 role="cell" data-l="first" { (time(group.first_at)) }
            td.nw role="cell" data-l="last" { (time(group.last_at)) }
            td.r.nw.act role="cell" {
                a.btn.btn-s href={ "/dead-letters/act?" (query("retry", &group.error_group)) } { "Retry…" } " "
                a.btn.btn-s href={ "/dead-letters/act?" (query("discard", &group.error_group)) } { "Discard…" }
            }
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(rename = "do")]
    action: String,
    group: String,
}

/// The dry run: what would be done, and the form that does it.
pub(crate) async fn confirm(
    State(console): State<Console>,
    viewer: Viewer,
    Query(wanted): Query<Wanted>,
) -> Result<Markup, PageError> {
    viewer.require_admin()?;
    let groups = console.store.dead_groups(DeadOrder::Count, i64::MAX).await?;
    let matching: Vec<&DeadGroup> = groups.iter().filter(|group| group.error_group == wanted.group).collect();
    let number: i64 = matching.iter().map(|group| group.count).sum();
    let first = matching.first().ok_or(PageError::NotFound)?;
    let (action, verb) = if wanted.action == "discard" { ("discard", "Discard") } else { ("retry", "Retry") };
    let content = html! {
        p.crumb.small { a href="/dead-letters" { "Dead letters" } }
        div.head { h1 { (verb) " " (count(number)) " dead letters" } }
        p.err { (first.reason) ": " (first.example_error.as_deref().unwrap_or(&first.error_group)) }
        section.sec {
            p { "Dry run: " b { (count(number)) " dead letters have this error now." } " Nothing was changed." }
            form method="post" action="/dead-letters/act" {
                input type="hidden" name="group" value=(wanted.group);
                input type="hidden" name="do" value=(action);
                label.lab for="limit" { "At most, the oldest first" }
                input.field.field-n #limit name="limit" type="number" min="1" max=(MAX_TASKS) value=(number.min(MAX_TASKS)) required;
                (act_fields(&viewer))
                p { button class=(if action == "retry" { "btn btn-1" } else { "btn btn-dead" }) disabled[console.config.read_only] { (verb) } " " a.btn href="/dead-letters" { "Back" } }
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/dead-letters", verb, content))
}
