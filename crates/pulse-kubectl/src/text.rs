//! Reports as plain text, with each column as wide as its widest cell. Pure.

use std::fmt::{self, Display, Formatter};

use pulse_crd::{MigrationState, MigrationsStatus, Revision};
use serde_json::Value;

use crate::diff::Field;
use crate::preview::{Change, Preview, Scale};
use crate::read::Section;
use crate::report::{EventLine, PodLine, StatusReport, Summary};

/// Maximum length of a value in a line, in bytes. `--json` has the whole value.
const MAX_VALUE_BYTES: usize = 120;

/// A duration in seconds as `45s`, `12m`, `7h` or `3d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A table of rows below a header. The last column is not padded.
pub(crate) fn table(indent: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += &format!("{indent}{}\n", cells.join("  ").trim_end());
    }
    text
}

/// A table of objects, one per line.
pub fn summaries(all: &[Summary]) -> String {
    let head = ["NAMESPACE", "NAME", "READY", "REASON", "VERSION", "API", "WORKERS", "BACKLOG", "AGE", "NEXT STEP"];
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let Summary { namespace, name, ready, reason, version, api, workers, backlog, age: seconds, next_step } =
                one;
            let backlog = backlog.map_or_else(|| "-".to_owned(), |backlog| backlog.to_string());
            let texts = [namespace, name, ready, reason, version, api, workers].map(|text| or_dash(text));
            texts.into_iter().chain([backlog, age(*seconds), without_details(next_step)]).collect()
        })
        .collect();
    table("", &head, &rows)
}

impl Display for StatusReport {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let age_text = age(self.age);
        writeln!(out, "PulseIngest {}/{}, {age_text} old{}", self.namespace, self.name, self.remark())?;
        writeln!(out, "\nConditions")?;
        let rows: Vec<Vec<String>> = self
            .conditions
            .iter()
            .map(|line| {
                vec![line.type_.clone(), line.status.clone(), line.reason.clone(), age(line.age), line.message.clone()]
            })
            .collect();
        write!(out, "{}", table("  ", &["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"], &rows))?;
        self.roles(out)?;
        self.revisions(out)?;
        self.queue(out)?;
        self.problems(out)?;
        writeln!(out, "\nNext step: {}", self.next_step)
    }
}

impl Display for Preview {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "PulseIngest {}/{}: changes that the operator would make now", self.namespace, self.name)?;
        if self.paused {
            writeln!(out, "Paused: no change is made until `kubectl pulse resume {}`", self.name)?;
        }
        writeln!(out, "\nImage\n  active   {}", self.active.as_deref().unwrap_or("none"))?;
        if self.active.as_ref() != Some(&self.desired) {
            writeln!(out, "  desired  {}, once the schema is migrated", self.desired)?;
        }
        writeln!(out, "\nSchema\n  {}", self.migration)?;
        writeln!(out, "\nObjects")?;
        if self.changes.is_empty() {
            writeln!(out, "  nothing to change")?;
        }
        for Change { action, object, fields, restarts } in &self.changes {
            let pods = if *restarts { "; its pods are replaced" } else { "" };
            writeln!(out, "  {action}  {object}{pods}")?;
            for Field { path, from, to } in fields {
                writeln!(out, "    {path}: {} → {}", value(from.as_ref()), value(to.as_ref()))?;
            }
        }
        writeln!(out, "\nWorkers")?;
        match &self.workers {
            Some(Scale { from, to, message }) => writeln!(out, "  {from} → {to}: {message}")?,
            None => writeln!(out, "  unknown: the Deployment of the workers does not exist or could not be read")?,
        }
        list(out, "Waiting for", &self.waiting)?;
        list(out, "Not read", &self.unavailable)
    }
}

fn list(out: &mut Formatter<'_>, head: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{head}")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))
}

/// A value as JSON, truncated to [`MAX_VALUE_BYTES`].
fn value(value: Option<&Value>) -> String {
    let Some(value) = value else { return "none".into() };
    let text = value.to_string();
    let end = text.floor_char_boundary(MAX_VALUE_BYTES);
    if end < text.len() { format!("{}…", &text[..end]) } else { text }
}

