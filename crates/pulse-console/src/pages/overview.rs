//! Overview: the figures of now, live, and charts.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, PreEscaped, html};
use pulse_store::console::{Overview, Percentiles, Point, Range};

use crate::chart::{Chart, Line};
use crate::console::Console;
use crate::document;
use crate::error::PageError;
use crate::fields::Query;
use crate::format::{age, count, duration, duration_text, rate};
use crate::frame::Frame;
use crate::layout;
use crate::session::Viewer;

/// Age from which on a measurement of the scheduler is late, in seconds.
const LATE: f64 = 10.0;

/// Names of the ranges in URLs and on the page.
pub(crate) const RANGES: [(&str, &str, Range); 3] =
    [("1h", "1 h", Range::Hour), ("24h", "24 h", Range::Day), ("7d", "7 d", Range::Week)];

pub(crate) async fn page(
    State(console): State<Console>,
    viewer: Viewer,
    Query(fields): Query,
) -> Result<Response, PageError> {
    if !viewer.identity.is_admin {
        return Ok(Redirect::to("/tasks").into_response());
    }
    let (key, _, range) = RANGES.into_iter().find(|(key, ..)| *key == fields.get("range")).unwrap_or(RANGES[0]);
    let frame = console.live.frame();
    let content = html! {
        div.head {
            h1 { "Overview" }
            div.end {
                nav.seg aria-label="Range of the charts" {
                    @for (value, text, _) in RANGES { a href={ "/?range=" (value) } aria-current=[(value == key).then_some("true")] { (text) } }
                }
            }
        }
        (layout::live(&console, "overview", &figures(&frame)))
        section.sec.charts.charts-4 {
            h2.vh { "Charts" }
            @match frame.charts(range) {
                // Rendered by `charts` below.
                Some(charts) => (PreEscaped(charts)),
                None => p.dim { "No charts yet: PostgreSQL did not answer." },
            }
        }
    };
    Ok(layout::page(&console, &viewer, "/", "Overview", content).into_response())
}

/// The live part.
pub(crate) fn figures(frame: &Frame) -> Markup {
    html! {
        p { (frame.as_of()) }
        @if let Some(figures) = &frame.figures {
            (ribbon(&figures.overview, frame.stale().is_some()))
            (needs(&figures.overview))
            (health(&figures.overview, frame.stale().is_some()))
        }
    }
}

fn tile(name: &str, figure: Markup, note: Markup) -> Markup {
    html! { div { dt { (name) } dd { (figure) } dd.note { (note) } } }
}

fn with_unit(seconds: f64) -> Markup {
    let (number, unit) = duration(seconds);
    html! { (number) small { (unit) } }
}

/// Part of the ended attempts, in percent, with three digits at most.
fn percent(part: f64, of: f64) -> Markup {
    let places = |percent: f64| if percent < 9.995 { 2 } else { 1 };
    html! { @if of > 0.0 { @let percent = 100.0 * part / of; (format!("{percent:.*}", places(percent))) small { "%" } } @else { span.dim { "–" } } }
}

fn percentiles(name: &str, of: Percentiles) -> Markup {
    let Percentiles { p50, p95, p99, .. } = of;
    let shown = |value: Option<f64>| value.map_or_else(|| html! { span.dim { "–" } }, with_unit);
    html! {
        div.w2 {
            dt { (name) }
            dd.pct { @for value in [p50, p95, p99] { span { (shown(value)) } } }
            dd.note.pct { span { "p50" } span { "p95" } span { "p99" } }
        }
    }
}

