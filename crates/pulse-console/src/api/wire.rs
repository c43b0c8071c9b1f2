//! The JSON around what the store returns.

use pulse_store::console::{DeadGroup, Hit};
use pulse_store::{ActStatus, AuditRow, MatchingTasks, Pause, WorkerRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::acts::Verb;

/// The tasks with a searched id.
#[derive(Serialize, ToSchema)]
pub(crate) struct Hits {
    pub(crate) hits: Vec<Hit>,
}

/// Dead letters by error.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadGroups {
    pub(crate) groups: Vec<DeadGroup>,
}

/// The workers of the last hour.
#[derive(Serialize, ToSchema)]
pub(crate) struct Workers {
    pub(crate) workers: Vec<WorkerRow>,
}

/// Rows of the audit log, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPage {
    pub(crate) rows: Vec<AuditRow>,
    /// The `below` of the next page; null on the last one.
    pub(crate) next: Option<i64>,
}

/// The acts on tasks that run.
#[derive(Serialize, ToSchema)]
pub(crate) struct Acts {
    pub(crate) acts: Vec<ActStatus>,
}

/// What to do, and with which tasks: either `ids` or `filter`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAct {
    pub(crate) r#do: Verb,
    /// Ids of tasks.
    #[serde(default)]
    #[schema(max_items = 200)]
    pub(crate) ids: Vec<Uuid>,
    /// A filter as on the page of tasks, with at least one condition, such as `state:dead reason:timeout since:1h`.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub(crate) filter: String,
    /// Maximum number of tasks, the oldest first.
    #[schema(minimum = 1)]
    pub(crate) limit: Option<i64>,
    /// Maximum number of tasks per second; 100 if absent.
    #[schema(minimum = 1, maximum = 5000)]
    pub(crate) rate: Option<i32>,
    /// Why, for the audit log.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub(crate) reason: String,
    /// Only counts the tasks.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What an act would do.
#[derive(Serialize, ToSchema)]
pub(crate) struct DryRun {
    /// The filter as the audit log would have it.
    pub(crate) target: String,
    pub(crate) matching: MatchingTasks,
}

/// Why claims are paused or resumed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// For the audit log.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub(crate) reason: String,
}

/// Whether claims are paused now.
#[derive(Serialize, ToSchema)]
pub(crate) struct PauseState {
    /// Whether the request changed that.
    pub(crate) changed: bool,
    /// The pause; null without one.
    pub(crate) pause: Option<Pause>,
}
