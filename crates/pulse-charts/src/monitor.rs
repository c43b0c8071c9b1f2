//! Values of the objects with which the Prometheus operator scrapes the pods of a chart.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

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

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
enum RenderMode {
    SkipIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    FailIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    AlwaysRender,
}
