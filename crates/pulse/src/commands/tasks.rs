//! `pulse tasks`: what was given up, and what to do about it.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pulse_store::{DeadTask, DeadTaskFilter};
use uuid::Uuid;

use crate::args::DatabaseArgs;
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// List buried tasks, newest first
    List(ListArgs),
    /// Make buried tasks owed again, with all their attempts
    Retry(ChosenArgs),
    /// Give buried tasks up for good
    Cancel(ChosenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those with this reason, such as timeout
    #[arg(long)]
    reason: Option<String>,
    /// How many
    #[arg(long, default_value_t = 100)]
    limit: i64,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChosenArgs {
    /// Which tasks
    ids: Vec<Uuid>,
    /// All buried tasks, or all with --reason
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only those with this reason, such as timeout
    #[arg(long, requires = "all")]
    reason: Option<String>,
    /// How many at the most, oldest first
    #[arg(long, default_value_t = 10_000)]
    limit: i64,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(command: TasksCommand) -> anyhow::Result<()> {
    match command {
        TasksCommand::List(args) => list(args).await,
        TasksCommand::Retry(args) => {
            let (filter, limit, database) = chosen(args)?;
            let retried =
                database.connect("tasks")?.retry_dead_tasks(&filter, limit).await.context("failed to retry")?;
            print_line(&format!("{retried} tasks owed again"))
        }
        TasksCommand::Cancel(args) => {
            let (filter, limit, database) = chosen(args)?;
            let cancelled =
                database.connect("tasks")?.cancel_dead_tasks(&filter, limit).await.context("failed to cancel")?;
            print_line(&format!("{cancelled} tasks cancelled"))
        }
    }
}

fn chosen(
    ChosenArgs { ids, all, reason, limit, database }: ChosenArgs,
) -> anyhow::Result<(DeadTaskFilter, i64, DatabaseArgs)> {
    if ids.is_empty() && !all {
        bail!("no tasks named: give their ids, or --all");
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
    print_table(&["TASK", "KIND", "EVENTS", "REASON", "ATTEMPTS", "BURIED", "ERROR"], &rows)
}
