//! Metrics, alerts and dashboards, with a real Prometheus.

mod faults;
mod queries;
mod rules;

use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
