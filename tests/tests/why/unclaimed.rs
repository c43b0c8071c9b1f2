//! Tasks that no worker has claimed: none can, or other tasks are before them.

use pulse_tests::{Process, TestEnv, pulse_output};

use crate::env::{has_completed_some, leased, lock, names, names_both, trickle, why};

#[tokio::test(flavor = "multi_thread")]
async fn missing_worker_and_locked_row_are_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let task = api.client("ada").post_event("a").await?;
    names(&env, &task, "no_worker").await?;
    let transaction = lock(&env, &task).await?;
    names_both(&env, &task, "no_worker", "row_locked").await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    names(&env, &task, "row_locked").await?;
    transaction.rollback().await?;
    names(&env, &task, "completed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_is_named_with_its_reason_before_a_missing_worker() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (code, output) = pulse_output(&env, &["pause", "--actor", "ops", "--because", "bad deploy"]).await?;
    assert_eq!(code, 0, "{output}");
    let task = api.client("ada").post_event("a").await?;
    names_both(&env, &task, "paused", "no_worker").await?;
    let sentence = why(&env, &task).await?["explanation"]["sentence"].to_string();
    assert!(sentence.contains("ops paused all claims") && sentence.contains("bad deploy"), "{sentence}");
    let _worker = Process::start(&env, "worker", &[]).await?;
    names(&env, &task, "paused").await?;
    let (code, output) = pulse_output(&env, &["resume"]).await?;
    assert_eq!(code, 0, "{output}");
    names(&env, &task, "completed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn backoff_dominates_what_ends_sooner_and_nothing_else() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "1000"]).await?;
    let mut scheduler = Process::start(&env, "scheduler", &[]).await?;
    let task = api.client("ada").post_event("fail").await?;
    names(&env, &task, "backoff").await?;
    // An idle worker needs no scheduler for a retry.
    scheduler.stop().await?;
    names(&env, &task, "backoff").await?;
    let transaction = lock(&env, &task).await?;
    names_both(&env, &task, "row_locked", "backoff").await?;
    transaction.rollback().await?;
    worker.kill().await?;
    names_both(&env, &task, "no_worker", "backoff").await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_attempts_dominate_a_neighbour_and_a_lost_redis() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "1"]).await?;
    let bob = api.client("bob");
    bob.post_event("sleep:600000").await?;
    leased(&env, 1).await?;
    let first = api.client("ada").post_event("a").await?;
    names(&env, &first, "workers_busy").await?;
    for _ in 0..40 {
        bob.post_event("b").await?;
    }
    let task = api.client("ada").post_event("a").await?;
    names_both(&env, &task, "workers_busy", "neighbour").await?;
    env.kill_and_wipe_redis().await?;
    names_both(&env, &first, "workers_busy", "redis_away").await
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbour_with_many_tasks_is_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    trickle(&api, "bob").await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "1"]).await?;
    has_completed_some(&env).await?;
    let task = api.client("ada").post_event("a").await?;
    names(&env, &task, "neighbour").await?;
    trickle(&api, "ada").await?;
    let task = api.client("ada").post_event("a").await?;
    names(&env, &task, "own_backlog").await
}
