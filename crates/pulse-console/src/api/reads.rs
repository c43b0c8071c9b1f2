//! `GET`: what the pages show.

use axum::Json;
use axum::extract::State;
use pulse_http::Problem;
use pulse_store::console::{
    DeadOrder, EventTail, Overview, QueueView, Range, Schedules, Series, TailFilter, TaskDetail, TaskPage,
};

use crate::api::caller::{Caller, PathId, page_size};
use crate::api::document::{FindProblems, ReadProblems};
use crate::api::wire::{AuditPage, DeadGroups, Hits, Workers};
use crate::console::Console;
use crate::error::PageError;
use crate::fields::Query;
use crate::reads;

const BELOW: &str = "The page does not exist: send the `next` of an earlier answer.";
/// Maximum number of groups of dead letters.
const GROUPS: i64 = 100;

type Answer<T> = Result<Json<T>, Problem>;

/// The figures of now
///
/// They are read once per second, for all that ask. Only for `admin`.
#[utoipa::path(get, path = "/api/v1/admin/overview", tag = "read", responses((status = OK, body = Overview), ReadProblems))]
pub(crate) async fn overview(State(console): State<Console>, Caller(caller): Caller) -> Answer<Overview> {
    Ok(Json(reads::figures(&console, &caller)?.overview.clone()))
}

/// The figures of a time range, in steps
///
/// Only for `admin`.
#[utoipa::path(
    get, path = "/api/v1/admin/series", tag = "read",
    params(("range" = Option<Range>, Query, description = "The last hour if absent.")),
    responses((status = OK, body = Series), ReadProblems),
)]
pub(crate) async fn series(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<Series> {
    let range = match fields.get("range") {
        "" | "hour" => Range::Hour,
        "day" => Range::Day,
        "week" => Range::Week,
        _ => return Err(PageError::Field("The range is not hour, day or week: correct it.").into()),
    };
    Ok(Json(reads::series(&console, &caller, range).await?))
}

/// List tasks in any state
///
/// Those that were accepted last first. A page may have no task and still not be the last one: what it looked at does not
/// match.
#[utoipa::path(
    get, path = "/api/v1/admin/tasks", tag = "read",
    params(
        ("q" = Option<String>, Query, max_length = 1024,
         description = "Conditions, separated by spaces: `state:dead,retrying user:ada event:order reason:timeout \
                        error:\"timed out\" group:\"…\" since:1h`. In quotes, `\\` escapes `\"` and `\\`."),
        ("below" = Option<uuid::Uuid>, Query, description = "The `next` of an earlier answer."),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200, description = "Number of tasks; 50 if absent."),
    ),
    responses((status = OK, body = TaskPage), ReadProblems),
)]
pub(crate) async fn list_tasks(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<TaskPage> {
    let (below, limit) = (fields.read("below", BELOW)?, page_size(&fields)?);
    let (page, problems) = reads::tasks(&console, &caller, fields.get("q"), below, limit.into()).await?;
    match problems.into_iter().next() {
        Some(problem) => Err(PageError::Filter(problem).into()),
        None => Ok(Json(page)),
    }
}

/// Read a task
///
/// Workers, and the number of dead letters with the same error, are only for `admin`.
#[utoipa::path(
    get, path = "/api/v1/admin/tasks/{id}", tag = "read",
    params(("id" = uuid::Uuid, Path, description = "Id of the task.")),
    responses((status = OK, body = TaskDetail), FindProblems),
)]
pub(crate) async fn get_task(
    State(console): State<Console>,
    Caller(caller): Caller,
    PathId(id): PathId,
) -> Answer<TaskDetail> {
    Ok(Json(reads::task(&console, &caller, id).await?))
}

