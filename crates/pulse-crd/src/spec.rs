//! The desired state.
#![expect(unreachable_pub, reason = "the derive for CEL rules generates types inside functions")]

use std::collections::BTreeMap;

use kube_derive::{CustomResource, KubeSchema};
use pulse_core::defaults;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::ApiSpec;
use super::auth::AuthSpec;
use super::bounded::{annotations, labels};
use super::console::ConsoleSpec;
use super::datastores::{DatabaseSpec, RedisSpec};
use super::pod::PodTemplate;
use super::resources::Resources;
use super::rollout::Probes;
use super::status::PulseIngestStatus;
use super::workers::WorkersSpec;

/// Desired state of an ingestion system: an API that accepts events, workers that process them, a scheduler, and their
/// database schema.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    crates(kube = "::kube_derive", kube_core = "::kube_core"),
    attr = "x_kube(crates(kube_core = \"::kube_core\"))",
    group = "pulseboard.dev",
    version = "v1alpha1",
    kind = "PulseIngest",
    namespaced,
    shortname = "pi",
    category = "all",
    doc = "PulseIngest is an event ingestion system: API, workers, scheduler and database schema.",
    status = "PulseIngestStatus",
    derive = "PartialEq",
    selectable = ".spec.image.tag",
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.workers.replicas",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.activeRevision.version"),
    printcolumn(name = "Api", type_ = "string", json_path = ".status.api.summary"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers.summary"),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.autoscaling.backlog"),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.conditions[?(@.type=='ScalingActive')].reason"),
    printcolumn(name = "Migrated", type_ = "string", json_path = ".status.conditions[?(@.type=='Migrated')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Oldest", type_ = "integer", json_path = ".status.autoscaling.oldestAgeSeconds", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.activeRevision.hash", priority = 1),
    validation = (
        "size(self.metadata.name) <= 40",
        "the name must have at most 40 characters, so that the names of the child objects are valid"
    ),
    validation = (
        "self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        "the name must start with a letter and must not contain a dot, because a Service is named after it"
    ),
    // `kubectl scale` would seem to work otherwise. The default, 1, is allowed: removing the field from a manifest sets it.
    validation = Rule::new(
        "[self, oldSelf].exists(object, !has(object.spec.workers.autoscaling) \
          || object.spec.workers.autoscaling.mode != 'Internal') \
         || self.spec.workers.replicas in [1, oldSelf.spec.workers.replicas]"
    )
    .message(
        "the operator sets the number of workers: change workers.autoscaling.minReplicas and maxReplicas, set its mode to \
         External, or remove workers.autoscaling"
    )
    .field_path(".spec.workers.replicas")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "has(self.workers.autoscaling) || self.workers.replicas >= 1",
        "workers.replicas must be at least 1 without autoscaling: set stopped to run no workers"
    ),
    validation = (
        "!has(self.database.maxConnectionsTotal) || (string(self.api.rollout.maxSurge) == '25%' && string(self.workers.rollout.maxSurge) == '25%' && string(self.api.rollout.maxUnavailable) == '0' && string(self.workers.rollout.maxUnavailable) == '0')",
        "rollout must not be changed with database.maxConnectionsTotal, which counts on the default"
    )
)]
pub struct PulseIngestSpec {
    /// Container image of every role. A change runs a migration Job first and then replaces the pods.
    pub image: ImageSpec,
    /// Connection to PostgreSQL, which stores events and tasks.
    pub database: DatabaseSpec,
    /// Connection to Redis, which delivers tasks to the workers. Tasks survive the loss of its data, because PostgreSQL
    /// stores them.
    pub redis: RedisSpec,
    /// Verification of the tokens of API clients.
    pub auth: AuthSpec,
    /// HTTP API that accepts events.
    #[serde(default)]
    pub api: ApiSpec,
    /// Workers that process tasks.
    #[serde(default)]
    pub workers: WorkersSpec,
    /// Timeout and retries of tasks.
    #[serde(default)]
    pub tasks: TasksSpec,
    /// Scheduler, which requeues due retries, expired leases and lost tasks, and creates partitions.
    #[serde(default)]
    pub scheduler: SchedulerSpec,
    /// Retention is how long data are kept. By default, for ever.
    #[serde(default)]
    pub retention: RetentionSpec,
    /// Console, with pages for administrators. Off unless it is enabled.
    #[serde(default)]
    pub console: ConsoleSpec,
    /// Migrations of the database schema.
    #[serde(default)]
    pub migrations: MigrationsSpec,
    /// RequireTls makes the pods refuse connections to PostgreSQL, Redis and an OTLP collector that are not encrypted, or
    /// whose server is not verified. Defaults to false.
    #[serde(default)]
    pub require_tls: bool,
    /// Labels that are added to all objects that the operator creates and to their pods, but to no selector. Labels of
    /// `podTemplate`, and those that the operator sets, take precedence. A change replaces the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub common_labels: BTreeMap<String, String>,
    /// Annotations that are added to all objects that the operator creates and to their pods. Annotations of
    /// `podTemplate`, and those that the operator sets, take precedence. A change replaces the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub common_annotations: BTreeMap<String, String>,
    /// Paused suspends reconciliation: the operator only updates the status, with its copy for the console, and lists the
    /// changes that it would make in `status.pendingChanges`. Pods that run are not affected. Defaults to false.
    #[serde(default)]
    pub paused: bool,
    /// Stopped scales every role to zero. All other objects and all data are kept. Defaults to false.
    #[serde(default)]
    pub stopped: bool,
}

