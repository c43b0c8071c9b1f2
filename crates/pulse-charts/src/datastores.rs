//! The values `devDatastores` of `charts/pulse-ingest`.

use pulse_crd::PullPolicy;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::values::{Object, object};

/// PostgreSQL and Redis for evaluation: one pod each, without backup and without TLS. Not for production: use an
/// operator or a managed service there.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DevDatastores {
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
    /// User and group id that the image runs as: the official image names no user. Null leaves the user to the cluster,
    /// as OpenShift requires.
    #[schemars(range(min = 1))]
    run_as_user: Option<u32>,
    /// Resource requests and limits of the pod.
    resources: Object,
}

impl Datastore {
    fn new(repository: &str, tag: &str) -> Self {
        Self {
            image: DatastoreImage {
                registry: "docker.io".into(),
                repository: repository.into(),
                tag: tag.into(),
                pull_policy: PullPolicy::default(),
            },
            run_as_user: Some(999),
            resources: object(json!({
                "requests": { "cpu": "50m", "memory": "128Mi" },
                "limits": { "memory": "512Mi" },
            })),
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
