//! A transaction that holds rows of one user delays no other: neither accept, nor settle, nor requeue.

use std::time::{Duration, Instant};

use pulse_tests::latency::{GOOD, p99, post_steadily};
use pulse_tests::{Process, TestEnv, eventually};
use serde_json::json;
use sqlx::AssertSqlSafe;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which the lock is held.
const LOCKED_FOR: Duration = Duration::from_secs(if cfg!(feature = "long") { 300 } else { 30 });

/// Holds the rows of `lock` while the victim and another user post, and checks the other user.
async fn others_are_not_hurt(lock: &str, victim_is_refused: bool) -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let (victim, other) = (api.client("victim"), api.client("other"));
    victim.post_event("first").await?;
    let before = p99(&post_steadily(&other, Duration::from_secs(3)).await?);
    let mut transaction = env.db.begin().await?;
    sqlx::query(AssertSqlSafe(lock.to_owned())).execute(&mut *transaction).await?;
    let worker = Process::start(&env, "worker", &[]).await?;

    let begin = Instant::now();
    let victims = async {
        let mut statuses = Vec::new();
        while begin.elapsed() < LOCKED_FOR {
            let event = json!({"event_name": "more", "event_type": "t"});
            let answer = victim.post("/api/v1/events", &event).await?;
            statuses.push((answer.status, answer.json["code"].as_str().unwrap_or_default().to_owned()));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        anyhow::Ok(statuses)
    };
    let (statuses, latencies) = tokio::join!(victims, post_steadily(&other, LOCKED_FOR));
    let expected = if victim_is_refused { (503, "user_locked".to_owned()) } else { (202, String::new()) };
    let statuses = statuses?;
    assert!(statuses.iter().all(|status| *status == expected), "{statuses:?}");
    let during = p99(&latencies?);
    let limit = (2 * before).max(GOOD);
    assert!(during <= limit, "p99 of the others: {during:?} with the lock, {before:?} before");

    let unsettled = "SELECT count(*) FROM tasks JOIN users ON users.id = user_id WHERE subject = 'other'";
    eventually("the tasks of others are settled", TIMEOUT, async || Ok(env.number(unsettled).await? == 0)).await?;
    let wasted = "SELECT count(*) FROM task_history WHERE attempts <> 1";
    assert_eq!(env.number(wasted).await?, 0, "each of them in one attempt");
    let late = "SELECT count(*) FROM jobs
                WHERE name IN ('recover', 'requeue') AND (last_outcome = 'failed' OR last_run_at < now() - interval '8 s')";
    assert_eq!(env.number(late).await?, 0, "the jobs run all the while");
    let used = "SELECT count(*) FROM tasks WHERE attempts > 0 OR crashed";
    assert_eq!(env.number(used).await?, 0, "the victim's tasks used no attempt");

    transaction.rollback().await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks").await?, 0);
    drop(worker);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_deletion_of_a_user_delays_no_other_user() -> anyhow::Result<()> {
    others_are_not_hurt("DELETE FROM users WHERE subject = 'victim'", true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_on_one_event_delays_no_other_user() -> anyhow::Result<()> {
    others_are_not_hurt("SELECT FROM events WHERE event_name = 'first' FOR UPDATE", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_on_one_task_delays_no_other_user() -> anyhow::Result<()> {
    let task = "SELECT FROM tasks JOIN users ON users.id = user_id WHERE subject = 'victim' FOR UPDATE OF tasks";
    others_are_not_hurt(task, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_of_a_partition_beside_a_backup_delays_no_post() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    client.post_event("first").await?;
    let newest = "SELECT string_agg(format('DROP TABLE %I', relid), ';') FROM
                  (SELECT relid FROM pg_partition_tree('events') WHERE relid::text LIKE 'events_y%'
                   ORDER BY relid::text DESC LIMIT 1) AS newest";
    let drop: String = sqlx::query_scalar(newest).fetch_one(&env.db).await?;
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&env.db).await?;
    let mut backup = env.db.begin().await?;
    sqlx::query("LOCK TABLE events, events_default IN ACCESS SHARE MODE").execute(&mut *backup).await?;
    let create = "SELECT ensure_month_partitions('events', 12)::bigint";
    let (created, latencies) = tokio::join!(env.number(create), post_steadily(&client, Duration::from_secs(2)));
    let slowest = latencies?.last().copied().unwrap_or_default();
    assert!(slowest < Duration::from_secs(1), "a POST took {slowest:?}");
    assert_eq!(created?, 0, "the backup has locked the default partition");
    backup.rollback().await?;
    assert_eq!(env.number(create).await?, 1);
    Ok(())
}
