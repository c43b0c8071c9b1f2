//! The HTTP API of an instance.

use pulse_core::defaults;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grace;
use super::pod::PodTemplate;
use super::resources::Resources;
use super::rollout::{Probes, Rollout};
use super::tls::ServerTlsSpec;
use super::user_limits::UserLimitsSpec;

/// HTTP API that accepts events.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = grace::api_rule()))]
pub struct ApiSpec {
    /// Replicas is the number of API pods. With autoscaling, it is only the number that the Deployment starts with.
    /// Defaults to 2.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u32,
    /// Autoscaling of the API. If not set, `replicas` is the number of API pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<ApiAutoscaling>,
    /// Limits of requests and events.
    pub limits: ApiLimits,
    /// Limits of each user.
    pub user_limits: UserLimitsSpec,
    /// Origins whose pages may call the API from a browser (CORS), such as `https://app.example.com`. Defaults to none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253), pattern(r"^https?://[a-z0-9.:\[\]-]+$")))]
    pub cors_allow_origins: Vec<String>,
    /// TLS of the ports of the API, 8000 and 9090. If not set, they do not encrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTlsSpec>,
    /// Docs serves the documentation page at `/docs` and the OpenAPI document. Defaults to true.
    pub docs: bool,
    /// Maximum number of pooled connections to PostgreSQL of each API pod, which opens up to 4 others as well. Defaults
    /// to 10.
    #[schemars(range(min = 1, max = 500))]
    pub database_pool_size: u32,
    /// Time that a terminating API pod continues to accept requests, so that load balancers notice it, in seconds. The
    /// termination grace period of the pods is at least 30 s longer. Defaults to 5.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_delay_seconds: u32,
    /// CPU and memory requests and limits of the container of each API pod.
    pub resources: Resources,
    /// Times of the probes.
    pub probes: Probes,
    /// Replacement of pods by newer ones.
    pub rollout: Rollout,
    /// Additional settings of the API pods, in the format of a pod.
    pub pod_template: PodTemplate,
}

impl Default for ApiSpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            autoscaling: None,
            limits: ApiLimits::default(),
            user_limits: UserLimitsSpec::default(),
            cors_allow_origins: Vec::new(),
            tls: None,
            docs: defaults::DOCS,
            database_pool_size: defaults::API_POOL,
            drain_delay_seconds: defaults::API_DRAIN_DELAY_SECONDS,
            resources: Resources::default(),
            probes: Probes::default(),
            rollout: Rollout::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// Autoscaling of the API.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ApiAutoscaling {
    /// Mode of autoscaling. With `External`, a HorizontalPodAutoscaler, KEDA or a person sets the number of pods of the
    /// Deployment `<name>-api`. The operator changes it only if it is 0, to `replicas`, and while `stopped` is true.
    pub mode: ApiAutoscalingMode,
}

/// Mode of autoscaling of the API.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiAutoscalingMode {
    /// A HorizontalPodAutoscaler, KEDA or a person sets the number of pods of the Deployment.
    External,
}

/// Limits of requests and events.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiLimits {
    /// Maximum size of a request body, in bytes. Larger bodies are answered with 413. Defaults to 1048576.
    #[schemars(range(min = 1024, max = 104_857_600))]
    pub max_body_bytes: u32,
    /// Maximum size of an event, in bytes of its JSON. Twice as many bytes are allowed when its payload and text fields
    /// are read back. Larger events are answered with 413, or with 422 in a batch. Defaults to 32768.
    #[schemars(range(min = 256, max = 10_485_760))]
    pub max_event_bytes: u32,
    /// Maximum nesting depth of an event. Deeper events are rejected. Defaults to 32.
    #[schemars(range(min = 1, max = 128))]
    pub max_event_depth: u32,
    /// Maximum number of events in a batch. Larger batches are answered with 422. Defaults to 100.
    #[schemars(range(min = 1, max = 1000))]
    pub max_batch: u32,
    /// Maximum number of concurrent requests per API pod. Further requests are answered with 503. Defaults to 1024.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: defaults::MAX_BODY_BYTES,
            max_event_bytes: defaults::MAX_EVENT_BYTES,
            max_event_depth: defaults::MAX_EVENT_DEPTH,
            max_batch: defaults::MAX_BATCH,
            max_in_flight: defaults::MAX_IN_FLIGHT,
        }
    }
}