/// Container image, identified by a digest or by a tag that does not move.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = (
    "has(self.digest) || (has(self.tag) && self.tag != 'latest')",
    "set a digest, or a tag other than latest: a tag that moves changes what runs without a rollout"
))]
pub struct ImageSpec {
    /// Repository of the image, without tag and digest.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,
    /// Tag of the image. `latest` is only accepted together with a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern("^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub tag: Option<String>,
    /// Digest of the image, as `sha256:` and 64 hex digits. It takes precedence over the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), pattern("^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Pull policy of the image: `Always`, `IfNotPresent` or `Never`. Defaults to `IfNotPresent`.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets in the namespace of this object with the credentials to pull the image. The pull Secrets that the
    /// operator is configured with are appended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<PullSecret>,
}

impl ImageSpec {
    /// Appends the Secrets that are not listed yet.
    pub fn add_pull_secrets(&mut self, names: &[String]) {
        for name in names {
            if !self.pull_secrets.iter().any(|secret| secret.name == *name) {
                self.pull_secrets.push(PullSecret { name: name.clone() });
            }
        }
    }
}

/// Pull policy of an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// Returns Kubernetes' name of the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Reference to a Secret with the credentials to pull an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Timeout and retries of tasks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TasksSpec {
    /// Maximum duration of an attempt, in seconds. An attempt that takes longer fails. Defaults to 300.
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: u32,
    /// Retries of failed attempts, with exponential backoff.
    pub retry: RetrySpec,
}

impl Default for TasksSpec {
    fn default() -> Self {
        Self { timeout_seconds: defaults::TASK_TIMEOUT_SECONDS, retry: RetrySpec::default() }
    }
}

/// Retries of failed attempts. The delay after attempt n is `baseSeconds` to the power of n, but at most `capSeconds`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = ("self.baseSeconds <= self.capSeconds", "baseSeconds must be less than or equal to capSeconds"))]
pub struct RetrySpec {
    /// Maximum number of attempts per task, including the first. A task that fails in all of them is dead-lettered. A
    /// change applies to tasks that are accepted afterwards. Defaults to 3.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "max_attempts")]
    pub max_attempts: u32,
    /// Base of the retry delay, in seconds: 2 waits 2 s after the first failed attempt and 4 s after the second.
    /// Defaults to 2.
    #[schemars(range(min = 1, max = 3600))]
    #[serde(default = "base_seconds")]
    pub base_seconds: u32,
    /// Maximum retry delay, in seconds. Defaults to 3600.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default = "cap_seconds")]
    pub cap_seconds: u32,
    /// Maximum random deviation of a retry delay in either direction, in percent. Defaults to 0.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default = "jitter_percent")]
    pub jitter_percent: u32,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            max_attempts: max_attempts(),
            base_seconds: base_seconds(),
            cap_seconds: cap_seconds(),
            jitter_percent: jitter_percent(),
        }
    }
}

/// Scheduler, which requeues due retries, expired leases and lost tasks, and creates partitions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulerSpec {
    /// Replicas is the number of scheduler pods. One of them is active; with 2, the other one takes over within seconds
    /// when a node is lost. Defaults to 1.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u32,
    /// CPU and memory requests and limits of the container of each scheduler pod.
    pub resources: Resources,
    /// Times of the probes.
    pub probes: Probes,
    /// Additional settings of the scheduler pods, in the format of a pod.
    pub pod_template: PodTemplate,
}