impl StatusReport {
    fn remark(&self) -> &'static str {
        match (self.up_to_date, self.paused) {
            (false, _) => "; the operator has not observed its newest spec yet",
            (true, true) => "; paused",
            (true, false) => "",
        }
    }

    fn roles(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let row = |role: &str, ready: i32, desired: i32, updated: i32, terminating: i32| {
            let numbers = [ready, desired, updated, terminating].map(|number| number.to_string());
            std::iter::once(role.to_owned()).chain(numbers).collect::<Vec<_>>()
        };
        let (api, scheduler, workers) = (&self.api, &self.scheduler, &self.workers);
        let mut rows = vec![
            row("api", api.ready, api.desired, api.updated, 0),
            row("workers", workers.ready, workers.desired, workers.updated, workers.terminating),
            row("scheduler", scheduler.ready, scheduler.desired, scheduler.updated, 0),
        ];
        rows.extend(self.console.iter().map(|it| row("console", it.ready, it.desired, it.updated, 0)));
        writeln!(out, "\nPods")?;
        write!(out, "{}", table("  ", &["ROLE", "READY", "DESIRED", "UPDATED", "TERMINATING"], &rows))
    }

    fn revisions(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let image = |revision: &Option<Revision>| revision.as_ref().map_or("none", |found| &found.image).to_owned();
        writeln!(out, "\nImage\n  active   {}", image(&self.active))?;
        if self.desired != self.active {
            writeln!(out, "  desired  {}", image(&self.desired))?;
        }
        let Some(migrations) = &self.migrations else { return Ok(()) };
        writeln!(out, "\nSchema\n  {}", schema(migrations))?;
        if let (Some(plan), Some(hash)) = (&migrations.plan, &migrations.plan_hash)
            && migrations.state == MigrationState::Planned
        {
            let kind = if plan.destructive { ", destructive" } else { "" };
            writeln!(out, "  plan    {hash}: {} migrations{kind}: {}", plan.pending, plan.names.join(", "))?;
        }
        Ok(())
    }

    fn queue(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nScaling")?;
        let Some(scaling) = &self.autoscaling else { return writeln!(out, "  no data yet") };
        let known = |number: Option<i64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
        let oldest = scaling.oldest_age_seconds.map_or_else(|| "unknown".to_owned(), age);
        writeln!(out, "  mode {}, backlog {}, oldest task {oldest}", scaling.mode, known(scaling.backlog))?;
        if let Some(last) = &scaling.last_decision {
            let limit = last.limited_by.as_ref().map(|limit| format!(", limited by {limit}")).unwrap_or_default();
            writeln!(out, "  last decision {} → {} ({}{limit}): {}", last.from, last.to, last.reason, last.message)?;
        }
        if let Some(wake) = &scaling.next_wake_time {
            writeln!(out, "  next wake-up at {}", wake.0)?;
        }
        section(out, &self.decisions, |lines| {
            lines.iter().map(|line| format!("{:>4} ago  {}: {}", age(line.age), line.reason, line.message)).collect()
        })
    }

    fn problems(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nErrors")?;
        let none = self.errors.is_empty()
            && matches!(&self.pods, Section::Read(pods) if pods.is_empty())
            && matches!(&self.warnings, Section::Read(lines) if lines.is_empty());
        if none {
            writeln!(out, "  none")?;
        }
        for error in &self.errors {
            writeln!(out, "  {error}")?;
        }
        section(out, &self.pods, |pods| pods.iter().map(pod).collect())?;
        section(out, &self.warnings, |lines| lines.iter().map(warning).collect())
    }
}

fn section<T>(out: &mut Formatter<'_>, section: &Section<T>, lines: impl FnOnce(&T) -> Vec<String>) -> fmt::Result {
    match section {
        Section::Read(found) => lines(found).iter().try_for_each(|line| writeln!(out, "  {line}")),
        Section::Unavailable { error } => writeln!(out, "  {error}"),
    }
}

fn pod(line: &PodLine) -> String {
    let PodLine { name, problem, restarts } = line;
    let restarted = if *restarts > 0 { format!(" ({restarts} restarts)") } else { String::new() };
    format!("Pod {name}{restarted}: {problem}")
}

fn warning(line: &EventLine) -> String {
    let EventLine { reason, object, message, count, age: seconds } = line;
    format!("{count}× {reason}, last {} ago for {object}: {message}", age(*seconds))
}

fn schema(migrations: &MigrationsStatus) -> String {
    let MigrationsStatus { state, job_name, schema_version, message, exit_code, .. } = migrations;
    let version = schema_version.map(|version| format!(", version {version}")).unwrap_or_default();
    let job = if job_name.is_empty() { String::new() } else { format!(", Job {job_name}") };
    let code = exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{state:?}{version}{job}{code}{message}")
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A next step without the reason and message in parentheses.
fn without_details(text: &str) -> String {
    text.split(" (").next().unwrap_or(text).to_owned()
}
