//! What is wanted.
#![expect(unreachable_pub, reason = "the derive of CEL rules makes types of its own, inside functions")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::{PodTemplate, Resources};
use super::status::PulseIngestStatus;
use super::workers::WorkersSpec;

/// An ingestion system: an API that accepts events, workers that process them, a scheduler, and their database schema.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "pulseboard.dev",
    version = "v1alpha1",
    kind = "PulseIngest",
    namespaced,
    shortname = "pi",
    category = "all",
    doc = "An event ingestion system: API, workers, scheduler and database schema.",
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
    validation = ("size(self.metadata.name) <= 40", "the name has at most 40 characters, so that the names made of it fit"),
    validation = (
        "self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        "the name starts with a letter and has no dot, because a Service is named after it"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PulseIngestSpec {
    /// The image that every role runs.
    pub image: ImageSpec,
    /// PostgreSQL.
    pub database: DatabaseSpec,
    /// Redis.
    pub redis: RedisSpec,
    /// Who may call the API.
    pub auth: AuthSpec,
    /// The HTTP API.
    #[serde(default)]
    pub api: ApiSpec,
    /// What processes events.
    #[serde(default)]
    pub workers: WorkersSpec,
    /// How a task is tried.
    #[serde(default)]
    pub tasks: TasksSpec,
    /// What sweeps, retries and makes partitions: one replica, always.
    #[serde(default)]
    pub scheduler: SchedulerSpec,
    /// How the schema changes.
    #[serde(default)]
    pub migrations: MigrationsSpec,
    /// Look, but change nothing but the status.
    #[serde(default)]
    pub paused: bool,
    /// Scale every role to zero and keep everything else.
    #[serde(default)]
    pub stopped: bool,
}

/// An image, by digest or by a tag that does not move.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.digest) || (has(self.tag) && self.tag != 'latest')",
    "name a digest, or a tag other than latest: a tag that moves would change what runs without a rollout"
))]
pub struct ImageSpec {
    /// Without tag and digest.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,
    /// Its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern("^[A-Za-z0-9_][A-Za-z0-9._-]*$"))]
    pub tag: Option<String>,
    /// `sha256:…`; wins over the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), pattern("^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// When the node pulls it.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets of this namespace that let the node pull it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<PullSecret>,
}

impl ImageSpec {
    /// As if the object named these Secrets too, after its own and each once.
    pub fn add_pull_secrets(&mut self, names: &[String]) {
        for name in names {
            if !self.pull_secrets.iter().any(|secret| secret.name == *name) {
                self.pull_secrets.push(PullSecret { name: name.clone() });
            }
        }
    }
}

/// When a node pulls an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// A Secret that lets the node pull an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// PostgreSQL.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSpec {
    /// Where its URL is; a Secret that CloudNativePG makes works as it is.
    #[serde(deserialize_with = "with_uri_key")]
    #[schemars(schema_with = "uri_secret")]
    pub url_secret_ref: SecretKey,
    /// Where the CA of its certificate is, in PEM. With it, pods verify the certificate and the host name, unless the
    /// URL says `sslmode=verify-ca`. CloudNativePG's is `<cluster>-ca`.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub ca_secret_ref: Option<SecretKey>,
    /// The most connections that all roles together may open. The workers' number is limited by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 10000))]
    pub max_connections_total: Option<u32>,
}

/// Redis.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisSpec {
    /// Where its URL is.
    #[serde(deserialize_with = "with_url_key")]
    #[schemars(schema_with = "url_secret")]
    pub url_secret_ref: SecretKey,
    /// Where the CA of its certificate is, in PEM, if it is none that the image knows. The URL is `rediss://` then.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub ca_secret_ref: Option<SecretKey>,
}

/// A key of a Secret of this namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where the key that verifies tokens comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.jwtSecretRef) != has(self.publicKeySecretRef)",
    "name exactly one of jwtSecretRef (HS256) and publicKeySecretRef (RS256, ES256, EdDSA)"
))]
pub struct AuthSpec {
    /// The secret of HS256 tokens, at least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_secret_ref: Option<SecretKey>,
    /// The public key of RS256, ES256 or EdDSA tokens, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_secret_ref: Option<SecretKey>,
    /// The `iss` that tokens must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub issuer: Option<String>,
    /// The `aud` that tokens must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
    /// Create the user of a valid token on first use.
    #[serde(default = "yes")]
    pub auto_provision: bool,
}

/// The HTTP API.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSpec {
    /// How many; null leaves the number to somebody else, such as a HorizontalPodAutoscaler on the Deployment.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<u32>,
    /// What it accepts.
    pub limits: ApiLimits,
    /// What each pod may use.
    pub resources: Resources,
    /// What else its pods have.
    pub pod_template: PodTemplate,
}