impl Default for SchedulerSpec {
    fn default() -> Self {
        let (resources, probes) = (Resources::default(), Probes::default());
        Self { replicas: 1, resources, probes, pod_template: PodTemplate::default() }
    }
}

/// How long data are kept. The scheduler removes what is older.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionSpec {
    /// EventDays is the number of days for which events are kept. Whole months are dropped, so the newest events of a
    /// month are kept up to a month longer than needed for its oldest. If not set, events are kept for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub event_days: Option<u32>,
    /// HistoryDays is the number of days for which settled tasks are kept, by whole months too. If not set, they are
    /// kept for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub history_days: Option<u32>,
    /// DeadTaskDays is the number of days for which dead letters are kept. Their events stay. If not set, they are kept
    /// for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub dead_task_days: Option<u32>,
    /// ArchiveUrl is the S3-compatible store (`s3://BUCKET/PREFIX`) or the folder (`file:///FOLDER`) to which each month is
    /// copied before it is dropped. The scheduler finds credentials in its service account, or in variables of
    /// `scheduler.podTemplate` such as `AWS_ACCESS_KEY_ID`, `AWS_REGION` and `AWS_ENDPOINT`. If not set, months are dropped
    /// without a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), pattern("^(s3://[^/]+|file:///)"))]
    pub archive_url: Option<String>,
}

/// Migrations of the database schema, which are done before a new image is rolled out.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationsSpec {
    /// Policy that starts migrations. `Auto` migrates as soon as an image needs it. `Plan` plans the migration and
    /// waits until `approvedPlan` names the plan. `Manual` never migrates: it waits until you have run `pulse migrate`.
    /// Defaults to `Auto`.
    pub policy: MigrationPolicy,
    /// Hash of the plan to carry out, as in `status.migrations.planHash`. Only used with the policy `Plan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), pattern("^[0-9a-f]{64}$"))]
    pub approved_plan: Option<String>,
    /// AllowDestructive permits migrations after which the previous version cannot run. If false, the Job refuses them
    /// with exit code 21. Defaults to false.
    pub allow_destructive: bool,
    /// Maximum duration of a migration Job, in seconds. Defaults to 600.
    #[schemars(range(min = 60, max = 86_400))]
    pub active_deadline_seconds: u32,
    /// Trigger runs the migration again when its value changes. The value has no other meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub trigger: Option<String>,
    /// CPU and memory requests and limits of the container of migration pods.
    pub resources: Resources,
    /// Additional settings of migration pods, in the format of a pod. They apply to the next Job: a Job that exists is
    /// never changed.
    pub pod_template: PodTemplate,
}

impl Default for MigrationsSpec {
    fn default() -> Self {
        Self {
            policy: MigrationPolicy::Auto,
            approved_plan: None,
            allow_destructive: false,
            active_deadline_seconds: 600,
            trigger: None,
            resources: Resources::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// Policy that starts migrations.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MigrationPolicy {
    /// The operator migrates as soon as an image needs it.
    #[default]
    Auto,
    /// The operator plans the migration and carries it out once `approvedPlan` names the plan.
    Plan,
    /// The operator waits until the schema has been migrated with `pulse migrate`.
    Manual,
}

fn max_attempts() -> u32 {
    defaults::MAX_ATTEMPTS
}

fn base_seconds() -> u32 {
    defaults::RETRY_BASE_SECONDS
}

fn cap_seconds() -> u32 {
    defaults::RETRY_CAP_SECONDS
}

fn jitter_percent() -> u32 {
    defaults::RETRY_JITTER_PERCENT.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pulse_core::RetryPolicy;

    use super::*;

    #[test]
    fn retries_of_the_production_sample_span_a_day_at_least() {
        let sample = include_str!("../../../manifests/samples/production.yaml");
        let sample: PulseIngest = crate::yaml::read(sample).expect("the sample is valid");
        let RetrySpec { max_attempts, base_seconds, cap_seconds, jitter_percent } = sample.spec.tasks.retry;
        let policy = RetryPolicy {
            base_seconds: base_seconds.into(),
            cap: Duration::from_secs(cap_seconds.into()),
            jitter_percent: jitter_percent.into(),
        };
        // The shortest delays that the jitter allows.
        let span: Duration = (1..max_attempts).map(|attempt| policy.delay(attempt, 0.0)).sum();
        assert!(span >= Duration::from_hours(24), "{span:?}");
    }
}
