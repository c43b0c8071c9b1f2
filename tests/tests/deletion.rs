//! Deleting a user, and expired idempotency keys, beside other users' work.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually, load, pulse, pulse_output, report};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// Inserts a user with events in several months, tasks that are due in an hour, dead tasks, history and keys.
async fn insert_user(env: &TestEnv, subject: &str, events: u32) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO users (subject) VALUES ('{subject}');
         INSERT INTO events (user_id, event_name, event_type, task_id, created_at, payload)
         SELECT currval('users_id_seq'), 'a', 't', gen_random_uuid(), now() - n % 3 * interval '40 days',
                jsonb_build_object('text', repeat('x', 500))
         FROM generate_series(1, {events}) AS n;
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, settled_at)
         SELECT task_id, 'process_event', user_id, ARRAY[id], 'completed', 1, '[]', created_at, created_at
         FROM events WHERE user_id = currval('users_id_seq');
         INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts, run_at)
         SELECT gen_random_uuid(), 'process_event', currval('users_id_seq'), ARRAY[n], 600, 3, now() + interval '1 hour'
         FROM generate_series(1, {events} / 20) AS n;
         INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, fencing_token, reason, errors)
         SELECT gen_random_uuid(), 'process_event', currval('users_id_seq'), ARRAY[n], 600, now(), 3, 3, 3, 'error', '[]'
         FROM generate_series(1, {events} / 20) AS n;
         INSERT INTO idempotency_keys (user_id, route, key, fingerprint, task_id, event_ids, replay)
         SELECT currval('users_id_seq'), '/api/v1/events', 'key ' || n, '', gen_random_uuid(), ARRAY[n], '{{}}'
         FROM generate_series(1, {events} / 20) AS n;"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&env.db).await?;
    Ok(())
}

/// The id of a user.
async fn id_of(env: &TestEnv, subject: &str) -> anyhow::Result<i64> {
    env.number(&format!("SELECT id FROM users WHERE subject = '{subject}'")).await
}

/// Number of rows of all tables that belong to the user with this id.
async fn rows_of(env: &TestEnv, id: i64) -> anyhow::Result<i64> {
    let tables = ["events", "tasks", "dead_tasks", "task_history", "idempotency_keys"];
    let tables = tables.map(|table| format!("(SELECT count(*) FROM {table} WHERE user_id = {id})"));
    env.number(&format!("SELECT {} + (SELECT count(*) FROM users WHERE id = {id})", tables.join(" + "))).await
}

