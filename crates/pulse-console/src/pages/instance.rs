//! The instance in the cluster: what the operator decided.

use axum::extract::State;
use maud::{Markup, html};
use pulse_core::{Decisions, MigrationDecision, ScalingDecision};

use super::tables::table;
use crate::console::Console;
use crate::decisions;
use crate::document::icon;
use crate::error::PageError;
use crate::format::time;
use crate::layout;
use crate::session::Viewer;

pub(crate) async fn page(State(console): State<Console>, viewer: Viewer) -> Result<Markup, PageError> {
    viewer.require_admin()?;
    let Some(path) = &console.config.decisions_file else { return Err(PageError::NotFound) };
    let read = decisions::read(path).await;
    let content = html! {
        div.head { h1 { "Instance" } @if let Ok(Some((_, at))) = &read { span.dim { "as of " (time(*at)) " UTC" } } }
        @match &read {
            Ok(Some((decisions, _))) => (shown(decisions)),
            Ok(None) => p.dim { "The operator has not written its decisions yet. A new file reaches the pod within a minute." },
            Err(error) => section.why.why-retrying { div {
                h2 { "The decisions cannot be read" }
                p { b { "The file " code { (path.display()) } ": " (error) "." } }
                p { "The operator and the console may have different versions: wait until the rollout has ended." }
            } },
        }
    };
    Ok(layout::page(&console, &viewer, layout::INSTANCE, "Instance", content))
}

fn shown(decisions: &Decisions) -> Markup {
    let Decisions { generation, active, desired, rollout, migration, scaling, conditions } = decisions;
    let none = || "none".to_owned();
    let runs = desired.is_some() && desired == active;
    let facts = [
        ("Image that runs", active.clone().unwrap_or_else(none)),
        ("Image of the spec", if runs { "the same".to_owned() } else { desired.clone().unwrap_or_else(none) }),
        ("Rollout", rollout.clone().unwrap_or_else(none)),
        ("Migration", migration.as_ref().map_or_else(none, migration_text)),
        ("Number of workers", scaling.as_ref().map_or_else(none, scaling_text)),
        ("Generation of the spec", generation.to_string()),
    ];
    let rows = conditions.iter().map(|row| {
        let (class, sign) = match (row.name.as_str(), row.status.as_str()) {
            ("Ready" | "Available" | "Migrated", "False") | ("Stalled", "True") => ("st st-dead", "dead"),
            ("Reconciling" | "ScalingLimited" | "CRDOutdated", "True") => ("st st-retrying", "wait"),
            ("QueueReachable" | "BacklogWithinTarget", "False") => ("st st-retrying", "warn"),
            (_, "Unknown") => ("st st-pending", "pending"),
            _ => ("st st-completed", "completed"),
        };
        vec![
            html! { b { (row.name) } },
            html! { span class=(class) { (icon(sign)) (row.status) } },
            html! { (row.reason) },
            html! { (row.since) },
            html! { (row.message) },
        ]
    });
    html! {
        section.sec { dl.facts { @for (name, value) in &facts { dt { (name) } dd { (value) } } } }
        section.sec {
            div.sec-h { h2 { "Conditions" } }
            (table("Conditions", &["Condition", "Status", "Reason", "Since", "Message"], rows))
        }
    }
}

fn migration_text(MigrationDecision { state, job, message, finished_at }: &MigrationDecision) -> String {
    let job = if job.is_empty() { String::new() } else { format!(", Job {job}") };
    let ended = finished_at.as_ref().map(|at| format!(", ended {at}")).unwrap_or_default();
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{state}{job}{ended}{message}")
}

fn scaling_text(decision: &ScalingDecision) -> String {
    let ScalingDecision { at, from, to, reason, limited_by, message } = decision;
    let limit = limited_by.as_ref().map(|limit| format!(", limited by {limit}")).unwrap_or_default();
    format!("{from} → {to} at {at} ({reason}{limit}): {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_sentences() {
        let migration = MigrationDecision { state: "Failed".into(), message: "a < b".into(), ..<_>::default() };
        assert_eq!(migration_text(&migration), "Failed: a < b");
        let scaling = ScalingDecision {
            at: "2026-01-02T03:04:05Z".into(),
            from: 2,
            to: 5,
            reason: "BacklogTarget".into(),
            limited_by: Some("ScaleUpLimit".into()),
            message: "700 tasks".into(),
        };
        let text = "2 → 5 at 2026-01-02T03:04:05Z (BacklogTarget, limited by ScaleUpLimit): 700 tasks";
        assert_eq!(scaling_text(&scaling), text);
        let page = shown(&Decisions { migration: Some(migration), ..Decisions::default() }).into_string();
        assert!(page.contains("Failed: a &lt; b"), "{page}");
    }
}
