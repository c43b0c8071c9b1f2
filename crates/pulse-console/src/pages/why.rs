//! The one sentence on why a task waits or how it ended, and what to do.

use std::time::Duration;

use maud::{Markup, html};
use pulse_explain::explain;
use pulse_store::TaskStatus;

use crate::console::Console;
use crate::session::Viewer;

/// Time limit for the facts: a page without the sentence is better than none.
const LIMIT: Duration = Duration::from_secs(6);

/// What explains a task that this viewer may see.
pub(crate) async fn section(console: &Console, viewer: &Viewer, task: &TaskStatus) -> Markup {
    let (title, class) = match task.state.as_str() {
        "dead" => ("Why it is dead", "why why-dead"),
        "running" => ("What it does", "why why-running"),
        "pending" | "retrying" => ("Why it waits", "why why-retrying"),
        _ => ("How it ended", "why"),
    };
    let text = match pulse_explain::read(&console.store, &console.queue, task.id, LIMIT).await {
        Ok(Some(facts)) => sentences(viewer, &explain(&facts)),
        Ok(None) => html! { p { "The task was deleted meanwhile." } },
        Err(error) => {
            tracing::debug!(%error, "no explanation for the console");
            html! { p { "Not known: PostgreSQL did not answer in time. Reload this page." } }
        }
    };
    html! { section class=(class) { div { h2 { (title) } (text) } } }
}

fn sentences(viewer: &Viewer, explanation: &pulse_explain::Explanation) -> Markup {
    if !viewer.identity.is_admin {
        return html! { p { b { (explanation.sentence_for_user()) } } };
    }
    html! {
        p { b { (explanation.reason.sentence) } }
        p { "To do: " (with_commands(&explanation.reason.advice)) }
        @for reason in &explanation.also { p { "Also: " (reason.sentence) } }
    }
}

/// A text whose commands are between backticks.
fn with_commands(text: &str) -> Markup {
    html! { @for (number, part) in text.split('`').enumerate() { @if number % 2 == 1 { code { (part) } } @else { (part) } } }
}
