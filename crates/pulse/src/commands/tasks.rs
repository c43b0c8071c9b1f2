//! `pulse tasks`: lists, inspects and cancels tasks that did not complete, and retries dead tasks (dead letters).

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use pulse_store::{Act, ListedTask, MovedTasks, Store, TaskAction, TaskFilter, TaskState, TaskStatus};
use uuid::Uuid;

use crate::act_args::ActArgs;
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// List tasks: unsettled ones, newest first, then dead ones, latest dead first
    List(ListArgs),
    /// Show a task in any state, with the error of each failed attempt
    Inspect(InspectArgs),
    /// Retry dead tasks: they are pending again, with their full number of attempts
    Retry(RetryArgs),
    /// Cancel pending, running, retrying or dead tasks: they are not processed any more and move to the history. Their
    /// events stay unprocessed
    Cancel(CancelArgs),
}

/// Conditions, combined with AND.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only tasks of this user: the `sub` of the tokens
    #[arg(long)]
    user: Option<String>,
    /// Only tasks whose last attempt failed for this reason, such as timeout
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks in these states, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "dead", value_parser = state_parser())]
    state: Vec<TaskState>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Maximum number of tasks
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Id of the task
    id: Uuid,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Which tasks a command changes.
#[derive(Debug, Args)]
pub(crate) struct SelectionArgs {
    /// Ids of tasks
    ids: Vec<Uuid>,
    /// Select all tasks that the other flags match
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Maximum number of tasks, oldest first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Only tasks in these states, separated by commas. With --all the default is dead, with ids every state
    #[arg(long, value_delimiter = ',', value_parser = state_parser())]
    state: Vec<TaskState>,
    #[command(flatten)]
    selection: SelectionArgs,
}

fn state_parser() -> impl TypedValueParser<Value = TaskState> {
    PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str)).map(|name| {
        let state = TaskState::ALL.into_iter().find(|state| state.as_str() == name);
        state.expect("the parser allows only names of states")
    })
}

pub(crate) async fn run(command: TasksCommand) -> anyhow::Result<()> {
    match command {
        TasksCommand::List(args) => list(args).await,
        TasksCommand::Inspect(args) => inspect(args).await,
        TasksCommand::Retry(RetryArgs { selection }) => {
            let (store, filter, limit, act) = selection.resolve(vec![TaskState::Dead]).await?;
            let tasks = store.act_on_tasks(TaskAction::Retry, &filter, limit, &act).await;
            report(tasks.context("cannot retry the tasks")?, &filter, "are pending again")
        }
        TasksCommand::Cancel(CancelArgs { state, selection }) => {
            let states = match (state.is_empty(), selection.all) {
                (false, _) => state,
                (true, true) => vec![TaskState::Dead],
                (true, false) => TaskState::ALL.to_vec(),
            };
            let (store, filter, limit, act) = selection.resolve(states).await?;
            let tasks = store.act_on_tasks(TaskAction::Cancel, &filter, limit, &act).await;
            report(tasks.context("cannot cancel the tasks")?, &filter, "cancelled")
        }
    }
}

impl FilterArgs {
    async fn resolve(
        self,
        store: &Store,
        states: Vec<TaskState>,
        ids: Option<Vec<Uuid>>,
    ) -> anyhow::Result<TaskFilter> {
        let user_id = match &self.user {
            Some(subject) => Some(store.find_user(subject).await?.ok_or_else(|| unknown(subject))?.id),
            None => None,
        };
        Ok(TaskFilter { ids, states, user_id, reason: self.reason, ..TaskFilter::default() })
    }
}

impl SelectionArgs {
    /// Connects, and returns the filter, the limit and the act. Refuses to select all tasks by accident.
    async fn resolve(self, states: Vec<TaskState>) -> anyhow::Result<(Store, TaskFilter, i64, Act)> {
        let Self { ids, all, filter, limit, act, database } = self;
        if ids.is_empty() && !all {
            bail!("no tasks are selected: give task ids, or --all");
        }
        let store = database.connect("tasks")?;
        let filter = filter.resolve(&store, states, (!all).then_some(ids)).await?;
        Ok((store, filter, limit.into(), act.act()))
    }
}

