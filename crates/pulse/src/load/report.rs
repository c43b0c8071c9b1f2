//! The results of a load run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The upper bound of the latency histogram, in microseconds. Higher values are recorded as this one.
const MAX_LATENCY_US: u64 = 120_000_000;

/// The results of one connection.
pub(super) struct Tally {
    latencies: Histogram<u64>,
    events: u64,
    refused: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies =
            Histogram::new_with_max(MAX_LATENCY_US, 3).expect("three digits up to two minutes is a valid range");
        Self { latencies, events: 0, refused: BTreeMap::new() }
    }
}

impl Tally {
    pub(super) fn accepted(&mut self, latency: Duration, events: u64) {
        self.events += events;
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn refused(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { latencies, events, refused } = other;
        self.latencies.add(latencies).expect("all tallies have the same range");
        self.events += events;
        for (code, requests) in refused {
            *self.refused.entry(code).or_default() += requests;
        }
    }
}

/// The results of a load run. A latency is the time from when a request was due to its 202, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// The requested rate in events per second; `None` if there was no limit.
    pub offered_per_second: Option<f64>,
    /// Accepted events per second.
    pub accepted_per_second: f64,
    /// Number of accepted events.
    pub accepted_events: u64,
    /// Number of requests that were answered 202.
    pub accepted_requests: u64,
    /// Median latency.
    pub p50_ms: f64,
    /// 99th percentile of the latency.
    pub p99_ms: f64,
    /// 99.9th percentile of the latency.
    pub p999_ms: f64,
    /// Maximum latency.
    pub max_ms: f64,
    /// Number of all other requests, by HTTP status, `connection` (no response) or `time-out`.
    pub refused: BTreeMap<String, u64>,
    /// Duration of the run, in seconds.
    pub seconds: f64,
}

impl LoadReport {
    pub(super) fn new(tally: Tally, rate: Option<f64>, took: Duration) -> Self {
        let Tally { latencies, events, refused } = tally;
        let quantile = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            offered_per_second: rate,
            accepted_per_second: events as f64 / took.as_secs_f64(),
            accepted_events: events,
            accepted_requests: latencies.len(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: latencies.max() as f64 / 1000.0,
            refused,
            seconds: took.as_secs_f64(),
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offered =
            self.offered_per_second.map_or("as many as possible".into(), |rate| format!("{rate:.0} events/s"));
        writeln!(f, "offered    {offered}")?;
        writeln!(
            f,
            "accepted   {:.0} events/s   ({} events in {:.1} s)",
            self.accepted_per_second, self.accepted_events, self.seconds
        )?;
        writeln!(
            f,
            "latency    p50 {:.1} ms   p99 {:.1} ms   p99.9 {:.1} ms   max {:.1} ms",
            self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms
        )?;
        let refused: Vec<String> = self.refused.iter().map(|(code, requests)| format!("{code}: {requests}")).collect();
        write!(f, "refused    {}", if refused.is_empty() { "none".into() } else { refused.join("   ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_sums_all_connections() {
        let mut tally = Tally::default();
        for milliseconds in 1..=100 {
            let mut connection = Tally::default();
            connection.accepted(Duration::from_millis(milliseconds), 2);
            tally.add(connection);
        }
        tally.refused("503");
        let report = LoadReport::new(tally, Some(100.0), Duration::from_secs(2));
        assert_eq!((report.accepted_events, report.accepted_per_second), (200, 100.0));
        assert!((49.0..51.5).contains(&report.p50_ms), "{}", report.p50_ms);
        assert!(report.to_string().ends_with("refused    503: 1"));
    }
}
