//! The load generator: posts on a schedule, whatever the answers do, and measures from the time that was planned.
//!
//! With a rate it is *open-loop*: a request that is late because all connections wait still counts from when it was
//! due, so a server that stalls is seen to stall (no coordinated omission). Without one, each connection posts as fast
//! as answers come.

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

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks of the progress bar.
const TICK: Duration = Duration::from_millis(200);

/// What to post, and how.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// The API, such as `http://localhost:8000`.
    pub url: String,
    /// A token with `events:write`.
    pub token: String,
    /// Events per second; as many as the connections allow without it.
    pub rate: Option<f64>,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// For how long requests are begun.
    pub duration: Duration,
    /// Events per request; 1 posts to the route for single events.
    pub batch: usize,
    /// The name of each event.
    pub event_name: String,
    /// About the size of each payload, in bytes.
    pub payload_bytes: usize,
    /// Appends what each 202 promised to this file, synced to disk before it counts.
    pub ledger: Option<PathBuf>,
    /// Shows a progress bar on stderr.
    pub progress: bool,
}

/// Which request is next, and when.
struct Pacing {
    start: Instant,
    end: Instant,
    /// Seconds between two requests; none without a rate.
    interval: Option<f64>,
    next: AtomicU64,
}

impl Pacing {
    /// When the next request is due; none after the end.
    fn take(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(interval) => self.start + Duration::from_secs_f64(interval * number as f64),
            None => Instant::now(),
        };
        (due < self.end).then_some(due)
    }
}

/// Posts until the time is up or `shutdown`, and waits for the last answers.
///
/// # Errors
/// If the URL is not valid or the ledger cannot be written; failed requests are counted, not errors.
pub async fn run(config: LoadConfig, shutdown: CancellationToken) -> anyhow::Result<LoadReport> {
    let LoadConfig { url, token, rate, connections, duration, batch, event_name, payload_bytes, ledger, progress } =
        config;
    anyhow::ensure!(rate.is_none_or(|rate| rate > 0.0), "the rate should be greater than 0");
    let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
    anyhow::ensure!(uri.scheme_str() == Some("http"), "`{url}`: expected http://HOST:PORT");
    let path = if batch == 1 { "/api/v1/events" } else { "/api/v1/events/batch" };
    let body = body(batch, &event_name, payload_bytes);
    let (ledger, writing) = Ledger::open(ledger)?;
    let start = Instant::now();
    let interval = rate.map(|rate| batch as f64 / rate);
    let plan = Arc::new(Pacing { start, end: start + duration, interval, next: AtomicU64::new(0) });
    let done = Arc::new(AtomicU64::new(0));

    let mut posting = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let connection = Connection::new(&uri, path, &token, body.clone())?;
        let (plan, ledger, done, shutdown) = (plan.clone(), ledger.clone(), done.clone(), shutdown.clone());
        posting.spawn(async move {
            tokio::select! {
                tally = post(connection, plan, ledger, done, batch as u64) => tally,
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
    plan: Arc<Pacing>,
    ledger: Ledger,
    done: Arc<AtomicU64>,
    events: u64,
) -> Tally {
    let mut tally = Tally::default();
    while let Some(due) = plan.take() {
        tokio::time::sleep_until(due).await;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, connection.post()).await;
        match answer {
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
        tokio::time::sleep(TICK).await;
        let elapsed = start.elapsed();
        let events = done.load(Ordering::Relaxed);
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{events} events, {:.0}/s", events as f64 / elapsed.as_secs_f64()));
    }
    bar.finish_and_clear();
}

/// The body of every request.
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
    fn a_plan_ends_on_time_and_keeps_its_rate() {
        let start = Instant::now();
        let interval = Some(0.01);
        let plan = Pacing { start, end: start + Duration::from_secs(1), interval, next: AtomicU64::new(0) };
        let due: Vec<Instant> = std::iter::from_fn(|| plan.take()).collect();
        assert_eq!(due.len(), 100);
        assert_eq!(due[50], start + Duration::from_millis(500));
    }

    #[test]
    fn payloads_have_about_the_size_that_was_asked_for() {
        let event: Value = serde_json::from_slice(&body(1, "page_view", 200)).expect("JSON");
        assert!((190..=210).contains(&event["payload"].to_string().len()), "{}", event["payload"]);
        let batch: Value = serde_json::from_slice(&body(100, "page_view", 200)).expect("JSON");
        assert_eq!(batch["events"].as_array().map(Vec::len), Some(100));
    }
}
