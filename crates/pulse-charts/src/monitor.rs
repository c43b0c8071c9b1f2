//! Values of the objects with which the Prometheus operator scrapes the pods of a chart.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A ServiceMonitor or PodMonitor.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Monitor {
    /// Create the object.
    enabled: bool,
    /// Behaviour if the cluster does not have the CRD of the object: `skipIfMissing` leaves the object out,
    /// `failIfMissing` fails the release, `alwaysRender` renders it without a check.
    render_mode: RenderMode,
    /// Time between two scrapes.
    interval: String,
    /// Additional labels, for the selector of Prometheus.
    labels: BTreeMap<String, String>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { enabled: false, render_mode: RenderMode::SkipIfMissing, interval: "30s".into(), labels: BTreeMap::new() }
    }
}

/// The PrometheusRule of all alerts.
#[derive(Default, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rules {
    /// Create the object.
    enabled: bool,
    /// Behaviour if the cluster does not have the CRD of the object, as in `serviceMonitor`.
    render_mode: RenderMode,
    /// Additional labels, for the selector of Prometheus.
    labels: BTreeMap<String, String>,
}

/// The dashboards, for Grafana.
#[derive(JsonSchema, Serialize)]
pub(crate) struct Dashboards {
    /// Create a ConfigMap with them.
    enabled: bool,
    /// Additional labels, for the sidecar of Grafana.
    labels: BTreeMap<String, String>,
}

impl Default for Dashboards {
    fn default() -> Self {
        Self { enabled: false, labels: BTreeMap::from([("grafana_dashboard".into(), "1".into())]) }
    }
}

/// The PodMonitors of an instance.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodMonitor {
    #[serde(flatten)]
    monitor: Monitor,
    /// TLS settings for the roles with `tls`, in the format of a PodMonitor. By default the certificate is not verified: a
    /// scrape goes to the address of a pod, which it does not have. Set `ca` and `serverName` to verify it.
    tls_config: BTreeMap<String, Value>,
}

impl Default for PodMonitor {
    fn default() -> Self {
        let tls_config = BTreeMap::from([("insecureSkipVerify".to_owned(), Value::Bool(true))]);
        Self { monitor: Monitor::default(), tls_config }
    }
}

#[derive(Default, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
enum RenderMode {
    #[default]
    SkipIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    FailIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    AlwaysRender,
}
