//! `pulse tasks`: lists, retries and cancels dead tasks (dead letters).

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pulse_store::{DeadTask, DeadTaskFilter};
use uuid::Uuid;

use crate::args::DatabaseArgs;
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// List dead tasks, newest first
    List(ListArgs),
    /// Retry dead tasks: they are pending again, with their full number of attempts
    Retry(SelectionArgs),
    /// Cancel dead tasks: they are not processed any more and move to the history
    Cancel(SelectionArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks with this reason, such as timeout
    #[arg(long)]
    reason: Option<String>,
    /// Maximum number of tasks
    #[arg(long, default_value_t = 100)]
    limit: i64,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SelectionArgs {
    /// Ids of dead tasks
    ids: Vec<Uuid>,
    /// Select all dead tasks, or with --reason all of that reason
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only tasks with this reason, such as timeout
    #[arg(long, requires = "all")]
    reason: Option<String>,
    /// Maximum number of tasks, oldest first
    #[arg(long, default_value_t = 10_000)]
    limit: i64,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(command: TasksCommand) -> anyhow::Result<()> {
    match command {
        TasksCommand::List(args) => list(args).await,
        TasksCommand::Retry(args) => {
            let (filter, limit, database) = selection(args)?;
            let retried =
                database.connect("tasks")?.retry_dead_tasks(&filter, limit).await.context("cannot retry the tasks")?;
            print_line(&format!("{retried} tasks are pending again"))
        }
        TasksCommand::Cancel(args) => {
            let (filter, limit, database) = selection(args)?;
            let cancelled = database
                .connect("tasks")?
                .cancel_dead_tasks(&filter, limit)
                .await
                .context("cannot cancel the tasks")?;
            print_line(&format!("{cancelled} tasks cancelled"))
        }
    }
}

/// The filter, the limit and the database of a command that changes tasks. It refuses to select all tasks by accident.
fn selection(
    SelectionArgs { ids, all, reason, limit, database }: SelectionArgs,
) -> anyhow::Result<(DeadTaskFilter, i64, DatabaseArgs)> {
    if ids.is_empty() && !all {
        bail!("no tasks are selected: give task ids, or --all");
    }
    Ok((DeadTaskFilter { ids: (!all).then_some(ids), reason }, limit, database))
}

async fn list(ListArgs { reason, limit, json, database }: ListArgs) -> anyhow::Result<()> {
    let tasks = database.connect("tasks")?.list_dead_tasks(&DeadTaskFilter { ids: None, reason }, limit).await?;
    if json {
        return tasks.iter().try_for_each(print_json);
    }
    let row = |DeadTask { id, user_id: _, kind, reason, error, event_ids, attempts, dead_at }: DeadTask| {
        let error = error.unwrap_or_default().chars().take(80).collect();
        let (events, attempts) = (event_ids.len().to_string(), attempts.to_string());
        vec![id.to_string(), kind, events, reason, attempts, dead_at.to_rfc3339(), error]
    };
    let rows: Vec<Vec<String>> = tasks.into_iter().map(row).collect();
    print_table(&["TASK", "KIND", "EVENTS", "REASON", "ATTEMPTS", "DEAD SINCE", "ERROR"], &rows)
}
