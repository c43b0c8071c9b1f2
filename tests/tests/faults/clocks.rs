//! Workers whose clock is wrong. Leases follow the clock of PostgreSQL.

use std::time::Instant;

use pulse_tests::{Process, TestEnv, eventually, libfaketime};

use crate::{Loaded, TIMEOUT};

/// A lease lasts 30 s, and a task is enqueued again at most 15 s later.
const CRASH_RECOVERY_SECONDS: u64 = 45;

async fn worker_with_clock(env: &TestEnv, shift: &str) -> anyhow::Result<Process> {
    let variables = [
        ("LD_PRELOAD", libfaketime()?),
        ("FAKETIME", shift.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let worker = Process::spawn_with_variables(env, "worker", &variables, &[])?;
    worker.wait_until_ready().await?;
    Ok(worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_an_hour_ahead_and_behind_keep_leases_of_the_usual_length() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let ahead = worker_with_clock(&env, "+1h").await?;
    let behind = worker_with_clock(&env, "-1h").await?;
    Loaded::start(&env, &api, 300, 8).await?.finish(&env).await?;

    let client = api.client("ada");
    behind.kill().await?;
    let path = format!("/api/v1/tasks/{}", client.post_event("sleep:2000").await?);
    eventually("the task runs", TIMEOUT, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    let lease = env.number("SELECT extract(epoch FROM lease_until - now())::bigint FROM tasks").await?;
    assert!((20..=30).contains(&lease), "the lease lasts {lease} s");
    ahead.kill().await?;
    let killed = Instant::now();
    let _other = worker_with_clock(&env, "-1h").await?;
    eventually("the task is completed", TIMEOUT, async || Ok(client.get(&path).await?.json["state"] == "completed"))
        .await?;
    println!("the task of a killed worker was completed after {:.1?}", killed.elapsed());
    assert!(killed.elapsed().as_secs() < CRASH_RECOVERY_SECONDS);
    Ok(())
}
