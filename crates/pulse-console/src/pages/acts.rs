//! Retry, cancel and discard: the page before, what its form does, and the page while it runs. Pause and resume.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use pulse_store::{ActStatus, Via};

use crate::acts::{self, DEFAULT_RATE, MAX_RATE, Plan, Verb, Wanted};
use crate::console::Console;
use crate::document::icon;
use crate::error::PageError;
use crate::fields::{Fields, Id, Query};
use crate::format::{count, time};
use crate::layout::{self, act_fields};
use crate::reads;
use crate::session::Viewer;

/// How often the page of a running act is loaded again, in seconds. A header does that without script.
const REFRESH: (HeaderName, HeaderValue) = (HeaderName::from_static("refresh"), HeaderValue::from_static("2"));

fn wanted(fields: &Fields) -> Result<Wanted, PageError> {
    Ok(Wanted {
        verb: Verb::parse(fields.get("do"))?,
        ids: fields.ids()?,
        filter: fields.get("q").to_owned(),
        limit: fields.read("limit", "The number of tasks is not a number: correct it.")?,
        rate: fields.read("rate", "The number of tasks per second is not a number: correct it.")?,
    })
}

/// The dry run, and the form that does it.
pub(crate) async fn confirm(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Markup, PageError> {
    let wanted = wanted(&fields)?;
    let (ids, text) = (wanted.ids.clone(), wanted.filter.clone());
    let plan = acts::plan(&console, &viewer.identity, wanted).await?;
    let (verb, noun, tasks) = (plan.verb.title(), plan.verb.noun(), number(&plan));
    let content = html! {
        p.crumb.small { a href="/dead-letters" { "Dead letters" } " " a href="/tasks" { "Tasks" } }
        div.head { h1 { (verb) " " (tasks) " " (noun) } }
        p.mono { (plan.filter) }
        section.sec {
            p { "Dry run: " b { (tasks) " " (noun) " match now." } " Nothing was changed." }
            @if plan.verb == Verb::Retry { p.dim { "A retried dead letter begins at attempt 1 again and keeps its id. If its cause is still there, it fails again: try a few at first." } }
            form method="post" action="/acts" {
                input type="hidden" name="do" value=(plan.verb.as_str());
                @if ids.is_empty() { input type="hidden" name="q" value=(text); }
                @for id in &ids { input type="hidden" name="id" value=(id); }
                div.inl {
                    label.lab for="limit" { "At most, the oldest first" }
                    input.field.field-n #limit name="limit" type="number" min="1" placeholder="all";
                    label.lab for="rate" { "Tasks a second" }
                    input.field.field-n #rate name="rate" type="number" min="1" max=(MAX_RATE) value=(DEFAULT_RATE) required;
                }
                (act_fields(&viewer))
                p {
                    button class=(if plan.verb == Verb::Retry { "btn btn-1" } else { "btn btn-dead" }) disabled[console.config.read_only || plan.matching.tasks == 0] { (verb) }
                    " " a.btn href="/dead-letters" { "Back" }
                }
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/dead-letters", verb, content))
}

/// The number of tasks, which may be more than were counted.
fn number(plan: &Plan) -> String {
    let more = if plan.matching.is_complete { "" } else { "at least " };
    format!("{more}{}", count(plan.matching.tasks))
}

pub(crate) async fn start(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.check_form(&fields)?;
    viewer.identity.may_act(&console)?;
    let wanted = wanted(&fields)?;
    let one = (wanted.ids.len() == 1).then(|| wanted.ids[0]);
    let plan = acts::plan(&console, &viewer.identity, wanted).await?;
    let act = acts::act(&viewer.identity, Via::Console, fields.get("reason"));
    let id = acts::start(&console, &viewer.identity, plan, &act).await?;
    Ok(Redirect::to(&one.map_or_else(|| format!("/acts/{id}"), |task| format!("/tasks/{task}"))))
}

pub(crate) async fn progress(
    State(console): State<Console>,
    viewer: Viewer,
    Id(id): Id,
) -> Result<Response, PageError> {
    let act = reads::act(&console, &viewer.identity, id).await?;
    let content = html! {
        p.crumb.small { a href="/dead-letters" { "Dead letters" } " " a href="/tasks" { "Tasks" } " " a href="/audit" { "Audit log" } }
        div.head { h1 { (what(&act)) } }
        (running(&console, &viewer, &act))
    };
    let page = layout::page(&console, &viewer, "/dead-letters", "Act", content);
    let refresh = act.ended_at.is_none().then_some(REFRESH);
    Ok((axum::response::AppendHeaders(refresh), page).into_response())
}

pub(crate) async fn stop(
    State(console): State<Console>,
    viewer: Viewer,
    Id(id): Id,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.check_form(&fields)?;
    acts::stop(&console, &viewer.identity, id).await?;
    Ok(Redirect::to(&format!("/acts/{id}")))
}

fn what(act: &ActStatus) -> String {
    let verb = if act.action == "tasks.retry" { "Retry" } else { "Cancel" };
    format!("{verb}: {}", act.state)
}

/// An act with its progress and, while it runs, a button that stops it.
pub(crate) fn running(console: &Console, viewer: &Viewer, act: &ActStatus) -> Markup {
    let is_running = act.ended_at.is_none();
    html! {
        section.op aria-label="Act on tasks" {
            div.op-h {
                span class=(if is_running { "st st-running" } else { "st st-completed" }) { (icon(if is_running { "running" } else { "completed" })) a href={ "/acts/" (act.act) } { (what(act)) } }
                span.mono { (act.target) }
                @if is_running && !console.config.read_only {
                    form.end method="post" action={ "/acts/" (act.act) "/stop" } {
                        input type="hidden" name="csrf" value=(viewer.csrf);
                        button.btn.btn-s.btn-dead { "Stop" }
                    }
                }
            }
            @if let Some(matching) = act.matching { progress value=(act.moved) max=(matching.max(1)) aria-label={ (act.moved) " of " (matching) " tasks" } {} }
            div.op-f {
                span { b { (count(act.moved)) } @if let Some(matching) = act.matching { " of " (count(matching)) } " tasks" }
                @if let Some(rate) = act.rate { span { b { (rate) "/s" } " at most" } }
                @if let Some(at) = act.started_at { span { "started by " (act.actor) " at " (time(at)) } }
                @if let Some(at) = act.ended_at { span { "by " (act.actor) ", ended at " (time(at)) } }
                @if let Some(reason) = &act.reason { span { (reason) } }
            }
        }
    }
}

pub(crate) async fn pause(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    set_pause(&console, &viewer, &fields, true).await
}

pub(crate) async fn resume(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    set_pause(&console, &viewer, &fields, false).await
}

async fn set_pause(console: &Console, viewer: &Viewer, fields: &Fields, pauses: bool) -> Result<Redirect, PageError> {
    viewer.check_form(fields)?;
    let act = acts::act(&viewer.identity, Via::Console, fields.get("reason"));
    acts::pause(console, &viewer.identity, &act, pauses).await?;
    Ok(Redirect::to("/queue"))
}