fn report(moved: Option<MovedTasks>, filter: &TaskFilter, verb: &str) -> anyhow::Result<()> {
    let Some(MovedTasks { moved, busy }) = moved else {
        bail!("too many acts on tasks run at the same time: run the command again when one has ended");
    };
    print_line(&format!("{moved} tasks {verb}"))?;
    let asked = filter.ids.as_ref().map_or(0, |ids| ids.len() as u64);
    let other = asked.saturating_sub(moved + busy);
    if other > 0 {
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        print_line(&format!("{other} tasks do not exist or do not match ({})", states.join(", ")))?;
    }
    if busy > 0 {
        bail!("{busy} tasks are busy, because another transaction uses them: run the command again");
    }
    Ok(())
}

async fn list(ListArgs { state, filter, limit, json, database }: ListArgs) -> anyhow::Result<()> {
    let store = database.connect("tasks")?;
    let filter = filter.resolve(&store, state, None).await?;
    let tasks = store.list_tasks(&filter, limit.into()).await?;
    if json {
        return tasks.iter().try_for_each(print_json);
    }
    let row = |task: ListedTask| {
        let ListedTask {
            id, state, user, event_ids, attempts, max_attempts, created_at, dead_at, reason, error, ..
        } = task;
        let error: String = error.unwrap_or_default().chars().take(80).collect();
        vec![
            id.to_string(),
            state,
            user.unwrap_or_else(|| "-".into()),
            event_ids.len().to_string(),
            format!("{attempts}/{max_attempts}"),
            created_at.to_rfc3339(),
            dead_at.map_or_else(|| "-".into(), |time| time.to_rfc3339()),
            reason.unwrap_or_else(|| "-".into()),
            error,
        ]
    };
    let rows: Vec<Vec<String>> = tasks.into_iter().map(row).collect();
    let header = ["TASK", "STATE", "USER", "EVENTS", "ATTEMPTS", "ACCEPTED", "DEAD SINCE", "REASON", "ERROR"];
    print_table(&header, &rows)
}

async fn inspect(InspectArgs { id, json, database }: InspectArgs) -> anyhow::Result<()> {
    let store = database.connect("tasks")?;
    let Some(task) = store.find_task(None, id).await? else {
        bail!("there is no task `{id}`");
    };
    if json {
        return print_json(&task);
    }
    let attempts = task.max_attempts.map_or(task.attempts.to_string(), |max| format!("{} of {max}", task.attempts));
    let events: Vec<String> = task.event_ids.iter().map(i64::to_string).collect();
    let TaskStatus { user_id, kind, state, created_at, worker, traceparent, request_id, .. } = &task;
    let lines = [
        ("task", Some(id.to_string())),
        ("state", Some(state.clone())),
        ("kind", Some(kind.clone())),
        ("user id", Some(user_id.to_string())),
        ("events", Some(events.join(" "))),
        ("attempts", Some(attempts)),
        ("accepted", Some(created_at.to_rfc3339())),
        ("enqueued", task.enqueued_at.map(|time| time.to_rfc3339())),
        ("started", task.started_at.map(|time| time.to_rfc3339())),
        ("lease until", task.lease_until.map(|time| time.to_rfc3339())),
        ("next run", task.next_run_at.map(|time| time.to_rfc3339())),
        ("settled", task.settled_at.map(|time| time.to_rfc3339())),
        ("worker", worker.clone()),
        ("traceparent", traceparent.clone()),
        ("request id", request_id.clone()),
    ];
    lines
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        .try_for_each(|(name, value)| print_line(&format!("{name:12} {value}")))?;
    if task.errors.is_empty() {
        return Ok(());
    }
    print_line("")?;
    let errors: Vec<Vec<String>> = task
        .errors
        .iter()
        .map(|failed| {
            let (attempt, at) = (failed.attempt.to_string(), failed.at.to_rfc3339());
            vec![attempt, at, failed.reason.as_str().into(), failed.error.clone()]
        })
        .collect();
    print_table(&["ATTEMPT", "FAILED", "REASON", "ERROR"], &errors)
}
