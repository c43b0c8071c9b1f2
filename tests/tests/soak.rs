//! One hour of load: the memory of the roles, the tables that empty themselves, and Redis stay as large as they were.
//! `make test-long` runs it and prints the measurements.

#![expect(clippy::print_stdout, reason = "the test prints what it measures")]

use std::time::{Duration, Instant};

use pulse_tests::{Client, Process, TestEnv, load, report};
use serde_json::json;

const RATE: u32 = 200;
const DURATION: Duration = Duration::from_secs(3600);
const PERIOD: Duration = Duration::from_secs(30);
/// Samples of ten minutes. Those of the first ten are not compared: caches fill.
const TEN_MINUTES: usize = 20;
/// The last ten minutes against the second ten.
const GROWTH: f64 = 1.25;
/// Growth that is noise, in units of a figure: MiB, or thousands of rows.
const NOISE: f64 = 8.0;

const FIGURES: [&str; 7] = [
    "API, MiB",
    "worker, MiB",
    "scheduler, MiB",
    "tasks, MiB",
    "tasks, thousands of dead rows",
    "throughput, MiB",
    "Redis, MiB",
];

async fn sample(env: &TestEnv, roles: [&Process; 3]) -> anyhow::Result<[f64; FIGURES.len()]> {
    const MIB: f64 = 1024.0 * 1024.0;
    let size = async |table: &str| {
        let bytes = env.number(&format!("SELECT pg_total_relation_size('{table}')")).await?;
        anyhow::Ok(bytes as f64 / MIB)
    };
    let [api, worker, scheduler] = roles;
    let dead_rows = env.number("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tasks'").await?;
    Ok([
        api.memory()? as f64 / MIB,
        worker.memory()? as f64 / MIB,
        scheduler.memory()? as f64 / MIB,
        size("tasks").await?,
        dead_rows as f64 / 1000.0,
        size("throughput").await?,
        scheduler.metric("pulse_redis_memory_used_bytes").await? / MIB,
    ])
}

/// What clients do besides posting: repeat a key, list, and post what fails.
async fn other_requests(client: &Client, number: usize) -> anyhow::Result<()> {
    let event = json!({ "event_name": "page_view", "event_type": "t" }).to_string();
    let key = format!("\"{number}\"");
    for _ in 0..2 {
        let headers = [("idempotency-key", key.as_str())];
        let answer = client.send(http::Method::POST, "/api/v1/events", &headers, event.clone().into()).await?;
        anyhow::ensure!(answer.status == 202, "{}", answer.text);
    }
    client.post_event("fail").await?;
    for path in ["/api/v1/events?limit=100", "/api/v1/events/status/unprocessed"] {
        let answer = client.get(path).await?;
        anyhow::ensure!(answer.status == 200, "{path}: {}", answer.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hour_of_load_leaves_memory_tables_and_redis_as_large_as_they_were() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "0.1"]).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    let posting = load(&env, &api, RATE, DURATION.as_secs() as u32)?;
    let (client, started) = (api.client("ada"), Instant::now());
    let mut samples = Vec::new();
    while started.elapsed() + PERIOD < DURATION {
        other_requests(&client, samples.len()).await?;
        tokio::time::sleep(PERIOD).await;
        samples.push(sample(&env, [&api, &worker, &scheduler]).await?);
    }
    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    env.wait_until_settled(Duration::from_secs(60)).await?;
    println!("{report}\n{} events, each processed once", env.check_ledger("ledger").await?);

    let largest =
        |samples: &[[f64; FIGURES.len()]], at: usize| samples.iter().map(|sample| sample[at]).fold(0.0, f64::max);
    let (first, last) = (&samples[TEN_MINUTES..2 * TEN_MINUTES], &samples[samples.len() - TEN_MINUTES..]);
    let mut grown = Vec::new();
    for (at, figure) in FIGURES.iter().enumerate() {
        let (before, after) = (largest(first, at), largest(last, at));
        println!("{figure}: {before:.1} in the second ten minutes, {after:.1} in the last ten");
        if after > before * GROWTH + NOISE {
            grown.push(figure);
        }
    }
    assert!(grown.is_empty(), "{grown:?}");
    Ok(())
}
