//! Metrics, alerts and dashboards, with a real Prometheus.

mod faults;
mod queries;
mod rules;
mod traces;

use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
