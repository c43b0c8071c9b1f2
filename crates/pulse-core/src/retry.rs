//! The delay between a failed attempt and its retry.

use std::time::Duration;

/// Exponential backoff: `base_seconds` to the power of the attempt, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Base of the delay, in seconds: 2 gives 2 s after the first attempt and 4 s after the second.
    pub base_seconds: f64,
    /// Maximum delay.
    pub cap: Duration,
    /// Random part of a delay, in percent of it, added or subtracted; 0 to 100.
    pub jitter_percent: f64,
}

impl RetryPolicy {
    /// Returns the delay after `attempt` (from 1) failed. `random` is uniform in 0..1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let seconds = self.base_seconds.powi(exponent).min(self.cap.as_secs_f64());
        let jitter = 1.0 + (random * 2.0 - 1.0) * self.jitter_percent / 100.0;
        Duration::try_from_secs_f64(seconds * jitter).unwrap_or(self.cap).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(3600), jitter_percent: 0.0 };

    #[test]
    fn delay_is_two_then_four_seconds() {
        assert_eq!(POLICY.delay(1, 0.3), Duration::from_secs(2));
        assert_eq!(POLICY.delay(2, 0.9), Duration::from_secs(4));
        assert_eq!(POLICY.delay(u32::MAX, 0.0), POLICY.cap);
    }

    proptest! {
        #[test]
        fn delay_stays_within_jitter_and_cap(attempt in 1u32..100, random in 0.0..1.0f64, percent in 0.0..100.0f64) {
            let policy = RetryPolicy { jitter_percent: percent, ..POLICY };
            let without_jitter = POLICY.delay(attempt, 0.5).as_secs_f64();
            let delay = policy.delay(attempt, random).as_secs_f64();
            prop_assert!(delay <= 3600.0);
            prop_assert!(delay >= without_jitter * (1.0 - percent / 100.0) - 1e-6);
        }
    }
}
