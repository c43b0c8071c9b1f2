//! Pause and resume of all claims.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually, pulse_output};

use crate::{TIMEOUT, store};

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_claims_at_once_and_resume_drains() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    let worker = Process::start(&env, "worker", &["--concurrency", "4"]).await?;
    let client = api.client("ada");
    let running = client.post_event("sleep:1500").await?;
    eventually("the task runs", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 1)
    })
    .await?;
    let (code, output) = pulse_output(&env, &["pause", "--actor", "ada", "--because", "bad deploy"]).await?;
    assert!(code == 0 && output.contains("claims are paused"), "{output}");
    for _ in 0..5 {
        client.post_event("good").await?;
    }
    // The worker has read the new deliveries, and keeps them.
    let log = async || Ok(std::fs::read_to_string(&worker.log)?.contains("claims are paused"));
    eventually("the worker knows", TIMEOUT, log).await?;
    eventually("the running task ends", TIMEOUT, async || {
        Ok(client.get(&format!("/api/v1/tasks/{running}")).await?.json["state"] == "completed")
    })
    .await?;
    assert_eq!(env.number("SELECT count(*) FROM tasks WHERE fencing_token = 0").await?, 5, "nothing was claimed");
    eventually("the gauge shows it", TIMEOUT, async || Ok(scheduler.metric("pulse_paused").await? == 1.0)).await?;
    let (_, output) = pulse_output(&env, &["check"]).await?;
    assert!(output.contains("by ada") && output.contains("pulse resume"), "{output}");
    let pause = store(&env)?.overview().await?.pause.expect("the overview shows it");
    assert_eq!((pause.actor.as_str(), pause.reason.as_deref()), ("ada", Some("bad deploy")));
    let (_, output) = pulse_output(&env, &["pause"]).await?;
    assert!(output.contains("already paused"), "{output}");

    let (code, _) = pulse_output(&env, &["resume"]).await?;
    let resumed = Instant::now();
    assert_eq!(code, 0);
    env.wait_until_settled(TIMEOUT).await?;
    assert!(resumed.elapsed() < Duration::from_secs(5), "{:?}", resumed.elapsed());
    assert_eq!(env.number("SELECT count(*) FROM audit_log WHERE action IN ('pause', 'resume')").await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_holds_without_redis_and_after_a_restart() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    assert_eq!(pulse_output(&env, &["pause"]).await?.0, 0);
    let task = api.client("ada").post_event("good").await?;
    env.kill_and_wipe_redis().await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    let log = async || Ok(std::fs::read_to_string(&worker.log)?.contains("claims are paused"));
    eventually("the worker finds the task, and does not claim it", TIMEOUT, log).await?;
    assert_eq!(env.number("SELECT max(fencing_token) FROM tasks").await?, 0);
    assert_eq!(pulse_output(&env, &["resume"]).await?.0, 0);
    env.wait_until_settled(TIMEOUT).await?;
    let client = api.client("ada");
    assert_eq!(client.get(&format!("/api/v1/tasks/{task}")).await?.json["state"], "completed");
    Ok(())
}
