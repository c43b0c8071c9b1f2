//! The values of `charts/pulse-ingest`: the spec of a `PulseIngest`, with defaults for its required fields.

use std::collections::BTreeMap;

use pulse_operator::crd::{ApiSpec, MigrationsSpec, PullPolicy, SchedulerSpec, SecretKey, TasksSpec, WorkersSpec};
use schemars::JsonSchema;
use serde::Serialize;

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
    /// Labels added to all objects.
    common_labels: BTreeMap<String, String>,
    /// Image of all roles.
    image: Image,
    /// Image pull Secrets of all pods.
    image_pull_secrets: Vec<PullSecret>,
    database: Database,
    redis: Redis,
    auth: Auth,
    /// The HTTP API.
    #[schemars(with = "ApiSpec")]
    api: Object,
    /// The workers, which process events. `replicas` is their number without autoscaling.
    #[schemars(with = "WorkersSpec")]
    workers: Object,
    /// The scheduler, which requeues tasks and creates partitions.
    #[schemars(with = "SchedulerSpec")]
    scheduler: Object,
    /// Time-out and retries of tasks.
    #[schemars(with = "TasksSpec")]
    tasks: Object,
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
    dev_datastores: DevDatastores,
}

/// PostgreSQL.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Database {
    /// Secret with the URL of PostgreSQL.
    url_secret_ref: SecretRef,
    /// Secret with the CA of the server's certificate, in PEM. CloudNativePG's Secret is `<cluster>-ca`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_secret_ref: Option<CaSecretRef>,
    /// Maximum number of connections that all roles together may open. It limits the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 10000))]
    max_connections_total: Option<u32>,
}

impl Default for Database {
    fn default() -> Self {
        Self { url_secret_ref: SecretRef::key("uri"), ca_secret_ref: None, max_connections_total: None }
    }
}

/// Redis.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Redis {
    /// Secret with the URL of Redis.
    url_secret_ref: SecretRef,
    /// Secret with the CA of the server's certificate, in PEM, if the image does not trust it already. The URL must be
    /// `rediss://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_secret_ref: Option<CaSecretRef>,
}

impl Default for Redis {
    fn default() -> Self {
        Self { url_secret_ref: SecretRef::key("url"), ca_secret_ref: None }
    }
}

/// Authentication of API clients.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Auth {
    /// Secret with the HS256 signing secret, at least 32 bytes. Not used with `publicKeySecretRef`.
    jwt_secret_ref: SecretRef,
    /// Secret with the public key of RS256, ES256 or EdDSA tokens, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_secret_ref: Option<SecretKey>,
    /// Required `iss` claim of tokens. Not checked if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Required `aud` claim of tokens. Not checked if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    /// Create users on their first request.
    auto_provision: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            jwt_secret_ref: SecretRef::key("secret"),
            public_key_secret_ref: None,
            issuer: None,
            audience: None,
            auto_provision: true,
        }
    }
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

/// Reference to a CA in a Secret in the release's namespace.
#[derive(JsonSchema, Serialize)]
struct CaSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1))]
    name: String,
    /// Key in the Secret. Defaults to `ca.crt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    key: Option<String>,
}

/// Ingress for the API.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    /// Create an Ingress.
    enabled: bool,
    /// Ingress class. Defaults to the cluster's default class.
    class_name: String,
    /// Annotations of the Ingress.
    annotations: BTreeMap<String, String>,
    /// Host names of the API. Empty matches all host names.
    hosts: Vec<String>,
    /// TLS settings, in the format of an Ingress.
    tls: Vec<Object>,
}

/// PostgreSQL and Redis for evaluation: one pod each, without backup and without TLS. Not for production: use an
/// operator or a managed service there.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct DevDatastores {
    /// Create both, and the three Secrets that `database`, `redis` and `auth` refer to.
    enabled: bool,
    /// Password of both; required. A later change does not change the password of an existing PostgreSQL volume.
    password: String,
    /// HS256 signing secret of tokens, at least 32 bytes; required.
    jwt_secret: String,
    /// Size of each volume, such as `1Gi`. If empty, the data is lost with the pods.
    storage_size: String,
    /// Storage class of the volumes. Defaults to the cluster's default class.
    storage_class_name: String,
    /// PostgreSQL.
    postgres: Datastore,
    /// Redis.
    redis: Datastore,
}

impl Default for DevDatastores {
    fn default() -> Self {
        Self {
            enabled: false,
            password: String::new(),
            jwt_secret: String::new(),
            storage_size: String::new(),
            storage_class_name: String::new(),
            postgres: Datastore::new("library/postgres", "17"),
            redis: Datastore::new("library/redis", "7.4"),
        }
    }
}

/// One of the two datastores.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct Datastore {
    /// Image: the official one, or one with the same configuration.
    image: DatastoreImage,
    /// User and group id that the image runs as.
    #[schemars(range(min = 1))]
    run_as_user: u32,
    /// Resource requests and limits of the pod.
    resources: Object,
}

impl Datastore {
    fn new(repository: &str, tag: &str) -> Self {
        let resources = serde_json::json!({
            "requests": { "cpu": "50m", "memory": "128Mi" },
            "limits": { "memory": "512Mi" },
        });
        Self {
            image: DatastoreImage {
                registry: "docker.io".into(),
                repository: repository.into(),
                tag: tag.into(),
                pull_policy: PullPolicy::default(),
            },
            run_as_user: 999,
            resources: resources.as_object().cloned().unwrap_or_default(),
        }
    }
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct DatastoreImage {
    /// Registry of the image. Empty leaves it out of the image name.
    registry: String,
    /// Repository of the image.
    #[schemars(length(min = 1))]
    repository: String,
    /// Tag of the image.
    #[schemars(length(min = 1))]
    tag: String,
    /// Pull policy of the image: `Always`, `IfNotPresent` or `Never`.
    pull_policy: PullPolicy,
}
