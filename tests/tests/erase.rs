//! Erasure of a user, complete and interrupted, and users who are held.

use std::process::Stdio;
use std::time::Duration;

use pulse_tests::user_data::{TABLES, disable_long_ago, id_of, insert_user, rows_of, tables_with};
use pulse_tests::{Process, TestEnv, eventually, pulse, pulse_output};
use serde_json::{Value, json};

/// In rows of a user, and nowhere else.
const CANARY: &str = "c4n4ry-5d1e";
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn events_posted_during_an_erasure_are_erased_or_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    client.post_event("a").await?;
    let id = id_of(&env, "ada").await?;
    let mut erasure = pulse(&env, &["user", "erase", "ada", "--yes", "--json"]).stdout(Stdio::piped()).spawn()?;
    let event = json!({"event_name": "a", "event_type": "t"});
    let mut statuses = vec![202];
    while erasure.try_wait()?.is_none() {
        statuses.push(client.post("/api/v1/events", &event).await?.status);
    }
    let output = erasure.wait_with_output().await?;
    let receipt: Value = serde_json::from_slice(&output.stdout)?;
    let accepted = statuses.iter().take_while(|status| **status == 202).count();
    assert!(statuses.contains(&403), "the disabled user is refused before the end: {statuses:?}");
    assert_eq!(receipt["deleted"]["events"], accepted, "all of {accepted} accepted events are deleted");
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
async fn killed_erasure_continues_and_leaves_no_trace_but_the_audit_log() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    insert_user(&env, "ada", CANARY, 20_000).await?;
    insert_user(&env, "eve", "other", 2000).await?;
    let (id, other) = (id_of(&env, "ada").await?, id_of(&env, "eve").await?);
    let others = rows_of(&env, other).await?;
    disable_long_ago(&env, id).await?;
    let mut tables = TABLES;
    tables.sort_unstable();
    assert_eq!(tables_with(&env, CANARY).await?, tables);
    let mut blocker = env.db.begin().await?;
    let locked = format!("SELECT FROM events WHERE id = (SELECT min(id) FROM events WHERE user_id = {id}) FOR UPDATE");
    sqlx::query(sqlx::AssertSqlSafe(locked)).execute(&mut *blocker).await?;
    let erase = ["user", "erase", "ada", "--yes"];
    let mut first = pulse(&env, &erase).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let left = format!("SELECT count(*) FROM events WHERE user_id = {id}");
    let one_is_left = async || Ok(env.number(&left).await? == 1);
    eventually("only the locked event is left", TIMEOUT, one_is_left).await?;
    first.kill().await?;
    assert_eq!(env.number("SELECT count(*) FROM users").await?, 2, "the row of the user is last");
    let second = pulse(&env, &erase).stdout(Stdio::piped()).spawn()?;
    blocker.rollback().await?;
    let output = tokio::time::timeout(TIMEOUT, second.wait_with_output()).await??;
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().any(|line| line.split_whitespace().eq(["task_history", "20000"])), "{text}");
    assert_eq!((rows_of(&env, id).await?, rows_of(&env, other).await?), (0, others));
    assert_eq!(tables_with(&env, CANARY).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn receipt_of_an_erasure_says_what_the_audit_log_says() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    insert_user(&env, "ada", CANARY, 100).await?;
    let (code, output) = pulse_output(&env, &["user", "erase", "ada"]).await?;
    assert!(code == 1 && output.contains("--yes"), "{output}");
    let by = ["--actor", "grace", "--because", "ticket 7"];
    let (code, output) = pulse_output(&env, &[&["user", "erase", "ada", "--yes", "--json"], &by[..]].concat()).await?;
    assert_eq!(code, 0, "{output}");
    let receipt: Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    let audited =
        "SELECT json_build_object('user', target, 'act', act, 'actor', actor, 'reason', reason, 'count', count,
                       'finished_at', at, 'started_at', (SELECT at FROM audit_log WHERE action = 'user.disable'))
                   FROM audit_log WHERE action = 'user.erase'";
    let audited: Value = sqlx::query_scalar(audited).fetch_one(&env.db).await?;
    for field in ["user", "act", "actor", "reason"] {
        assert_eq!(receipt[field], audited[field], "{receipt}");
    }
    for field in ["started_at", "finished_at"] {
        let time = |value: &Value| value[field].as_str().map(chrono::DateTime::parse_from_rfc3339);
        assert_eq!(time(&receipt), time(&audited), "{receipt} {audited}");
    }
    let expected =
        json!({"events": 100, "tasks": 5, "dead_tasks": 5, "task_history": 100, "idempotency_keys": 5, "users": 1});
    assert_eq!((&receipt["deleted"], &audited["count"]), (&expected, &json!(216)));
    assert_eq!(pulse_output(&env, &["user", "erase", "ada", "--yes"]).await?.0, 1, "there is no such user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn held_user_is_not_erased_and_a_hold_stops_a_running_erasure() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    insert_user(&env, "ada", CANARY, 100).await?;
    let id = id_of(&env, "ada").await?;
    disable_long_ago(&env, id).await?;
    let user = async |command: &str| pulse_output(&env, &["user", command, "ada"]).await;
    let erase = ["user", "erase", "ada", "--yes"];
    let before = rows_of(&env, id).await?;
    assert_eq!(user("hold").await?.0, 0);
    let (code, output) = pulse_output(&env, &erase).await?;
    assert!(code == 1 && output.contains("is held since") && output.contains("pulse user release"), "{output}");
    let deleted = sqlx::query("DELETE FROM users").execute(&env.db).await;
    assert!(deleted.is_err_and(|error| error.to_string().contains("is held")), "also not by hand");
    assert_eq!(rows_of(&env, id).await?, before);
    let (_, list) = pulse_output(&env, &["user", "list", "--json"]).await?;
    let listed: Value = serde_json::from_str(list.trim())?;
    assert!(listed["held_at"].is_string(), "{list}");
    assert_eq!(pulse_output(&env, &["user", "hold", "gone"]).await?.0, 1, "there is no such user");

    assert_eq!(user("release").await?.0, 0);
    let mut blocker = env.db.begin().await?;
    sqlx::query("SELECT FROM events WHERE id = (SELECT min(id) FROM events) FOR UPDATE").execute(&mut *blocker).await?;
    let erasure = pulse(&env, &erase).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let one_is_left = async || Ok(env.number("SELECT count(*) FROM events").await? == 1);
    eventually("only the locked event is left", TIMEOUT, one_is_left).await?;
    assert_eq!(user("hold").await?.0, 0);
    blocker.rollback().await?;
    let output = tokio::time::timeout(TIMEOUT, erasure.wait_with_output()).await??;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("is held since"), "{error}");
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 1, "nothing is deleted after the hold");
    assert_eq!(env.number("SELECT count(*) FROM task_history").await?, 100);

    assert_eq!(user("release").await?.0, 0);
    let (code, output) = pulse_output(&env, &erase).await?;
    assert_eq!((code, rows_of(&env, id).await?), (0, 0), "{output}");
    Ok(())
}
