//! Spreads what several objects do at the same intervals.

use std::time::Duration;

/// Adds or subtracts up to 10%, so that objects are not reconciled at the same time.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}
