//! Many dead tasks that are retried under load.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually, pulse_output};
use sqlx::AssertSqlSafe;

use crate::{Loaded, TIMEOUT};

const DEAD: i64 = if cfg!(feature = "long") { 100_000 } else { 10_000 };

#[tokio::test(flavor = "multi_thread")]
async fn retry_of_many_dead_tasks_under_load_delays_no_post_and_repeats_nothing() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO users (subject) VALUES ('dead');
         INSERT INTO events (id, user_id, event_name, event_type, task_id, processing_error)
         SELECT nextval('events_id_seq'), 1, 'dead', 't', gen_random_uuid(), 'failed' FROM generate_series(1, {DEAD});
         INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, fencing_token, bytes,
                                 reason, errors, dead_at)
         SELECT task_id, 'process_event', 1, ARRAY[id], created_at, 3, 3, 3, 600, 'error',
                jsonb_build_array(jsonb_build_object('attempt', 3, 'at', now(), 'reason', 'error', 'error', 'failed')), now()
         FROM events"
    )))
    .execute(&env.db)
    .await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let loaded = Loaded::start(&env, &api, 200, 20).await?;
    let started = Instant::now();
    let limit = DEAD.to_string();
    let retry = async || pulse_output(&env, &["tasks", "retry", "--all", "--limit", &limit]).await;
    // Another administrator retries the same tasks at the same time. What one of them is at is busy for the other.
    for (code, output) in tokio::try_join!(retry(), retry()).map(|(one, other)| [one, other])? {
        anyhow::ensure!(code == 0 || output.contains("run the command again"), "{output}");
    }
    eventually("all are retried", TIMEOUT, async || Ok(retry().await?.1.starts_with("0 tasks"))).await?;
    println!("{DEAD} dead tasks retried in {:.1?}", started.elapsed());
    let report = loaded.finish(&env).await?;
    println!("processed {:.1?} after the retry began; p99 of posts {} ms", started.elapsed(), report["p99_ms"]);
    assert_eq!(report["refused"], serde_json::json!({}), "{report}");
    env.wait_until_settled(TIMEOUT + Duration::from_millis(DEAD.cast_unsigned())).await?;
    let retried = "SELECT count(*) FROM events WHERE event_name = 'dead' AND processed";
    assert_eq!(env.number(retried).await?, DEAD);
    Ok(())
}
