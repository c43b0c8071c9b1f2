//! The load generator behind `pulse load`.
//!
//! With a rate it is *open-loop*: requests are due at fixed times, and the latency of a request starts when it was due.
//! If the server stalls and all connections wait, the requests that are sent late show it (no coordinated omission).
//! Without a rate it is closed-loop: each connection sends the next request when the response arrives.

mod connection;
mod ledger;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::load::connection::Connection;
use crate::load::ledger::Ledger;
pub use crate::load::report::LoadReport;
use crate::load::report::Tally;

/// Time limit for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the progress bar is updated.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What to post, at which rate and for how long.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// The address of the API, such as `http://localhost:8000`.
    pub url: String,
    /// A token with the scope `events:write`.
    pub token: String,
    /// Events per second; `None` sends as many as the connections allow.
    pub rate: Option<f64>,
    /// The number of connections; each has one request in flight at most.
    pub connections: usize,
    /// How long requests are sent. Responses may arrive later.
    pub duration: Duration,
    /// Events per request; 1 uses the route for single events.
    pub batch: usize,
    /// The name of each event.
    pub event_name: String,
    /// The approximate size of each payload, in bytes.
    pub payload_bytes: usize,
    /// A file to which the body of each 202 is appended. A request counts as accepted after the line is synced to disk.
    pub ledger: Option<PathBuf>,
    /// Whether to show a progress bar on stderr.
    pub progress: bool,
}

/// The times at which requests are due, shared by all connections.
struct Schedule {
    start: Instant,
    end: Instant,
    /// Seconds between two requests; `None` without a rate.
    interval: Option<f64>,
    next: AtomicU64,
}

impl Schedule {
    /// Takes the next request; returns when it is due, or `None` after the end.
    fn next_due(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(interval) => self.start + Duration::from_secs_f64(interval * number as f64),
            None => Instant::now(),
        };
        (due < self.end).then_some(due)
    }
}

/// Posts until the duration is over, and waits for the last responses. `shutdown` ends it at once.
///
/// # Errors
/// If the rate, the URL or the token is not valid, or the ledger cannot be written. A failed request is not an error:
/// the report counts it.
pub async fn run(config: LoadConfig, shutdown: CancellationToken) -> anyhow::Result<LoadReport> {
    let LoadConfig { url, token, rate, connections, duration, batch, event_name, payload_bytes, ledger, progress } =
        config;
    anyhow::ensure!(rate.is_none_or(|rate| rate > 0.0), "the rate must be greater than 0");
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    anyhow::ensure!(uri.scheme_str() == Some("http"), "`{url}` is not supported: expected http://HOST:PORT");
    let path = if batch == 1 { "/api/v1/events" } else { "/api/v1/events/batch" };
    let body = body(batch, &event_name, payload_bytes);
    let (ledger, writing) = Ledger::open(ledger)?;
    let start = Instant::now();
    let interval = rate.map(|rate| batch as f64 / rate);
    let schedule = Arc::new(Schedule { start, end: start + duration, interval, next: AtomicU64::new(0) });
    let done = Arc::new(AtomicU64::new(0));

    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let connection = Connection::new(&uri, path, &token, body.clone())?;
        let (schedule, ledger, done, shutdown) = (schedule.clone(), ledger.clone(), done.clone(), shutdown.clone());
        posting.spawn(async move {
            tokio::select! {
                tally = post(connection, schedule, ledger, done, batch as u64) => tally,
                () = shutdown.cancelled() => Tally::default(),
            }
        });
    }
    drop(ledger);
    let bar = progress.then(|| tokio::spawn(show(start, duration, done)));
    let mut tally = Tally::default();
    while let Some(posted) = posting.join_next().await {
        tally.add(posted?);
    }
    let took = start.elapsed();
    writing.await??;
    if let Some(bar) = bar {
        bar.await?;
    }
    Ok(LoadReport::new(tally, rate, took))
}

async fn post(
    mut connection: Connection,
    schedule: Arc<Schedule>,
    ledger: Ledger,
    done: Arc<AtomicU64>,
    events: u64,
) -> Tally {
    let mut tally = Tally::default();
    while let Some(due) = schedule.next_due() {
        tokio::time::sleep_until(due).await;
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, connection.post()).await;
        match response {
            Ok(Ok((202, body))) => {
                ledger.record(body).await;
                done.fetch_add(events, Ordering::Relaxed);
                tally.accepted(due.elapsed(), events);
            }
            Ok(Ok((status, _))) => tally.refused(&status.to_string()),
            Ok(Err(_)) => tally.refused("connection"),
            Err(_) => {
                connection.drop_stream();
                tally.refused("time-out");
            }
        }
    }
    tally
}

async fn show(start: Instant, duration: Duration, done: Arc<AtomicU64>) {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {msg}") {
        bar.set_style(style);
    }
    while start.elapsed() < duration {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let elapsed = start.elapsed();
        let events = done.load(Ordering::Relaxed);
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{events} events, {:.0}/s", events as f64 / elapsed.as_secs_f64()));
    }
    bar.finish_and_clear();
}

/// The body of each request.
fn body(batch: usize, event_name: &str, payload_bytes: usize) -> Bytes {
    let event = json!({
        "event_name": event_name,
        "event_type": "engagement",
        "source": "load",
        "payload": {"page": "/dashboard", "filler": "x".repeat(payload_bytes.saturating_sub(35))},
    });
    let body: Value = if batch == 1 { event } else { json!({ "events": vec![event; batch] }) };
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_keeps_its_rate_and_ends_on_time() {
        let start = Instant::now();
        let interval = Some(0.01);
        let schedule = Schedule { start, end: start + Duration::from_secs(1), interval, next: AtomicU64::new(0) };
        let due: Vec<Instant> = std::iter::from_fn(|| schedule.next_due()).collect();
        assert_eq!(due.len(), 100);
        assert_eq!(due[50], start + Duration::from_millis(500));
    }

    #[test]
    fn payload_has_about_the_requested_size() {
        let event: Value = serde_json::from_slice(&body(1, "page_view", 200)).expect("JSON");
        assert!((190..=210).contains(&event["payload"].to_string().len()), "{}", event["payload"]);
        let batch: Value = serde_json::from_slice(&body(100, "page_view", 200)).expect("JSON");
        assert_eq!(batch["events"].as_array().map(Vec::len), Some(100));
    }
}
