//! Metrics, alerts and dashboards, with a real Prometheus.

mod faults;
mod operator;
mod queries;
mod rules;
mod runbook;
mod traces;

use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
