//! What an act would do, before it does anything.

use pulse_store::{MatchingTasks, TaskAction, TaskFilter, TaskState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::console::Console;
use crate::error::PageError;
use crate::filter;
use crate::identity::Identity;

/// Maximum number of tasks of one selection.
const MAX_IDS: usize = 200;
/// Maximum number of tasks per second of an act that sets none.
pub(crate) const DEFAULT_RATE: i32 = 100;
/// The largest maximum.
pub(crate) const MAX_RATE: i32 = 5_000;

/// What to do with tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    /// Make dead tasks pending again, with all attempts.
    Retry,
    /// End pending, running and retrying tasks without a result.
    Cancel,
    /// End dead tasks without a result.
    Discard,
}

impl Verb {
    pub(crate) fn parse(name: &str) -> Result<Self, PageError> {
        [Self::Retry, Self::Cancel, Self::Discard]
            .into_iter()
            .find(|verb| verb.as_str() == name)
            .ok_or(PageError::Field("It is not said what to do: choose retry, cancel or discard."))
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Discard => "discard",
        }
    }

    /// The verb at the beginning of a sentence.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Retry => "Retry",
            Self::Cancel => "Cancel",
            Self::Discard => "Discard",
        }
    }

    /// What it is done with.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Retry | Self::Discard => "dead letters",
            Self::Cancel => "tasks",
        }
    }

    pub(crate) fn action(self) -> TaskAction {
        match self {
            Self::Retry => TaskAction::Retry,
            Self::Cancel | Self::Discard => TaskAction::Cancel,
        }
    }

    /// The states of the tasks that it can be done with.
    fn states(self) -> &'static [TaskState] {
        match self {
            Self::Retry | Self::Discard => &[TaskState::Dead],
            Self::Cancel => &[TaskState::Pending, TaskState::Running, TaskState::Retrying],
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) verb: Verb,
    /// A selection of tasks; empty: those that the filter matches.
    pub(crate) ids: Vec<Uuid>,
    pub(crate) filter: String,
    /// Maximum number of tasks, the oldest first.
    pub(crate) limit: Option<i64>,
    /// Maximum number of tasks per second.
    pub(crate) rate: Option<i32>,
}

/// What would be done.
pub(crate) struct Plan {
    pub(crate) verb: Verb,
    pub(crate) filter: TaskFilter,
    pub(crate) limit: Option<i64>,
    pub(crate) rate: i32,
    /// The dry run.
    pub(crate) matching: MatchingTasks,
}

/// The dry run. A filter without conditions, or with one that is not understood, is refused: it would match too much.
pub(crate) async fn plan(console: &Console, identity: &Identity, wanted: Wanted) -> Result<Plan, PageError> {
    identity.require_admin()?;
    let Wanted { verb, ids, filter: text, limit, rate } = wanted;
    if limit.is_some_and(|limit| limit < 1) {
        return Err(PageError::Field("The number of tasks is not at least 1: correct it."));
    }
    let rate = rate.unwrap_or(DEFAULT_RATE);
    if !(1..=MAX_RATE).contains(&rate) {
        return Err(PageError::Field("The number of tasks per second is not between 1 and 5,000: correct it."));
    }
    let filter =
        if ids.is_empty() { of_text(console, identity, verb, &text).await? } else { of_ids(verb, ids, &text)? };
    let matching = console.store.count_tasks(&filter).await?;
    Ok(Plan { verb, filter, limit, rate, matching })
}

fn of_ids(verb: Verb, ids: Vec<Uuid>, text: &str) -> Result<TaskFilter, PageError> {
    if !text.trim().is_empty() {
        return Err(PageError::Field("Both tasks and a filter are selected: choose one of them."));
    }
    if ids.len() > MAX_IDS {
        return Err(PageError::Field("More than 200 tasks are selected: select fewer, or use a filter."));
    }
    Ok(TaskFilter { ids: Some(ids), states: verb.states().to_vec(), ..TaskFilter::default() })
}

async fn of_text(console: &Console, identity: &Identity, verb: Verb, text: &str) -> Result<TaskFilter, PageError> {
    let filter::Filter { conditions, is_empty, problems } = filter::read(console, identity, text).await?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(PageError::Filter(problem));
    }
    if is_empty {
        return Err(PageError::Field("Nothing is selected: select tasks, or filter them."));
    }
    let is_wanted =
        |state: &TaskState| conditions.states.is_empty() || conditions.states.iter().any(|name| name == state.as_str());
    Ok(TaskFilter {
        ids: None,
        states: verb.states().iter().copied().filter(is_wanted).collect(),
        user_id: conditions.user_id,
        reason: conditions.reason,
        error_group: conditions.error_group,
        error_prefix: conditions.error_prefix,
        event_name: conditions.event_name,
        since: conditions.since,
    })
}
