//! Removal of what is older than the administrator wants to keep.

use std::time::Duration;

use pulse_tests::latency::{GOOD, p99, post_steadily};
use pulse_tests::{Process, TestEnv, eventually, pulse_output};

const TIMEOUT: Duration = Duration::from_secs(30);
/// The jobs look every 15 s.
const PERIOD: Duration = Duration::from_secs(15);
const RETAIN: &[&str] = &["--retain-events", "90d", "--retain-history", "30d", "--retain-dead-tasks", "7d"];
const OLD_MONTHS: &str = "SELECT count(*) FROM pg_class WHERE relname ~ '_y2020m0[0-9]$'";

/// Two months of events and settled tasks of 2020, and dead letters of the last twenty days.
async fn fill(env: &TestEnv) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "CREATE TABLE events_y2020m01 PARTITION OF events FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
         CREATE TABLE events_y2020m02 PARTITION OF events FOR VALUES FROM ('2020-02-01Z') TO ('2020-03-01Z');
         CREATE TABLE task_history_y2020m01 PARTITION OF task_history
         FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
         INSERT INTO users (subject) VALUES ('ada');
         INSERT INTO events (user_id, event_name, event_type, task_id, processed, created_at)
         SELECT 1, 'a', 't', gen_random_uuid(), true, '2020-01-01Z'::timestamptz + n * interval '1 hour'
         FROM generate_series(0, 1439) AS n;
         INSERT INTO events (user_id, event_name, event_type, task_id) VALUES (1, 'new', 't', gen_random_uuid());
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, settled_at)
         VALUES (gen_random_uuid(), 'process_event', 1, '{1}', 'completed', 1, '[]', '2020-01-02Z', '2020-01-02Z'),
                (gen_random_uuid(), 'process_event', 1, '{2}', 'completed', 1, '[]', now(), now());
         INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, fencing_token,
                                 reason, errors, dead_at)
         SELECT gen_random_uuid(), 'process_event', 1, '{3}', 1, now(), 3, 3, 3, 'error', '[]',
                now() - n * interval '1 day' + interval '1 hour'
         FROM generate_series(1, 20) AS n",
    )
    .execute(&env.db)
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_months_and_dead_letters_are_removed_and_the_rest_stays() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env).await?;
    let scheduler = Process::start(&env, "scheduler", RETAIN).await?;
    eventually("the old months are dropped", TIMEOUT, async || Ok(env.number(OLD_MONTHS).await? == 0)).await?;
    let dead = "SELECT count(*) FROM dead_tasks";
    eventually("the old dead letters are deleted", TIMEOUT, async || Ok(env.number(dead).await? == 7)).await?;
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 1);
    assert_eq!(env.number("SELECT count(*) FROM task_history").await?, 1);
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(env.number(months).await?, 14, "this month, the next 12, and the default partition");
    let audit = "SELECT count(*) FROM audit_log WHERE actor = 'scheduler' AND action LIKE 'retention.%'";
    assert_eq!(env.number(audit).await?, 4);
    assert!(scheduler.metric(r#"pulse_retention_blocked{table="events"}"#).await?.abs() < 0.5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_delays_the_drop_of_a_month_and_nothing_else() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let before = p99(&post_steadily(&client, Duration::from_secs(3)).await?);
    let mut reader = env.db.begin().await?;
    let count = "SELECT count(*) FROM events WHERE created_at < '2021-01-01Z'";
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *reader).await?;
    sqlx::raw_sql("SET LOCAL application_name = 'backup'").execute(&mut *reader).await?;
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await?, 1440);

    let scheduler = Process::start(&env, "scheduler", RETAIN).await?;
    let during = p99(&post_steadily(&client, 2 * PERIOD).await?);
    assert!(during <= (2 * before).max(GOOD), "p99 {during:?} beside the reader, {before:?} before");
    let blocked = async || Ok(scheduler.metric(r#"pulse_retention_blocked{table="events"}"#).await? > 0.5);
    eventually("the metric says that the drop is blocked", TIMEOUT, blocked).await?;
    let log = std::fs::read_to_string(&scheduler.log)?;
    assert!(log.contains("events_y2020m01") && log.contains("backup (pid "), "{log}");
    assert_eq!(
        sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await?,
        1440,
        "the reader sees all its rows"
    );

    let (_, output) = pulse_output(&env, &["check"]).await?;
    assert!(output.contains("oldest snapshot = held by backup (pid "), "{output}");
    assert!(scheduler.metric("pulse_postgresql_oldest_snapshot_transactions").await? > 100.0);
    reader.rollback().await?;
    eventually("the old months are dropped", TIMEOUT, async || Ok(env.number(OLD_MONTHS).await? == 0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn month_with_an_unsettled_task_is_kept() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env).await?;
    sqlx::raw_sql(
        "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts, created_at, run_at)
         SELECT task_id, 'process_event', user_id, ARRAY[id], 1, 3, created_at, now() + interval '1 day'
         FROM events WHERE created_at = '2020-02-01Z'",
    )
    .execute(&env.db)
    .await?;
    let scheduler = Process::start(&env, "scheduler", RETAIN).await?;
    eventually("the month before is dropped", TIMEOUT, async || Ok(env.number(OLD_MONTHS).await? == 1)).await?;
    let named = async || Ok(std::fs::read_to_string(&scheduler.log)?.contains("events_y2020m02"));
    eventually("the log names the month and the task", TIMEOUT, named).await?;
    sqlx::raw_sql("DELETE FROM tasks").execute(&env.db).await?;
    eventually("it is dropped too", TIMEOUT, async || Ok(env.number(OLD_MONTHS).await? == 0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_held_user_is_removed_until_the_release() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env).await?;
    // The month before has no events of the user.
    sqlx::raw_sql(
        "INSERT INTO users (subject) VALUES ('eve');
         UPDATE events SET user_id = 2 WHERE created_at < '2020-02-01Z';
         UPDATE dead_tasks SET user_id = 2 WHERE id IN (SELECT id FROM dead_tasks ORDER BY dead_at LIMIT 3);
         UPDATE users SET created_at = '2020-01-31 23:00Z'",
    )
    .execute(&env.db)
    .await?;
    assert_eq!(pulse_output(&env, &["user", "hold", "ada"]).await?.0, 0);
    let scheduler = Process::start(&env, "scheduler", RETAIN).await?;
    let months = "SELECT count(*) FROM pg_class WHERE relname IN ('events_y2020m02', 'task_history_y2020m01')";
    let dropped = async || Ok(env.number(OLD_MONTHS).await? == 2);
    eventually("the month without the user's events is dropped", TIMEOUT, dropped).await?;
    let log = async |text: &str| Ok(std::fs::read_to_string(&scheduler.log)?.contains(text));
    // In JSON, quotes are escaped.
    let blocked = async || log(r#"events of user \"ada\", who is held"#).await;
    eventually("the log names the user whose events are kept", TIMEOUT, blocked).await?;
    let blocked = async || log(r#"settled tasks of user \"ada\", who is held"#).await;
    eventually("the log names the user whose tasks are kept", TIMEOUT, blocked).await?;
    assert!(scheduler.metric(r#"pulse_retention_blocked{table="events"}"#).await? > 0.5);
    assert_eq!(env.number(months).await?, 2);
    let dead = async |number: i64| Ok(env.number("SELECT count(*) FROM dead_tasks").await? == number);
    eventually("only the dead letters of the other user are deleted", TIMEOUT, async || dead(17).await).await?;

    assert_eq!(pulse_output(&env, &["user", "release", "ada"]).await?.0, 0);
    eventually("the months are dropped", TIMEOUT, async || Ok(env.number(OLD_MONTHS).await? == 0)).await?;
    eventually("the old dead letters are deleted", TIMEOUT, async || dead(7).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_idempotency_keys_60_000_are_deleted_within_a_minute() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let keys = "INSERT INTO idempotency_keys (user_id, route, key, fingerprint, task_id, event_ids, replay, created_at)
                SELECT n % 10, '/api/v1/events', n::text, '', gen_random_uuid(), ARRAY[n], '{}',
                       now() - CASE WHEN n % 60 = 0 THEN interval '23 hours' ELSE interval '25 hours' END
                FROM generate_series(1, 61000) AS n";
    sqlx::query(keys).execute(&env.db).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    let expired = "SELECT count(*) FROM idempotency_keys WHERE created_at < now() - interval '24 hours'";
    let all_deleted = async || Ok(env.number(expired).await? == 0);
    eventually("expired keys are deleted", Duration::from_secs(60), all_deleted).await?;
    assert_eq!(env.number("SELECT count(*) FROM idempotency_keys").await?, 1016);
    let age = async || {
        let age = scheduler.metric("pulse_idempotency_oldest_key_age_seconds").await?;
        Ok((82_000.0..86_400.0).contains(&age))
    };
    eventually("the metric has the age of the oldest key", Duration::from_secs(15), age).await
}
