//! Dead letters by error.

use axum::extract::State;
use maud::{Markup, html};
use pulse_store::console::{DeadGroup, DeadOrder};

use crate::console::Console;
use crate::error::PageError;
use crate::fields::Query;
use crate::filter_text;
use crate::format::{clipped, count, short, time};
use crate::layout;
use crate::pages::acts;
use crate::reads;
use crate::session::Viewer;

/// Maximum number of groups of a page.
const GROUPS: i64 = 50;

/// The filter of a group.
fn group_filter(group: &DeadGroup) -> String {
    format!("state:dead {}", filter_text::condition("group", &group.error_group))
}

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Markup, PageError> {
    let is_newest = fields.get("order") == "newest";
    let order = if is_newest { DeadOrder::Newest } else { DeadOrder::Count };
    let groups = reads::dead_groups(&console, &viewer.identity, order, GROUPS).await?;
    let running = reads::running_acts(&console, &viewer.identity).await?;
    let content = html! {
        div.head {
            h1 { "Dead letters" }
            span.dim { "kept until they are retried or discarded" }
            span.end { nav.seg aria-label="Order" {
                a href="/dead-letters" aria-current=[(!is_newest).then_some("true")] { "By count" }
                a href="/dead-letters?order=newest" aria-current=[is_newest.then_some("true")] { "Newest" }
            } }
        }
        @for act in &running { (acts::running(&console, &viewer, act)) }
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
    let selected = group_filter(group);
    let shown = group.example_error.as_deref().unwrap_or(&group.error_group);
    html! {
        tr role="row" {
            td.wide.p-a role="cell" {
                a.err href={ "/tasks?" (filter_text::query(&selected)) } { (group.reason) ": " (clipped(shown)) } br;
                span.small.dim { @if let Some(user) = &group.example_user { (user) " · " } "for example " a.id href={ "/tasks/" (group.example) } { (short(group.example)) } }
            }
            td.r.nw.p-b role="cell" { b { (count(group.count)) } }
            td.nw.p-3 role="cell" data-l="first" { (time(group.first_at)) }
            td.nw role="cell" data-l="last" { (time(group.last_at)) }
            td.r.nw.act role="cell" {
                a.btn.btn-s href={ "/acts/new?do=retry&" (filter_text::query(&selected)) } { "Retry…" } " "
                a.btn.btn-s href={ "/acts/new?do=discard&" (filter_text::query(&selected)) } { "Discard…" }
            }
        }
    }
}