fn ribbon(now: &Overview, is_stale: bool) -> Markup {
    let rates = now.rates;
    let ended = rates.completed + rates.failed;
    let unsettled = now.gauges.as_ref().map(|gauges| gauges.unsettled());
    let oldest = now.gauges.as_ref().map(|gauges| gauges.oldest_age_seconds).filter(|age| *age > 0.0);
    let backlog = html! { @match unsettled { Some(tasks) => a href="/tasks?q=state:pending,running,retrying" { (count(tasks)) }, None => span.dim { "–" } } };
    let drains = html! { @match now.drain_seconds { Some(seconds) => { "drains in " b { (duration_text(seconds)) } }, None => { (if unsettled == Some(0) { "nothing waits" } else { "not draining" }) } } };
    html! {
        dl.rib.stale[is_stale] {
            (tile("Accepted events", html! { (rate(rates.accepted_events)) small { "/s" } }, html! { (rate(rates.accepted)) " tasks/s" }))
            (tile("Completed events", html! { (rate(rates.completed_events)) small { "/s" } }, html! { (rate(rates.completed)) " tasks/s" }))
            (tile("Backlog", backlog, drains))
            (tile("Oldest", html! { @match oldest { Some(seconds) => (with_unit(seconds)), None => span.dim { "–" } } }, html! { "unsettled task" }))
            (tile("Error rate", percent(rates.failed, ended), html! { (rate(rates.failed)) "/s of " (rate(ended)) "/s" }))
            (tile("Retry rate", percent(rates.retried, ended), html! { (rate(rates.retried)) "/s of " (rate(ended)) "/s" }))
            (percentiles("Attempt", now.attempt))
            (percentiles("Accept → completed", now.completion))
            div.w-end { dt { "Workers" } dd { a href="/workers" { (now.workers) } } dd.note { (now.in_flight) "/" (now.slots) " busy" } }
        }
    }
}

/// What an administrator should look at, each with its cause and the place to act.
fn needs(now: &Overview) -> Markup {
    let gauges = now.gauges.as_ref();
    let late = gauges.is_none_or(|gauges| (now.now - gauges.measured_at).as_seconds_f64() > LATE);
    let dead = gauges.map_or(0, |gauges| gauges.dead);
    let retrying = gauges.map_or(0, |gauges| gauges.retrying);
    if now.pause.is_none() && now.workers > 0 && !late && retrying == 0 && dead == 0 {
        return html! {};
    }
    html! {
        section.sec {
            h2.vh { "What needs you" }
            ul.ask {
                @if let Some(pause) = &now.pause {
                    (ask("retrying", "pause", html! { b { "All claims are paused" } " since " (age(now.now, pause.paused_at)) " by " (pause.actor) @if let Some(reason) = &pause.reason { ": " (reason) } "." }, "/queue", "Resume"))
                }
                @if now.workers == 0 {
                    (ask("dead", "dead", html! { b { "No worker runs:" } " events are accepted and wait. Start one with pulse worker." }, "/workers", "Workers"))
                }
                @if late {
                    (ask("dead", "dead", html! { b { "No scheduler runs:" } " the backlog is unknown, and retries wait. Start one with pulse scheduler." }, "/schedules", "Schedules"))
                }
                @if retrying > 0 {
                    (ask("retrying", "retrying", html! { b { (count(retrying)) " tasks wait for another attempt." } }, "/tasks?q=state:retrying", "Retrying tasks"))
                }
                @if dead > 0 {
                    (ask("dead", "dead", html! { b { (count(dead)) " dead letters" } " are kept until they are retried or discarded." }, "/dead-letters", "Dead letters"))
                }
            }
        }
    }
}

