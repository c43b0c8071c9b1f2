//! A worker ends in time, whatever is away.

use std::time::{Duration, Instant};

use pulse_tests::{Process, World, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_drains_in_time_without_postgresql() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let mut worker = Process::start(&world, "worker", &["--drain-timeout", "2s"]).await?;
    let client = api.client("ada");
    // One ends before the time-out and cannot be settled, one does not end.
    for name in ["sleep:1500", "sleep:600000"] {
        client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
    }
    eventually("both run", SOON, async || {
        Ok(world.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 2)
    })
    .await?;
    world.crash_postgres().await?;
    let begun = Instant::now();
    assert_eq!(worker.stop().await?, 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "drained in {took:?}: 2 s, and 5 s for handing back");
    world.start_postgres().await?;
    assert_eq!(world.number("SELECT count(*) FROM tasks").await?, 2, "nothing is lost");
    Ok(())
}
