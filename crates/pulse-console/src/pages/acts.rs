//! What forms do. Each act needs the scope `admin` and the token of the form, and leaves a row in the audit log.

use axum::extract::{Path, State};
use axum::response::Redirect;
use pulse_store::{Act, TaskFilter, TaskState, Via};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::console::Console;
use crate::error::PageError;
use crate::fields::Fields;
use crate::session::Viewer;

/// What is done with tasks.
#[derive(Clone, Copy)]
enum Move {
    Retry,
    Cancel,
}

/// Maximum number of tasks of one act.
pub(crate) const MAX_TASKS: i64 = 10_000;

fn act(viewer: &Viewer, fields: &Fields) -> Act {
    let reason: String = fields.get("reason").chars().take(500).collect();
    Act::new(viewer.subject.clone(), Via::Console, Some(reason).filter(|reason| !reason.is_empty()))
}

/// Moves tasks, on a blocking thread: an act runs to its end, also if the browser does not wait for it.
async fn move_tasks(console: &Console, what: Move, filter: TaskFilter, limit: i64, act: Act) -> Result<(), PageError> {
    let (store, runtime) = (console.store.clone(), Handle::current());
    let moving = move || {
        runtime.block_on(async {
            match what {
                Move::Retry => store.retry_dead_tasks(&filter, limit, &act).await,
                Move::Cancel => store.cancel_tasks(&filter, limit, &act).await,
            }
        })
    };
    let moved =
        tokio::task::spawn_blocking(moving).await.map_err(|_| PageError::Field("The act failed: see the log."))?;
    moved.map(drop).map_err(PageError::from)
}

fn one(id: Uuid, states: Vec<TaskState>) -> TaskFilter {
    TaskFilter { ids: Some(vec![id]), states, user_id: None, reason: None, error_group: None }
}

pub(crate) async fn retry_task(
    State(console): State<Console>,
    viewer: Viewer,
    Path(id): Path<Uuid>,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.may_act(&console, &fields)?;
    let filter = one(id, vec![TaskState::Dead]);
    move_tasks(&console, Move::Retry, filter, MAX_TASKS, act(&viewer, &fields)).await?;
    Ok(Redirect::to(&format!("/tasks/{id}")))
}

pub(crate) async fn cancel_task(
    State(console): State<Console>,
    viewer: Viewer,
    Path(id): Path<Uuid>,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.may_act(&console, &fields)?;
    let filter = one(id, TaskState::ALL.to_vec());
    move_tasks(&console, Move::Cancel, filter, MAX_TASKS, act(&viewer, &fields)).await?;
    Ok(Redirect::to(&format!("/tasks/{id}")))
}

/// Retries or discards at most as many dead letters of a group as the form says, the oldest first.
pub(crate) async fn move_dead(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.may_act(&console, &fields)?;
    let group = fields.get("group");
    if group.is_empty() {
        return Err(PageError::Field("No group of dead letters is selected: choose one on the page of dead letters."));
    }
    let limit = fields.get("limit").parse().ok().filter(|limit| (1..=MAX_TASKS).contains(limit));
    let limit = limit.ok_or(PageError::Field("The number of dead letters is not between 1 and 10,000: correct it."))?;
    let states = vec![TaskState::Dead];
    let filter = TaskFilter { ids: None, states, user_id: None, reason: None, error_group: Some(group.to_owned()) };
    let what = match fields.get("do") {
        "retry" => Move::Retry,
        "discard" => Move::Cancel,
        _ => return Err(PageError::Field("The form does not say whether to retry or to discard.")),
    };
    move_tasks(&console, what, filter, limit, act(&viewer, &fields)).await?;
    Ok(Redirect::to("/dead-letters"))
}

pub(crate) async fn pause(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.may_act(&console, &fields)?;
    console.store.pause(&act(&viewer, &fields)).await?;
    Ok(Redirect::to("/queue"))
}

pub(crate) async fn resume(
    State(console): State<Console>,
    viewer: Viewer,
    fields: Fields,
) -> Result<Redirect, PageError> {
    viewer.may_act(&console, &fields)?;
    console.store.resume(&act(&viewer, &fields)).await?;
    Ok(Redirect::to("/queue"))
}
