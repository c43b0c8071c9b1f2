//! The observed state. The operator rebuilds it from the cluster, except for times and the last scaling decision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::conditions;
use super::secret::SecretKey;

/// Observed state of a PulseIngest.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PulseIngestStatus {
    /// Generation of the spec that this status describes; -1 before the first reconcile.
    pub observed_generation: i64,
    /// Conditions, one per type: `Ready`, `Available`, `Migrated`, `QueueReachable`, `ScalingActive`, `ScalingLimited`
    /// and `BacklogWithinTarget`. `Reconciling`, `Stalled` and `CRDOutdated` are only present while they are true.
    /// docs/reference/conditions.md explains every reason.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Revision that runs. Not set before the first migration is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_revision: Option<Revision>,
    /// Revision that the spec asks for. It becomes active once its migration is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<Revision>,
    /// Replicas of the API.
    pub api: RoleStatus,
    /// Replicas of the scheduler.
    pub scheduler: RoleStatus,
    /// Replicas of the console. Not set without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<RoleStatus>,
    /// Replicas of the workers.
    pub workers: WorkersStatus,
    /// Backlog, and the last decision on the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// State of the database schema and of its last migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsStatus>,
    /// Changes that the operator would make if reconciliation were not paused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub pending_changes: Vec<PendingChange>,
    /// Operator that reconciles this object, as the namespace and the name of its Lease. Other operators do nothing with
    /// it. To hand the object over, set the annotation `pulseboard.dev/operator` to the other operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub operator: Option<String>,
}

/// Fields of the spec that wait for a migration when they change. All other fields apply at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Hash of the other fields, as 10 hex digits.
    #[schemars(length(max = 16))]
    pub hash: String,
    /// Full reference of the image.
    #[schemars(length(max = 512))]
    pub image: String,
    /// Tag of the image, or the start of its digest.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Secret key with the connection URL of PostgreSQL.
    pub database_url_secret_ref: SecretKey,
}

/// Replicas of a role.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleStatus {
    /// Number of ready pods.
    pub ready: i32,
    /// Number of desired pods.
    pub desired: i32,
    /// Number of pods that have the newest pod template.
    pub updated: i32,
    /// Ready and desired pods, as `ready/desired`.
    #[schemars(length(max = 32))]
    pub summary: String,
}

/// Replicas of the workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Number of pods that are not terminating.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready: i32,
    /// Number of desired pods.
    pub desired: i32,
    /// Number of pods that have the newest pod template.
    pub updated: i32,
    /// Number of pods that are terminating: they end their running tasks and claim no more.
    pub terminating: i32,
    /// Ready and desired pods, as `ready/desired`.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// Label selector of the pods, for the scale subresource.
    #[schemars(length(max = 512))]
    pub selector: String,
}

/// Backlog, and the last decision on the number of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// Mode that is in effect: `Internal`, `External`, or `Fixed` without autoscaling.
    #[schemars(length(max = 16))]
    pub mode: String,
    /// Number of due tasks, including those in flight, rounded down to two significant digits. Refreshed at most every
    /// 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Age of the oldest due task that no worker has, in seconds, rounded down to two significant digits; 0 if none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_age_seconds: Option<i64>,
    /// What was measured, for the first decisions after a restart of the operator. Only set in the mode `Internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedStatus>,
    /// Time at which the number of workers last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Last decision on the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// Time of the next decision that no sample triggers: a due retry scales the workers up from zero, or a schedule
    /// starts or ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_wake_time: Option<Time>,
}

/// What was measured of the tasks and workers, rounded to two significant digits. Each figure is written when it differs by
/// a fifth.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LearnedStatus {
    /// Mean time of an attempt, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_seconds: Option<f64>,
    /// Mean time of a slot that claiming and settling take for each attempt, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead_seconds: Option<f64>,
    /// Tasks that become due per second: new ones and retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals_per_second: Option<f64>,
    /// Time from the creation of a worker until it is ready, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<f64>,
}

/// Decision on the number of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// Time of the decision.
    pub time: Time,
    /// Number of workers before the decision.
    pub from: i32,
    /// Number of workers after the decision.
    pub to: i32,
    /// Rule that determined the number: `BacklogTarget`, `DrainTimeTarget`, `AgeTarget`, `Idle`, `Wake`, `Unknown` or
    /// `Fixed`.
    #[schemars(length(max = 32))]
    pub reason: String,
    /// Limit that was applied last, such as `TooManyReplicas` or `ScaleUpLimit`. Not set if no limit was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limited_by: Option<String>,
    /// Measurements that the decision is based on.
    pub inputs: DecisionInputs,
    /// Explanation of the decision, in a sentence.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Measurements that a decision is based on. An unknown measurement is not set.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionInputs {
    /// Number of due tasks that no worker has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<i64>,
    /// Number of tasks that are delivered to a worker and not settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Tasks that become due per second: new ones and retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals_per_second: Option<f64>,
    /// Mean time of an attempt, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_seconds: Option<f64>,
    /// Age of the oldest due task that no worker has, in seconds. Not set if none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_age_seconds: Option<i64>,
}

/// State of a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MigrationState {
    /// The state of the schema is not known yet.
    #[default]
    Unknown,
    /// A Job plans the migration.
    Planning,
    /// The plan waits for `approvedPlan`, or for `pulse migrate` to be run with the policy `Manual`.
    Planned,
    /// A Job migrates the schema.
    Running,
    /// The schema fits the desired revision.
    Done,
    /// The Job failed. With a final exit code it does not run again before its inputs change.
    Failed,
}

/// State of the database schema and of its last migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationsStatus {
    /// State of the migration: `Unknown`, `Planning`, `Planned`, `Running`, `Done` or `Failed`.
    pub state: MigrationState,
    /// Name of the Job that plans or carries out the migration.
    #[schemars(length(max = 63))]
    pub job_name: String,
    /// Name of the Job that ran before with other inputs. Not set for the first one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub after: String,
    /// Hash of the plan. Set `migrations.approvedPlan` to it to approve the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub plan_hash: Option<String>,
    /// Summary of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// Newest version of the schema, once all migrations of the image are applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Number of applied migrations that the image does not know, but can run with. Not set if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<i64>,
    /// Exit code of the Job's last pod, if the Job failed. docs/reference/exit-codes.md explains every code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Pending migrations of the plan, or the last line of output of a failed Job.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Time at which the end of the Job was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// Summary of a migration plan.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanSummary {
    /// Number of pending migrations.
    pub pending: i64,
    /// True if the previous version cannot run after the migrations.
    pub destructive: bool,
    /// Names of the first 5 pending migrations.
    #[schemars(length(max = 5), inner(length(max = 256)))]
    pub names: Vec<String>,
}

/// Change that is not made while reconciliation is paused.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// Kind and name of the object.
    #[schemars(length(max = 128))]
    pub object: String,
    /// Action on the object: `create`, `update`, `scale` or `delete`.
    #[schemars(length(max = 16))]
    pub action: String,
    /// True if the change replaces the pods of the object.
    pub restarts: bool,
}
