//! What is observed: rebuilt from the world, apart from times and the last decision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::conditions;
use super::spec::SecretKey;

/// What the operator found, decided and did.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PulseIngestStatus {
    /// The generation of the spec that this status is about; −1 before the first look.
    pub observed_generation: i64,
    /// One per type, see OPERATIONS.md.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_revision: Option<Revision>,
    /// What should run once the schema is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<Revision>,
    /// The API's pods.
    pub api: RoleStatus,
    /// The scheduler's pods.
    pub scheduler: RoleStatus,
    /// The workers' pods.
    pub workers: WorkersStatus,
    /// How the number of workers came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// The schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsStatus>,
    /// What would change, were it not paused or waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub pending_changes: Vec<PendingChange>,
}

/// What a rollout is about: these fields wait for the schema, every other field applies at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Of the other fields, 10 hex digits.
    #[schemars(length(max = 16))]
    pub hash: String,
    /// The whole image reference.
    #[schemars(length(max = 512))]
    pub image: String,
    /// Its tag, or the start of its digest.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Where the database's URL is.
    pub database_url_secret_ref: SecretKey,
}

/// Pods of a role.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleStatus {
    /// Ready pods.
    pub ready: i32,
    /// Wanted pods.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// `ready/desired`.
    #[schemars(length(max = 32))]
    pub summary: String,
}

/// Pods of the workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Pods that are not ending.
    pub replicas: i32,
    /// Ready pods.
    pub ready: i32,
    /// Wanted pods.
    pub desired: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that finish their tasks and go.
    pub terminating: i32,
    /// `ready/desired`.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// Selects them, for the scale subresource.
    #[schemars(length(max = 512))]
    pub selector: String,
}

/// How the number of workers came about.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// `Internal` or `External`.
    #[schemars(length(max = 16))]
    pub mode: String,
    /// Tasks owed and due, to two digits; refreshed at most every 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Age of the oldest owed task, in seconds, to two digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_age_seconds: Option<i64>,
    /// When the number last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Why it is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// When a waiting retry will wake the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_wake_time: Option<Time>,
}

/// A decision on the number of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// When.
    pub time: Time,
    /// Workers before.
    pub from: i32,
    /// Workers after.
    pub to: i32,
    /// What won: `Backlog`, `Throughput`, `Age`, `Idle`, `Wake`, `Unknown`, `Fixed`.
    #[schemars(length(max = 32))]
    pub reason: String,
    /// What limited it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limited_by: Option<String>,
    /// What it was computed from.
    pub inputs: DecisionInputs,
    /// All of it in a sentence.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What a decision was computed from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionInputs {
    /// Tasks owed and due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Of these, delivered to a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Accepted tasks per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals_per_second: Option<f64>,
    /// Tasks per second of a busy worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput_per_worker: Option<f64>,
    /// Age of the oldest owed task, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_age_seconds: Option<i64>,
}

/// Where a migration is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MigrationState {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// A Job finds out what would be done.
    Planning,
    /// The plan waits for `approvedPlan`, or for whoever migrates by hand.
    Planned,
    /// A Job migrates.
    Running,
    /// The schema is there.
    Done,
    /// The Job failed, and its inputs have to change.
    Failed,
}

/// The schema.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationsStatus {
    /// Where it is.
    pub state: MigrationState,
    /// The Job whose inputs these are.
    #[schemars(length(max = 63))]
    pub job_name: String,
    /// The Job of other inputs before it, if there was one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub after: String,
    /// The plan's hash: `migrations.approvedPlan` approves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub plan_hash: Option<String>,
    /// What would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// The newest version of the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Migrations in the database that this version does not know, and may run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<i64>,
    /// How the Job's last pod ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last line of the Job.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// What a migration would do.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanSummary {
    /// How many migrations.
    pub pending: i64,
    /// Whether an older version could not run afterwards.
    pub destructive: bool,
    /// The first of them.
    #[schemars(length(max = 5), inner(length(max = 256)))]
    pub names: Vec<String>,
}

/// A change that waits.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// The object.
    #[schemars(length(max = 128))]
    pub object: String,
    /// `create`, `update`, `scale` or `delete`.
    #[schemars(length(max = 16))]
    pub action: String,
    /// Whether its pods restart.
    pub restarts: bool,
}