/// Makes the API's knowledge of the user older than its cache, so that a deletion begins at once.
async fn disable_long_ago(env: &TestEnv, id: i64) -> anyhow::Result<()> {
    let sql = "UPDATE users SET disabled_at = now() - interval '1 minute' WHERE id = $1";
    sqlx::query(sql).bind(id).execute(&env.db).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_user_with_50_000_events_does_not_delay_another_user() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    insert_user(&env, "big", 50_000).await?;
    insert_user(&env, "other", 1000).await?;
    let (big, other) = (id_of(&env, "big").await?, id_of(&env, "other").await?);
    let others = rows_of(&env, other).await?;
    let alone = report(load(&env, &api, 100, 8)?).await?;
    let (code, output) = pulse_output(&env, &["user", "delete", "big"]).await?;
    assert!(code == 1 && output.contains("--yes"), "{output}");
    disable_long_ago(&env, big).await?;
    let beside = load(&env, &api, 100, 8)?;
    let started = Instant::now();
    let (code, output) = pulse_output(&env, &["user", "delete", "big", "--yes", "--json"]).await?;
    let took = started.elapsed();
    assert_eq!(code, 0, "{output}");
    let deleted: Value = serde_json::from_str(output.lines().find(|line| line.starts_with('{')).unwrap_or_default())?;
    let expected = json!({"events": 50_000, "tasks": 2500, "dead_tasks": 2500, "task_history": 50_000,
                          "idempotency_keys": 2500, "users": 1});
    assert_eq!((&deleted["user"], &deleted["deleted"]), (&json!("big"), &expected), "{output}");
    assert_eq!((rows_of(&env, big).await?, rows_of(&env, other).await?), (0, others));
    let beside = report(beside).await?;
    assert!(took < Duration::from_secs(60), "the deletion took {took:?}");
    assert_eq!((&alone["refused"], &beside["refused"]), (&json!({}), &json!({})));
    let p99 = |report: &Value| report["p99_ms"].as_f64().unwrap_or(f64::MAX);
    assert!(p99(&beside) < 3.0 * p99(&alone) + 200.0, "alone {alone}, beside a deletion {beside}");
    assert_eq!(pulse_output(&env, &["user", "delete", "big", "--yes"]).await?.0, 1, "there is no such user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_posted_during_a_deletion_are_deleted_or_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    client.post_event("a").await?;
    let id = id_of(&env, "ada").await?;
    let mut deletion = pulse(&env, &["user", "delete", "ada", "--yes", "--json"]).stdout(Stdio::piped()).spawn()?;
    let event = json!({"event_name": "a", "event_type": "t"});
    let mut statuses = vec![202];
    while deletion.try_wait()?.is_none() {
        statuses.push(client.post("/api/v1/events", &event).await?.status);
    }
    let output = deletion.wait_with_output().await?;
    let deleted: Value = serde_json::from_slice(&output.stdout)?;
    let accepted = statuses.iter().take_while(|status| **status == 202).count();
    assert!(statuses.contains(&403), "the disabled user is refused before the deletion: {statuses:?}");
    assert_eq!(deleted["deleted"]["events"], accepted, "all of {accepted} accepted events are deleted");
    assert_eq!(rows_of(&env, id).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_from_users_leaves_no_event_beside_concurrent_posts() -> anyhow::Result<()> {
    const ORPHANS: &str = "SELECT count(*) FROM events WHERE user_id NOT IN (SELECT id FROM users)";
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &[]).await?;
    let event = json!({"event_name": "a", "event_type": "t"});
    for round in 0..20 {
        let client = api.client(&format!("user-{round}"));
        let deletion = async {
            let accepted = async || Ok(env.number("SELECT count(*) FROM events").await? > 10);
            eventually("events are accepted", Duration::from_secs(10), accepted).await?;
            sqlx::query("DELETE FROM users").execute(&env.db).await?;
            env.number(ORPHANS).await
        };
        let posts = futures_util::future::select_all((0..8).map(|_| {
            Box::pin(async {
                loop {
                    match client.post("/api/v1/events", &event).await {
                        Ok(answer) if matches!(answer.status, 202 | 403 | 503) => {}
                        other => return format!("{other:?}"),
                    }
                }
            })
        }));
        tokio::select! {
            orphans = deletion => assert_eq!(orphans?, 0, "round {round}"),
            (answer, ..) = posts => anyhow::bail!(answer),
        }
    }
    api.client("ada").post_event("a").await?;
    let mut snapshot = env.db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let refused = sqlx::query("DELETE FROM users").execute(&mut *snapshot).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("READ COMMITTED, not REPEATABLE READ")));
    api.stop().await?;
    assert_eq!(env.number(ORPHANS).await?, 0, "no request was accepted after the deletion of its user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_deletion_continues_and_a_locked_row_is_waited_for() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    insert_user(&env, "ada", 20_000).await?;
    let id = id_of(&env, "ada").await?;
    disable_long_ago(&env, id).await?;
    let mut other = env.db.begin().await?;
    let locked = "SELECT FROM events WHERE id = (SELECT min(id) FROM events) FOR UPDATE";
    sqlx::query(locked).execute(&mut *other).await?;
    let delete = ["user", "delete", "ada", "--yes"];
    let mut first = pulse(&env, &delete).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let timeout = Duration::from_secs(30);
    let one_is_left = async || Ok(env.number("SELECT count(*) FROM events").await? == 1);
    eventually("only the locked event is left", timeout, one_is_left).await?;
    first.kill().await?;
    assert_eq!(env.number("SELECT count(*) FROM users").await?, 1, "the row of the user is last");
    let second = pulse(&env, &delete).stdout(Stdio::piped()).spawn()?;
    other.rollback().await?;
    let output = tokio::time::timeout(timeout, second.wait_with_output()).await??;
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line.split_whitespace().eq(["task_history", "20000"])), "{text}");
    assert_eq!(rows_of(&env, id).await?, 0);
    Ok(())
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
