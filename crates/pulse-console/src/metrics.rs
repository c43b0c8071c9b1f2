//! The metrics of the console.

use pulse_metrics::{Counter, Family, FloatGauge, Gauge, Registry};

/// Metrics of the console, in addition to those of its HTTP port. Cheap to clone.
#[derive(Clone)]
pub struct ConsoleMetrics {
    pub(crate) viewers: Gauge,
    pub(crate) figures_age: FloatGauge,
    refused: Family<Counter, 1>,
}

impl ConsoleMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            viewers: registry.gauge("pulse_console_viewers", "Number of pages that receive live figures"),
            figures_age: registry.float_gauge(
                "pulse_console_figures_age_seconds",
                "Time since the figures of the pages were read from PostgreSQL, in seconds; above 2 if it does not answer",
            ),
            refused: registry.counters(
                "pulse_console_sign_ins_refused",
                ["reason"],
                "Number of refused sign-ins, by reason: token, or attempts after too many refused tokens",
            ),
        };
        // Create the label values at start, so that a rate includes the first refusal.
        metrics.refused("token", 0);
        metrics.refused("attempts", 0);
        metrics
    }

    pub(crate) fn refused(&self, reason: &'static str, sign_ins: u64) {
        self.refused.with([reason]).inc_by(sign_ins);
    }
}
