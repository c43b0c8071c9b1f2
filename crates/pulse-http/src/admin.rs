//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use pulse_metrics::Registry;
use serde::Serialize;

/// The media type of metrics with exemplars.
const OPENMETRICS: &str = "application/openmetrics-text";
/// Time-out of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Status of a component. The order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Works.
    Ok,
    /// Works more slowly; no data is lost.
    Degraded,
    /// Does not work.
    Failed,
}

/// The result of checking one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the component.
    pub name: &'static str,
    /// Status of the component.
    pub status: Status,
    /// Reason for a status other than [`Status::Ok`], or a remark; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Checks the components of a probe.
pub type ProbeCheck = Arc<dyn Fn() -> BoxFuture<'static, Vec<Check>> + Send + Sync>;

#[derive(Clone)]
struct Admin {
    registry: Arc<Registry>,
    live: ProbeCheck,
    ready: ProbeCheck,
}

/// Builds the router of the admin port. `/livez` fails if a restart helps, `/readyz` if the process should receive no
/// requests.
pub fn admin_router(registry: Arc<Registry>, live: ProbeCheck, ready: ProbeCheck) -> Router {
    Router::new()
        .route("/livez", get(async |State(admin): State<Admin>| probe(admin.live).await))
        .route("/readyz", get(async |State(admin): State<Admin>| probe(admin.ready).await))
        .route("/metrics", get(metrics))
        .with_state(Admin { registry, live, ready })
}

#[derive(Serialize)]
struct ProbeReport {
    status: Status,
    checks: Vec<Check>,
}

async fn probe(probe: ProbeCheck) -> Response {
    let checks = tokio::time::timeout(PROBE_TIMEOUT, probe()).await.unwrap_or_else(|_| {
        vec![Check {
            name: "probe",
            status: Status::Failed,
            detail: format!("no answer within {} s", PROBE_TIMEOUT.as_secs()),
        }]
    });
    let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
    let code = if status == Status::Failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(ProbeReport { status, checks })).into_response()
}

/// OpenMetrics for readers that accept it, such as Prometheus; otherwise the older text format.
async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (media_type, text) = if accepted.into_iter().any(|accepted| accepted.contains(OPENMETRICS)) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", admin.registry.encode())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", admin.registry.encode_classic())
    };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, media_type)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