impl Default for ApiSpec {
    fn default() -> Self {
        Self {
            replicas: Some(2),
            limits: ApiLimits::default(),
            resources: Resources::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// What the API accepts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiLimits {
    /// The largest request body, in bytes.
    #[schemars(range(min = 1024, max = 104_857_600))]
    pub max_body_bytes: u32,
    /// The largest event, in bytes of its JSON.
    #[schemars(range(min = 256, max = 10_485_760))]
    pub max_event_bytes: u32,
    /// The deepest nesting of an event.
    #[schemars(range(min = 1, max = 128))]
    pub max_event_depth: u32,
    /// The most events of a batch.
    #[schemars(range(min = 1, max = 1000))]
    pub max_batch: u32,
    /// The most requests at once per pod; more are answered 503.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1_048_576,
            max_event_bytes: 32_768,
            max_event_depth: 32,
            max_batch: 100,
            max_in_flight: 1024,
        }
    }
}

/// How a task is tried.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TasksSpec {
    /// How long an attempt may take, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: u32,
    /// What happens after an attempt that failed.
    pub retry: RetrySpec,
}

impl Default for TasksSpec {
    fn default() -> Self {
        Self { timeout_seconds: 300, retry: RetrySpec::default() }
    }
}

/// What happens after an attempt that failed: it waits `base` to the power of the attempt, up to `cap`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.baseSeconds <= self.capSeconds", "baseSeconds is at most capSeconds"))]
pub struct RetrySpec {
    /// How many attempts a task may take before it is buried.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "max_attempts")]
    pub max_attempts: u32,
    /// The base of the delay, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    #[serde(default = "base_seconds")]
    pub base_seconds: u32,
    /// The longest delay, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    #[serde(default = "cap_seconds")]
    pub cap_seconds: u32,
    /// How far a delay may stray either way, in percent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default)]
    pub jitter_percent: u32,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            max_attempts: max_attempts(),
            base_seconds: base_seconds(),
            cap_seconds: cap_seconds(),
            jitter_percent: 0,
        }
    }
}

/// What sweeps, retries and makes partitions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulerSpec {
    /// What its pod may use; those of migrations, too.
    pub resources: Resources,
    /// What else its pod has. Pods of migrations have its nodeSelector, tolerations and priorityClassName.
    pub pod_template: PodTemplate,
}

/// How the schema changes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationsSpec {
    /// Who starts a migration.
    pub policy: MigrationPolicy,
    /// The hash of the plan that may be carried out: `status.migrations.planHash` once somebody has read the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), pattern("^[0-9a-f]{64}$"))]
    pub approved_plan: Option<String>,
    /// Allow migrations after which the older version cannot run.
    pub allow_destructive: bool,
    /// The longest time for a migration, in seconds.
    #[schemars(range(min = 60, max = 86_400))]
    pub active_deadline_seconds: u32,
    /// Any other text than before runs the migration again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub trigger: Option<String>,
}

impl Default for MigrationsSpec {
    fn default() -> Self {
        Self {
            policy: MigrationPolicy::Auto,
            approved_plan: None,
            allow_destructive: false,
            active_deadline_seconds: 600,
            trigger: None,
        }
    }
}

/// Who starts a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MigrationPolicy {
    /// The operator, as soon as an image needs one.
    #[default]
    Auto,
    /// The operator plans it; it runs once `approvedPlan` names the plan.
    Plan,
    /// Somebody else; the rollout goes on once the schema is there.
    Manual,
}

fn max_attempts() -> u32 {
    3
}

fn base_seconds() -> u32 {
    2
}

fn cap_seconds() -> u32 {
    3600
}

fn yes() -> bool {
    true
}

/// A reference whose key has a default: the API server fills it in, and so do we for objects that never met one.
#[derive(Deserialize)]
struct KeyOptional {
    name: String,
    key: Option<String>,
}

fn with_uri_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    let KeyOptional { name, key } = KeyOptional::deserialize(deserializer)?;
    Ok(SecretKey { name, key: key.unwrap_or_else(|| "uri".into()) })
}

fn with_url_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    let KeyOptional { name, key } = KeyOptional::deserialize(deserializer)?;
    Ok(SecretKey { name, key: key.unwrap_or_else(|| "url".into()) })
}

fn with_ca_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretKey>, D::Error> {
    let given = Option::<KeyOptional>::deserialize(deserializer)?;
    Ok(given.map(|KeyOptional { name, key }| SecretKey { name, key: key.unwrap_or_else(|| "ca.crt".into()) }))
}

fn uri_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("uri")
}

fn url_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("url")
}

fn ca_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("ca.crt")
}

fn secret_with_default_key(key: &str) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253 },
            "key": { "type": "string", "minLength": 1, "maxLength": 253, "default": key },
        },
    })
}
