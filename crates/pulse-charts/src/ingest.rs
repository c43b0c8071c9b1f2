//! The values of `charts/pulse-ingest`: the object's spec, with defaults for what has to be named.

use std::collections::BTreeMap;

use pulse_operator::crd::{ApiSpec, MigrationsSpec, PullPolicy, SchedulerSpec, SecretKey, TasksSpec, WorkersSpec};
use schemars::JsonSchema;
use serde::Serialize;

use crate::values::{Global, Image, Object, PullSecret};

/// Values of an ingest's chart.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Values {
    global: Global,
    /// Read by a parent chart alone, as the condition of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// The name of the `PulseIngest`, instead of the release's.
    name_override: String,
    /// Labels of everything.
    common_labels: BTreeMap<String, String>,
    /// The image of every role.
    image: Image,
    /// Secrets that let nodes pull it.
    image_pull_secrets: Vec<PullSecret>,
    database: Database,
    redis: Redis,
    auth: Auth,
    /// The HTTP API.
    #[schemars(with = "ApiSpec")]
    api: Object,
    /// What processes events. Without autoscaling, `replicas` says how many; with it, `autoscaling` does.
    #[schemars(with = "WorkersSpec")]
    workers: Object,
    /// What sweeps, retries and makes partitions.
    #[schemars(with = "SchedulerSpec")]
    scheduler: Object,
    /// How a task is tried.
    #[schemars(with = "TasksSpec")]
    tasks: Object,
    /// How the schema changes.
    #[schemars(with = "MigrationsSpec")]
    migrations: Object,
    /// Look, but change nothing but the status.
    paused: bool,
    /// Scale every role to zero and keep everything else.
    stopped: bool,
    /// More of the object's spec, which wins over everything above. The API server alone checks it: Helm 4 tells a
    /// misspelt field, Helm 3 lets it get lost.
    spec: Object,
    ingress: Ingress,
    dev_datastores: DevDatastores,
}

/// PostgreSQL.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Database {
    /// Where its URL is.
    url_secret_ref: SecretRef,
    /// Where the CA of its certificate is, in PEM: CloudNativePG's is `<cluster>-ca`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_secret_ref: Option<CaSecretRef>,
    /// The most connections that all roles together may open. The workers' number is limited by it.
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
    /// Where its URL is.
    url_secret_ref: SecretRef,
    /// Where the CA of its certificate is, in PEM, if it is none that the image knows. The URL is `rediss://` then.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_secret_ref: Option<CaSecretRef>,
}

impl Default for Redis {
    fn default() -> Self {
        Self { url_secret_ref: SecretRef::key("url"), ca_secret_ref: None }
    }
}

/// Who may call the API.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Auth {
    /// Where the secret of HS256 tokens is, at least 32 bytes. Not used with a `publicKeySecretRef`.
    jwt_secret_ref: SecretRef,
    /// Where the public key of RS256, ES256 or EdDSA tokens is, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key_secret_ref: Option<SecretKey>,
    /// The `iss` that tokens must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// The `aud` that tokens must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    /// Create a user at its first request.
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

/// A key of a Secret of the release's namespace.
#[derive(JsonSchema, Serialize, Default)]
#[serde(default)]
struct SecretRef {
    /// The Secret; `<name>-database`, `<name>-redis` or `<name>-auth` if empty.
    name: String,
    /// The key in it.
    #[schemars(length(min = 1))]
    key: String,
}

impl SecretRef {
    fn key(key: &str) -> Self {
        Self { name: String::new(), key: key.into() }
    }
}

/// A CA in a Secret of the release's namespace.
#[derive(JsonSchema, Serialize)]
struct CaSecretRef {
    /// The Secret.
    #[schemars(length(min = 1))]
    name: String,
    /// The key in it; `ca.crt` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    key: Option<String>,
}

/// The API at a name of its own, through an ingress controller.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    /// Make an Ingress.
    enabled: bool,
    /// Whose it is; the cluster's default class if empty.
    class_name: String,
    /// Its annotations.
    annotations: BTreeMap<String, String>,
    /// The names that lead to the API; every name if empty.
    hosts: Vec<String>,
    /// Certificates, as an Ingress names them.
    tls: Vec<Object>,
}

/// PostgreSQL and Redis to try things out: one pod each, without backup and without TLS. For production, have somebody
/// who runs databases make them.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct DevDatastores {
    /// Make them, and the three Secrets that `database`, `redis` and `auth` name.
    enabled: bool,
    /// The password of both, yours to choose. The database keeps its first one.
    password: String,
    /// The secret of HS256 tokens, yours to choose, at least 32 bytes.
    jwt_secret: String,
    /// How large their volumes are, such as `1Gi`; without it, the data goes with the pods.
    storage_size: String,
    /// The class of their volumes; the cluster's default if empty.
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

/// One of them.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct Datastore {
    /// Its image: the official one, or one that is configured in the same way.
    image: DatastoreImage,
    /// The user and group that the image runs as.
    #[schemars(range(min = 1))]
    run_as_user: u32,
    /// What its pod may use.
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
    /// Where it is.
    registry: String,
    /// Its name there.
    #[schemars(length(min = 1))]
    repository: String,
    /// Its tag.
    #[schemars(length(min = 1))]
    tag: String,
    /// When the node pulls it.
    pull_policy: PullPolicy,
}
