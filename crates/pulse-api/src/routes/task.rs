//! `GET /api/v1/tasks/{task_id}`: what became of a task of the caller.

use axum::Json;
use axum::extract::State;
use pulse_http::Problem;

use crate::auth::Reader;
use crate::error::{not_found, store_failed};
use crate::openapi::{FindProblems, ReadHeaders};
use crate::routes::path::TaskId;
use crate::state::AppState;
use crate::wire::TaskAnswer;

/// Read a task
///
/// State, attempts with their errors, and times. Another user's task is not found.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{task_id}",
    tag = "tasks",
    params(("task_id" = Uuid, Path, description = "The task's id, as the 202 gave it."), ReadHeaders),
    responses((status = OK, description = "The task.", body = TaskAnswer), FindProblems),
)]
pub(crate) async fn get_task(
    State(state): State<AppState>,
    reader: Reader,
    TaskId(id): TaskId,
) -> Result<Json<TaskAnswer>, Problem> {
    let task = state.store.find_task(reader.user_id, id).await.map_err(store_failed)?;
    task.map(|task| Json(task.into())).ok_or_else(|| not_found("task_not_found", "task"))
}