/// A sentence for each part that others depend on.
fn health(now: &Overview, is_away: bool) -> Markup {
    let gauges = now.gauges.as_ref();
    let measured = gauges.map(|gauges| (now.now - gauges.measured_at).as_seconds_f64()).filter(|age| *age <= LATE);
    let waiting = gauges.and_then(|gauges| gauges.undelivered.zip(gauges.in_flight)).filter(|_| measured.is_some());
    let postgres = match is_away {
        true => "Does not answer. The figures above are the last ones; nothing that was accepted is lost.".into(),
        false => format!(
            "Answers. {} tasks are unsettled.",
            gauges.map_or_else(|| "Some".into(), |gauges| count(gauges.unsettled()))
        ),
    };
    let redis = match (waiting, measured) {
        (Some((waiting, flight)), _) => {
            format!("Answers. Entries that wait for a worker: {}; in flight: {}.", count(waiting), count(flight))
        }
        (None, Some(_)) => "Does not answer. Nothing is lost: workers find tasks in PostgreSQL, more slowly.".into(),
        (None, None) => "Unknown: a scheduler measures it.".into(),
    };
    let scheduler = match measured {
        Some(age) => format!("Measured the backlog {} ago.", duration_text(age.max(0.0))),
        None => "None runs, so retries and lost tasks wait. Start one with pulse scheduler.".into(),
    };
    let workers = match now.workers {
        0 => "None runs. Start one with pulse worker.".into(),
        number => {
            let (claims, busy, slots) = (number - now.draining, now.in_flight, now.slots);
            format!("{claims} of {number} claim. {} of {slots} slots are busy.", busy.min(slots))
        }
    };
    let rows = [
        ("PostgreSQL", !is_away, postgres),
        ("Redis", waiting.is_some(), redis),
        ("Scheduler", measured.is_some(), scheduler),
        ("Workers", now.workers > 0, workers),
    ];
    html! {
        section.sec {
            div.sec-h { h2 { "Health" } }
            ul.health.duo { @for (name, is_well, text) in rows {
                li { span class=(if is_well { "st st-completed" } else { "st st-dead" }) { (document::icon(if is_well { "completed" } else { "warn" })) span.vh { (if is_well { "well" } else { "not well" }) } } b { (name) } p { (text) } }
            } }
        }
    }
}

fn ask(state: &str, icon: &str, text: Markup, href: &str, link: &str) -> Markup {
    html! { li { span class={ "st st-" (state) } { (document::icon(icon)) } p { (text) } a href=(href) { (link) } } }
}

/// The charts of a range.
pub(crate) fn charts(points: &[Point], range: Range) -> Markup {
    let points = match points.split_last() {
        // The present minute is not complete.
        Some((_, complete)) if range == Range::Hour && !complete.is_empty() => complete,
        _ => points,
    };
    let pattern = if range == Range::Week { "%b %d" } else { "%H:%M" };
    let times: Vec<String> = points.iter().map(|point| point.start.format(pattern).to_string()).collect();
    let values = |of: fn(&Point) -> f64| points.iter().map(of).collect::<Vec<f64>>();
    let chart =
        |id, title, unit, lines, format| Chart { id, title, unit, times: times.clone(), lines, format }.render();
    let line = |name, class, values| Line { name, class, values };
    let throughput = vec![
        line("accepted", "l2", values(|point| point.accepted_events as f64 / point.seconds.max(1.0))),
        line("completed", "l1", values(|point| point.completed_events as f64 / point.seconds.max(1.0))),
    ];
    let errors = vec![
        line("failed", "l1", values(|point| point.failed as f64 / point.seconds.max(1.0))),
        line("dead", "l3", values(|point| point.dead as f64 / point.seconds.max(1.0))),
    ];
    let times_taken = vec![
        line("p50", "l2", values(|point| point.completion.p50.unwrap_or_default())),
        line("p95", "l1", values(|point| point.completion.p95.unwrap_or_default())),
        line("p99", "l3", values(|point| point.completion.p99.unwrap_or_default())),
    ];
    let tasks = |value: f64| count(value.round() as i64);
    html! {
        (chart("c1", "Throughput", "events/s", throughput, rate))
        (chart("c2", "Backlog", "tasks", vec![line("most", "l1", values(|point| point.backlog as f64))], tasks))
        (chart("c3", "Errors", "attempts/s", errors, rate))
        (chart("c4", "Accept → completed", "time", times_taken, duration_text))
    }
}
