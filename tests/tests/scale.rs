//! What more workers bring: tasks that wait 100 ms, as for another service. `make test-long` runs it and prints the rates.

#![expect(clippy::print_stdout, reason = "the test prints what it measures")]

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually, pulse_output, token};

const CONCURRENCY: u32 = 8;
/// Tasks per second of a worker whose slots are never free.
const POSSIBLE: f64 = 10.0 * CONCURRENCY as f64;
/// Time for which there is work for all workers.
const SECONDS: u32 = 15;
const SHARE_OF_LINEAR: f64 = 0.9;

/// The rate of `number` workers, from a tenth to nine tenths of a backlog that is there when they start.
async fn rate(number: u32) -> anyhow::Result<f64> {
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &[]).await?;
    let tasks = f64::from(number * SECONDS) * POSSIBLE;
    let (rate, token) = ((tasks / 10.0).to_string(), token("load", None));
    let args = ["load", "--url", &api.url, "--token", &token, "--event-name", "sleep:100", "--rate", &rate];
    let (code, output) = pulse_output(&env, &[&args[..], &["--duration", "10s"]].concat()).await?;
    anyhow::ensure!(code == 0, "{output}");
    api.stop().await?;
    let total = env.number("SELECT count(*) FROM tasks").await? as f64;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let concurrency = CONCURRENCY.to_string();
    let mut workers = Vec::new();
    for _ in 0..number {
        workers.push(Process::spawn(&env, "worker", &["--concurrency", &concurrency])?);
    }
    let settled = async || Ok::<_, anyhow::Error>(env.number("SELECT count(*) FROM task_history").await? as f64);
    let reach = async |share: f64| {
        let reached = async || Ok(settled().await? >= share * total);
        eventually("tasks are settled", Duration::from_secs(120), reached).await?;
        anyhow::Ok((settled().await?, Instant::now()))
    };
    let (first, last) = (reach(0.1).await?, reach(0.9).await?);
    Ok((last.0 - first.0) / (last.1 - first.1).as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_are_nearly_eight_times_as_fast_as_one() -> anyhow::Result<()> {
    let alone = rate(1).await?;
    for number in [1, 2, 4, 8] {
        let rate = if number == 1 { alone } else { rate(number).await? };
        let share = rate / alone / f64::from(number);
        let possible = rate / POSSIBLE / f64::from(number);
        println!("{number} workers: {rate:.0} tasks/s, {possible:.2} of the possible rate, {share:.2} of linear");
        assert!(share >= SHARE_OF_LINEAR, "{number} workers: {share:.2} of linear");
    }
    Ok(())
}
