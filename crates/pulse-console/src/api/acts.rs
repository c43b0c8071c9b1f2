//! What administrators do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pulse_http::Problem;
use pulse_store::{ActStatus, Via};

use crate::acts::{self, Wanted};
use crate::api::caller::{Body, Caller, PathId};
use crate::api::document::{ActProblems, FindProblems, ReadProblems};
use crate::api::wire::{Acts, DryRun, NewAct, PauseState, Reason};
use crate::console::Console;
use crate::identity::Identity;
use crate::reads;

/// List the acts on tasks that run
///
/// Only for `admin`.
#[utoipa::path(get, path = "/api/v1/admin/acts", tag = "act", responses((status = OK, body = Acts), ReadProblems))]
pub(crate) async fn list_acts(State(console): State<Console>, Caller(caller): Caller) -> Result<Json<Acts>, Problem> {
    Ok(Json(Acts { acts: reads::running_acts(&console, &caller).await? }))
}

/// Retry, cancel or discard tasks
///
/// Starts an act, which moves tasks in small transactions at its rate, and waits up to a second for its end. With `dry_run`,
/// only counts the tasks. Only for `admin`.
#[utoipa::path(
    post, path = "/api/v1/admin/acts", tag = "act", request_body = NewAct,
    responses(
        (status = OK, description = "The dry run.", body = DryRun),
        (status = ACCEPTED, description = "The act.", body = ActStatus),
        ActProblems,
    ),
)]
pub(crate) async fn start_act(
    State(console): State<Console>,
    Caller(caller): Caller,
    Body(new): Body<NewAct>,
) -> Result<Response, Problem> {
    if !new.dry_run {
        caller.may_act(&console)?;
    }
    let wanted = Wanted { verb: new.r#do, ids: new.ids, filter: new.filter, limit: new.limit, rate: new.rate };
    let plan = acts::plan(&console, &caller, wanted).await?;
    if new.dry_run {
        let dry_run = DryRun { target: plan.filter.to_string(), matching: plan.matching };
        return Ok(Json(dry_run).into_response());
    }
    let act = acts::act(&caller, Via::Api, &new.reason);
    let id = acts::start(&console, &caller, plan, &act).await?;
    let status = reads::act(&console, &caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(status)).into_response())
}

/// Read an act on tasks, while it runs and after
///
/// Only for `admin`.
#[utoipa::path(
    get, path = "/api/v1/admin/acts/{id}", tag = "act",
    params(("id" = uuid::Uuid, Path, description = "Id of the act.")),
    responses((status = OK, body = ActStatus), FindProblems),
)]
pub(crate) async fn get_act(
    State(console): State<Console>,
    Caller(caller): Caller,
    PathId(id): PathId,
) -> Result<Json<ActStatus>, Problem> {
    Ok(Json(reads::act(&console, &caller, id).await?))
}

/// Stop an act on tasks before its next transaction
///
/// Only for `admin`.
#[utoipa::path(
    post, path = "/api/v1/admin/acts/{id}/stop", tag = "act",
    params(("id" = uuid::Uuid, Path, description = "Id of the act.")),
    responses((status = ACCEPTED, description = "The act.", body = ActStatus), ActProblems),
)]
pub(crate) async fn stop_act(
    State(console): State<Console>,
    Caller(caller): Caller,
    PathId(id): PathId,
) -> Result<(StatusCode, Json<ActStatus>), Problem> {
    acts::stop(&console, &caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(reads::act(&console, &caller, id).await?)))
}

/// Pause all claims
///
/// Running tasks end; events are accepted and wait. Only for `admin`.
#[utoipa::path(
    post, path = "/api/v1/admin/pause", tag = "act", request_body = Reason,
    responses((status = OK, body = PauseState), ActProblems),
)]
pub(crate) async fn pause(
    State(console): State<Console>,
    Caller(caller): Caller,
    Body(reason): Body<Reason>,
) -> Result<Json<PauseState>, Problem> {
    set_pause(&console, &caller, &reason, true).await
}

/// Resume all claims
///
/// Only for `admin`.
#[utoipa::path(
    post, path = "/api/v1/admin/resume", tag = "act", request_body = Reason,
    responses((status = OK, body = PauseState), ActProblems),
)]
pub(crate) async fn resume(
    State(console): State<Console>,
    Caller(caller): Caller,
    Body(reason): Body<Reason>,
) -> Result<Json<PauseState>, Problem> {
    set_pause(&console, &caller, &reason, false).await
}

async fn set_pause(
    console: &Console,
    caller: &Identity,
    Reason { reason }: &Reason,
    pauses: bool,
) -> Result<Json<PauseState>, Problem> {
    let changed = acts::pause(console, caller, &acts::act(caller, Via::Api, reason), pauses).await?;
    let pause = reads::queue(console, caller).await?.pause;
    Ok(Json(PauseState { changed, pause }))
}