/// Find the tasks of an event, task, request or trace
#[utoipa::path(
    get, path = "/api/v1/admin/search", tag = "read",
    params(("id" = String, Query, max_length = 1024, description = "Any id, or a `traceparent`.")),
    responses((status = OK, body = Hits), FindProblems),
)]
pub(crate) async fn search(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<Hits> {
    let hits = reads::search(&console, &caller, fields.get("id")).await?;
    Ok(Json(Hits { hits }))
}

/// List dead letters by error
///
/// At most 100 groups. Only for `admin`.
#[utoipa::path(
    get, path = "/api/v1/admin/dead-letters", tag = "read",
    params(("order" = Option<String>, Query, description = "`newest`, or `count` if absent.")),
    responses((status = OK, body = DeadGroups), ReadProblems),
)]
pub(crate) async fn dead_letters(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<DeadGroups> {
    let order = match fields.get("order") {
        "" | "count" => DeadOrder::Count,
        "newest" => DeadOrder::Newest,
        _ => return Err(PageError::Field("The order is not count or newest: correct it.").into()),
    };
    let groups = reads::dead_groups(&console, &caller, order, GROUPS).await?;
    Ok(Json(DeadGroups { groups }))
}

/// List the workers of the last hour
///
/// Only for `admin`.
#[utoipa::path(get, path = "/api/v1/admin/workers", tag = "read", responses((status = OK, body = Workers), ReadProblems))]
pub(crate) async fn workers(State(console): State<Console>, Caller(caller): Caller) -> Answer<Workers> {
    Ok(Json(Workers { workers: reads::figures(&console, &caller)?.workers.clone() }))
}

/// List the scheduler's jobs
///
/// Only for `admin`.
#[utoipa::path(get, path = "/api/v1/admin/schedules", tag = "read", responses((status = OK, body = Schedules), ReadProblems))]
pub(crate) async fn schedules(State(console): State<Console>, Caller(caller): Caller) -> Answer<Schedules> {
    Ok(Json(reads::schedules(&console, &caller).await?))
}

/// Compare PostgreSQL with Redis
///
/// Only for `admin`.
#[utoipa::path(get, path = "/api/v1/admin/queue", tag = "read", responses((status = OK, body = QueueView), ReadProblems))]
pub(crate) async fn queue(State(console): State<Console>, Caller(caller): Caller) -> Answer<QueueView> {
    Ok(Json(reads::queue(&console, &caller).await?))
}

/// List events, newest first
#[utoipa::path(
    get, path = "/api/v1/admin/events", tag = "read",
    params(
        ("event_name" = Option<String>, Query, description = "Only events with this name."),
        ("event_type" = Option<String>, Query, description = "Only events with this type."),
        ("source" = Option<String>, Query, description = "Only events with this source."),
        ("below" = Option<i64>, Query, description = "The `next` of an earlier answer."),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200, description = "Number of events; 50 if absent."),
    ),
    responses((status = OK, body = EventTail), ReadProblems),
)]
pub(crate) async fn events(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<EventTail> {
    let (below, limit) = (fields.read("below", BELOW)?, page_size(&fields)?);
    let text = |name| Some(fields.get(name).to_owned()).filter(|text| !text.is_empty());
    let filter = TailFilter {
        user_id: None,
        event_name: text("event_name"),
        event_type: text("event_type"),
        source: text("source"),
    };
    Ok(Json(reads::events(&console, &caller, filter, below, limit.into()).await?))
}

/// Read the audit log
///
/// Only for `admin`.
#[utoipa::path(
    get, path = "/api/v1/admin/audit", tag = "read",
    params(
        ("below" = Option<i64>, Query, description = "The `next` of an earlier answer."),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200, description = "Number of rows; 50 if absent."),
    ),
    responses((status = OK, body = AuditPage), ReadProblems),
)]
pub(crate) async fn audit(
    State(console): State<Console>,
    Caller(caller): Caller,
    Query(fields): Query,
) -> Answer<AuditPage> {
    let (below, limit) = (fields.read("below", BELOW)?, page_size(&fields)?);
    let (rows, next) = reads::audit(&console, &caller, below, limit.into()).await?;
    Ok(Json(AuditPage { rows, next }))
}
