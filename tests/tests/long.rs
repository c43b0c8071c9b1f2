//! Faults that last minutes, longer than every lease and timeout. `make test-long` runs them and prints the
//! measurements.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually, load, report};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
const OUTAGE: Duration = Duration::from_secs(300);
const COMPLETED: &str = "pulse_tasks_settled_total{outcome=\"completed\"}";

#[expect(clippy::print_stderr, reason = "prints measurements")]
fn print(measurement: &str) {
    eprintln!("{measurement}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_outage_of_five_minutes_loses_nothing_and_keeps_processing() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let [api, worker, _scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, 200, 320)?;
    eventually("events are accepted", TIMEOUT, async || Ok(env.number("SELECT count(*) FROM events").await? > 500))
        .await?;

    env.kill_and_wipe_redis().await?;
    let lost_at = Instant::now();
    let admins = [api.admin(), worker.admin()];
    let degraded = async || {
        for admin in &admins {
            let ready = admin.get("/readyz").await?;
            if (ready.status, ready.json["status"].as_str()) != (200, Some("degraded")) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    eventually("readyz reports degraded", TIMEOUT, degraded).await?;
    let (mut accepted, mut completed) = (0, 0.0);
    let first = env.number("SELECT count(*) FROM events").await?;
    let before = worker.metric(COMPLETED).await?;
    while lost_at.elapsed() < OUTAGE {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (events, settled) = (env.number("SELECT count(*) FROM events").await?, worker.metric(COMPLETED).await?);
        let seconds = lost_at.elapsed().as_secs();
        assert!(events > accepted, "no event was accepted, {seconds} s after the loss of Redis");
        assert!(settled > completed, "no task was completed, {seconds} s after the loss of Redis");
        assert!(degraded().await?, "readyz does not report degraded, {seconds} s after the loss of Redis");
        (accepted, completed) = (events, settled);
    }
    let outage = lost_at.elapsed();
    env.start_redis().await?;
    print(&format!(
        "Redis was down for {:.1} s: {} events accepted and {} tasks completed meanwhile, {} tasks not enqueued",
        outage.as_secs_f64(),
        accepted - first,
        completed - before,
        api.metric("pulse_enqueues_dropped_total").await?,
    ));

    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    let posted = Instant::now();
    env.wait_until_settled(TIMEOUT).await?;
    let checked = env.check_ledger("ledger").await?;
    assert_eq!(Some(checked as u64), report["accepted_events"].as_u64());
    let healthy = async || Ok(admins[0].get("/readyz").await?.json["status"] == "ok");
    eventually("readyz reports ok", TIMEOUT, healthy).await?;
    print(&format!(
        "{checked} of {checked} accepted events stored, none refused; settled {:.1} s after the last post; p99 {} ms",
        posted.elapsed().as_secs_f64(),
        report["p99_ms"],
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_paused_for_one_minute_cannot_settle() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let paused = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let path = format!("/api/v1/tasks/{}", client.post_event("sleep:2000").await?);
    // The state is `running` before the worker has PostgreSQL's answer to its claim.
    let runs = async || Ok(paused.metric("pulse_worker_in_flight_tasks").await? == 1.0);
    eventually("the task runs", TIMEOUT, runs).await?;
    paused.signal(Signal::STOP)?;
    let stopped_at = Instant::now();
    let _other = Process::start(&env, "worker", &[]).await?;
    eventually("another worker has completed the task", MINUTE, async || {
        Ok(client.get(&path).await?.json["state"] == "completed")
    })
    .await?;
    let completed = stopped_at.elapsed();
    let event = "SELECT md5(events::text)::text FROM events";
    let before: String = sqlx::query_scalar(event).fetch_one(&env.db).await?;

    tokio::time::sleep(MINUTE.saturating_sub(stopped_at.elapsed())).await;
    paused.signal(Signal::CONT)?;
    let resumed_at = Instant::now();
    let stale = async || Ok(paused.metric("pulse_stale_settlements_total").await? == 1.0);
    eventually("the stale settlement is refused and counted", TIMEOUT, stale).await?;
    let refused = resumed_at.elapsed();
    let after: String = sqlx::query_scalar(event).fetch_one(&env.db).await?;
    assert_eq!(before, after, "the stale worker changed the event");
    assert_eq!(env.number("SELECT count(*) FROM task_history").await?, 1);
    assert_eq!(paused.metric(COMPLETED).await?, 0.0);
    print(&format!(
        "worker paused for {:.1} s: task completed by another after {:.1} s, settlement refused {:.1} s after resume",
        (resumed_at - stopped_at).as_secs_f64(),
        completed.as_secs_f64(),
        refused.as_secs_f64(),
    ));
    Ok(())
}
