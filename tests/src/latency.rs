//! Latency of accepting events, of a client beside others.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::Client;

/// Latency that is always good enough. In CI, the tests beside this one use the processors too.
pub const GOOD: Duration = Duration::from_millis(if cfg!(feature = "long") { 50 } else { 250 });

/// Posts 20 events per second; returns the sorted latencies.
///
/// # Errors
/// If an event is not accepted.
pub async fn post_steadily(client: &Client, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let until = Instant::now() + time;
    let mut latencies = Vec::new();
    while Instant::now() < until {
        ticks.tick().await;
        let begin = Instant::now();
        client.post_event("page_view").await?;
        latencies.push(begin.elapsed());
    }
    latencies.sort();
    Ok(latencies)
}

/// Posts 20 events per second until `work` has ended; returns its result and the sorted latencies.
///
/// # Errors
/// If an event is not accepted, or if `work` fails.
pub async fn post_beside<T>(
    client: &Client,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Vec<Duration>)> {
    let has_ended = Cell::new(false);
    let work = async {
        let result = work.await;
        has_ended.set(true);
        result
    };
    let posts = async {
        let mut latencies = Vec::new();
        while !has_ended.get() {
            latencies.extend(post_steadily(client, Duration::from_millis(200)).await?);
        }
        latencies.sort();
        anyhow::Ok(latencies)
    };
    let (result, latencies) = tokio::join!(work, posts);
    Ok((result?, latencies?))
}

/// The 99th percentile of sorted latencies.
#[must_use]
pub fn p99(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
}
