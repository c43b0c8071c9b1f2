//! Fairness while Redis is unavailable: workers search PostgreSQL.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_task_does_not_wait_for_30_000_of_another_user() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    api.client("ada").post_event("first").await?;
    env.kill_and_wipe_redis().await?;
    sqlx::raw_sql(
        "WITH added AS (
             INSERT INTO events (user_id, event_name, event_type, task_id)
             SELECT (SELECT id FROM users), 'sleep:2', 't', gen_random_uuid() FROM generate_series(1, 30000)
             RETURNING id, user_id, task_id
         )
         INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts)
         SELECT task_id, 'process_event', user_id, ARRAY[id], 1024, 3 FROM added",
    )
    .execute(&env.db)
    .await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "4"]).await?;
    eventually("the worker works", TIMEOUT, async || Ok(env.number("SELECT count(*) FROM task_history").await? > 500))
        .await?;
    for _ in 0..20 {
        api.client("bob").post_event("small").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = "SELECT count(*) FROM events WHERE event_name = 'small' AND processed";
    eventually("Bob's events are processed", TIMEOUT, async || Ok(env.number(settled).await? == 20)).await?;
    let left = env.number("SELECT count(*) FROM tasks").await?;
    assert!(left > 15_000, "Ada had only {left} tasks left");
    let slowest = env
        .number(
            "SELECT max(extract(epoch FROM processed_at - created_at) * 1000)::bigint FROM events
             WHERE event_name = 'small'",
        )
        .await?;
    assert!(slowest < 1500, "a task of Bob took {slowest} ms");
    Ok(())
}
