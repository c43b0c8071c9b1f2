//! `GET /api/v1/tasks/{task_id}`: one task of the user.

use axum::Json;
use axum::extract::State;
use pulse_http::{Problem, ProblemCode};

use crate::auth::Reader;
use crate::error::{not_found, store_failed};
use crate::limits::RateLimitFields;
use crate::openapi::{FindProblems, ReadHeaders};
use crate::routes::path::TaskId;
use crate::state::AppState;
use crate::wire::TaskAnswer;

/// Read a task
///
/// Returns the state of the task, its attempts and their errors. Tasks of other users give 404.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{task_id}",
    tag = "tasks",
    params(("task_id" = Uuid, Path, description = "Id of the task, from the 202."), ReadHeaders),
    responses((status = OK, description = "The task.", body = TaskAnswer), FindProblems),
)]
pub(crate) async fn get_task(
    State(state): State<AppState>,
    reader: Reader,
    TaskId(id): TaskId,
) -> Result<(RateLimitFields, Json<TaskAnswer>), Problem> {
    let task = state.store.find_task(Some(reader.user_id), id).await.map_err(store_failed)?;
    let task = task.ok_or_else(|| not_found(ProblemCode::TaskNotFound, "task"))?;
    Ok((state.limits.fields(&reader.usage), Json(task.into())))
}
