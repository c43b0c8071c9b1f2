//! The values of `charts/pulse-ingest`: the spec of a `PulseIngest`, with defaults for its required fields.

use std::collections::BTreeMap;

use pulse_crd::{
    ApiSpec, AuthSpec, ConsoleSpec, DatabaseSpec, MigrationsSpec, RedisSpec, RetentionSpec, SchedulerSpec, TasksSpec,
    WorkersSpec,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::datastores::DevDatastores;
use crate::monitor::PodMonitor;
use crate::network::{HttpRoute, Ingress, NetworkPolicy, Service};
use crate::values::{Global, Image, Object, PullSecret};

/// Values of the chart pulse-ingest.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Values {
    global: Global,
    /// Condition of this chart in a parent chart. Not used otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// Name of the `PulseIngest`. Defaults to the release name.
    name_override: String,
    /// Labels added to all objects, also to those that the operator creates, and to all pods. A change replaces the pods.
    common_labels: BTreeMap<String, String>,
    /// Annotations added to all objects that the operator creates, and to their pods. A change replaces the pods.
    common_annotations: BTreeMap<String, String>,
    /// Image of all roles.
    image: Image,
    /// Image pull Secrets of all pods.
    image_pull_secrets: Vec<PullSecret>,
    /// PostgreSQL, which stores events and tasks.
    #[schemars(schema_with = "database")]
    database: Database,
    /// Redis, which delivers tasks to the workers.
    #[schemars(schema_with = "redis")]
    redis: Redis,
    /// Verification of the tokens of API clients. `jwtSecretRef` is not used with `publicKeySecretRef` or
    /// `jwks`.
    #[schemars(schema_with = "auth")]
    auth: Auth,
    /// Refuse connections to PostgreSQL, Redis and an OTLP collector that are not encrypted, or whose server is not
    /// verified.
    require_tls: bool,
    /// The HTTP API.
    #[schemars(with = "ApiSpec")]
    api: Object,
    /// The workers, which process events. `replicas` is their number without autoscaling.
    #[schemars(with = "WorkersSpec")]
    workers: Object,
    /// The scheduler, which requeues tasks and creates partitions.
    #[schemars(with = "SchedulerSpec")]
    scheduler: Object,
    /// The console, with pages for administrators. Off unless `console.enabled` is true.
    #[schemars(with = "ConsoleSpec")]
    console: Object,
    /// Time-out and retries of tasks.
    #[schemars(with = "TasksSpec")]
    tasks: Object,
    /// Days for which events, settled tasks and dead letters are kept: for ever, unless set.
    #[schemars(with = "RetentionSpec")]
    retention: Object,
    /// Migrations of the database schema.
    #[schemars(with = "MigrationsSpec")]
    migrations: Object,
    /// Pause reconciliation: the operator updates the status and changes nothing else.
    paused: bool,
    /// Scale every role to zero and keep everything else.
    stopped: bool,
    /// Additional fields of the object's spec. Overrides all values above. Only the API server validates it: Helm 4
    /// reports a misspelt field, Helm 3 drops it without a message.
    spec: Object,
    ingress: Ingress,
    http_route: HttpRoute,
    service: Service,
    network_policy: NetworkPolicy,
    /// PodMonitor for the Prometheus operator, with the pods of API, workers, scheduler and console. Roles with `tls` have
    /// another one.
    pod_monitor: PodMonitor,
    dev_datastores: DevDatastores,
}

/// Defaults of PostgreSQL. The other values have the defaults of the CRD.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Database {
    url_secret_ref: SecretRef,
}

impl Default for Database {
    fn default() -> Self {
        Self { url_secret_ref: SecretRef::key("uri") }
    }
}

/// Defaults of Redis, like [`Database`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redis {
    url_secret_ref: SecretRef,
}

impl Default for Redis {
    fn default() -> Self {
        Self { url_secret_ref: SecretRef::key("url") }
    }
}

/// Defaults of the authentication, like [`Database`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    jwt_secret_ref: SecretRef,
}

impl Default for Auth {
    fn default() -> Self {
        Self { jwt_secret_ref: SecretRef::key("secret") }
    }
}

fn database(generator: &mut SchemaGenerator) -> Schema {
    with_default_reference::<DatabaseSpec>(generator, "urlSecretRef")
}

fn redis(generator: &mut SchemaGenerator) -> Schema {
    with_default_reference::<RedisSpec>(generator, "urlSecretRef")
}

fn auth(generator: &mut SchemaGenerator) -> Schema {
    with_default_reference::<AuthSpec>(generator, "jwtSecretRef")
}

/// The schema of a part of the spec. In the chart, one reference has a default, so nothing is required.
fn with_default_reference<T: JsonSchema>(generator: &mut SchemaGenerator, reference: &str) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("required");
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if name == reference {
            let description = property["description"].take();
            *property = SecretRef::json_schema(generator).to_value();
            property["description"] = description;
        } else if property["type"] == "object" {
            // A value may be null in Helm, which means that it is not set.
            property["type"] = json!(["object", "null"]);
        }
    }
    schema
}

/// Reference to a key of a Secret in the release's namespace.
#[derive(JsonSchema, Serialize, Default)]
#[serde(default)]
struct SecretRef {
    /// Name of the Secret. Defaults to `<name>-database`, `<name>-redis` or `<name>-auth`.
    name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1))]
    key: String,
}

impl SecretRef {
    fn key(key: &str) -> Self {
        Self { name: String::new(), key: key.into() }
    }
}
