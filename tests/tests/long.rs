//! Faults that last a full minute, which is longer than every lease, time-out and margin. `make test-long` runs them, and
//! shows the figures.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually, load, report};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
const COMPLETED: &str = "pulse_tasks_settled_total{outcome=\"completed\"}";

#[expect(clippy::print_stderr, reason = "whoever runs this wants to see the figures")]
fn tell(figures: &str) {
    eprintln!("{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_redis_loses_nothing_and_keeps_processing() -> anyhow::Result<()> {
    let mut world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let posting = load(&world, &api, 200, 80)?;
    eventually("events come", SOON, async || Ok(world.number("SELECT count(*) FROM events").await? > 500)).await?;

    world.lose_redis().await?;
    let lost = Instant::now();
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
    eventually("readyz says degraded", SOON, degraded).await?;
    let (mut accepted, mut processed) = (0, 0.0);
    let first = world.number("SELECT count(*) FROM events").await?;
    let before = worker.metric(COMPLETED).await?;
    while lost.elapsed() < MINUTE {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (events, settled) = (world.number("SELECT count(*) FROM events").await?, worker.metric(COMPLETED).await?);
        assert!(events > accepted, "202s continue, {} s after Redis went", lost.elapsed().as_secs());
        assert!(settled > processed, "tasks are processed, {} s after Redis went", lost.elapsed().as_secs());
        assert!(degraded().await?, "readyz says degraded, {} s after Redis went", lost.elapsed().as_secs());
        (accepted, processed) = (events, settled);
    }
    let away = lost.elapsed();
    world.start_redis().await?;
    tell(&format!(
        "Redis away for {:.1} s: {} events accepted and {} tasks processed meanwhile, {} could not be enqueued",
        away.as_secs_f64(),
        accepted - first,
        processed - before,
        api.metric("pulse_enqueues_dropped_total").await?,
    ));

    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    let posted = Instant::now();
    world.settled(SOON).await?;
    let promised = world.check_ledger("ledger").await?;
    assert_eq!(Some(promised as u64), report["accepted_events"].as_u64());
    let healthy = async || Ok(admins[0].get("/readyz").await?.json["status"] == "ok");
    eventually("readyz says ok", SOON, healthy).await?;
    tell(&format!(
        "{promised} of {promised} promises kept, none refused, settled {:.1} s after the last post; p99 {} ms",
        posted.elapsed().as_secs_f64(),
        report["p99_ms"],
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_for_a_minute_cannot_settle() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let paused = Process::start(&world, "worker", &[]).await?;
    let client = api.client("ada");
    let accepted = client.post("/api/v1/events", &json!({"event_name": "sleep:2000", "event_type": "t"})).await?;
    let path = format!("/api/v1/tasks/{}", accepted.json["task_id"].as_str().unwrap_or_default());
    eventually("the task runs", SOON, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    paused.signal(Signal::STOP)?;
    let stopped = Instant::now();
    let _other = Process::start(&world, "worker", &[]).await?;
    eventually("another worker has processed it", MINUTE, async || {
        Ok(client.get(&path).await?.json["state"] == "completed")
    })
    .await?;
    let processed = stopped.elapsed();
    let event = "SELECT md5(events::text)::text FROM events";
    let before: String = sqlx::query_scalar(event).fetch_one(&world.db).await?;

    tokio::time::sleep(MINUTE.saturating_sub(stopped.elapsed())).await;
    paused.signal(Signal::CONT)?;
    let woken = Instant::now();
    let stale = async || Ok(paused.metric("pulse_stale_settlements_total").await? == 1.0);
    eventually("its settlement is refused, and counted", SOON, stale).await?;
    let refused = woken.elapsed();
    let after: String = sqlx::query_scalar(event).fetch_one(&world.db).await?;
    assert_eq!(before, after, "the stale worker changed the event");
    assert_eq!(world.number("SELECT count(*) FROM task_history").await?, 1);
    assert_eq!(paused.metric(COMPLETED).await?, 0.0);
    tell(&format!(
        "worker paused for {:.1} s: processed by another after {:.1} s, its own settlement refused {:.1} s after it woke",
        (woken - stopped).as_secs_f64(),
        processed.as_secs_f64(),
        refused.as_secs_f64(),
    ));
    Ok(())
}
