//! All roles of `pulse` and the commands of administrators with the serving role.

use std::time::Duration;

use pulse_tests::{Client, Process, TestEnv, eventually, pulse_output, token};
use serde_json::json;

use super::{execute, migrate, migrated};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes all jobs due for the next scheduler that starts, with something to do for those that delete.
const JOBS_DUE: &str = "
    UPDATE idempotency_keys SET created_at = created_at - interval '2 days';
    INSERT INTO throughput (period, start, writer) VALUES ('minute', now() - interval '90 days', '');
    UPDATE jobs SET last_run_at = last_run_at - interval '1 day', last_outcome = NULL";
/// The partitions of the last month, which the scheduler creates again.
const DROP_PARTITIONS: &str = "DO $$ BEGIN
        EXECUTE 'DROP TABLE events' || to_char(now() AT TIME ZONE 'UTC' + interval '12 months', '\"_y\"YYYY\"m\"MM');
    END $$";
const PARTITIONS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
const JOBS_WITHOUT_SUCCESS: &str = "SELECT count(*) FROM jobs WHERE last_outcome IS DISTINCT FROM 'succeeded'";

async fn pulse(env: &TestEnv, args: &[&str]) -> anyhow::Result<String> {
    let (code, output) = pulse_output(env, args).await?;
    anyhow::ensure!(code == 0, "{args:?}: {output}");
    Ok(output)
}

/// Accepts, processes, retries, dead-letters, and acts on what is dead.
async fn tasks_pass(env: &TestEnv, api: &Process, console: &Process) -> anyhow::Result<()> {
    let client = api.client("ada");
    for name in ["page_view", "fail", "invalid", "panic"] {
        client.post_event(name).await?;
    }
    let batch = json!({ "events": [
        { "event_name": "a", "event_type": "t", "payload": {} },
        { "event_name": "invalid", "event_type": "t", "payload": {} },
    ] });
    let key = [("idempotency-key", "k")];
    let batch = client.send(http::Method::POST, "/api/v1/events/batch", &key, batch.to_string().into()).await?;
    assert_eq!(batch.status, 202, "{}", batch.text);
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks").await?, 4);
    assert_eq!(client.get("/api/v1/events?limit=10").await?.status, 200);

    let admin = Client::new(&console.url, &token("ops", Some("admin events:read")));
    let act = json!({ "do": "retry", "filter": "state:dead reason:invalid_payload", "reason": "fixed" });
    assert_eq!(admin.post("/api/v1/admin/acts", &act).await?.status, 202);
    let ended = "SELECT count(*) FROM audit_log WHERE action = 'tasks.retry' AND outcome = 'completed'";
    eventually("the act ends", TIMEOUT, async || Ok(env.number(ended).await? == 1)).await?;
    env.wait_until_settled(TIMEOUT).await?;
    for path in ["overview", "series", "tasks", "dead-letters", "workers", "schedules", "queue", "events", "audit"] {
        let answer = admin.get(&format!("/api/v1/admin/{path}")).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    Ok(())
}

async fn administrators_act(env: &TestEnv) -> anyhow::Result<()> {
    let dead: String = sqlx::query_scalar("SELECT id::text FROM dead_tasks LIMIT 1").fetch_one(&env.db).await?;
    for command in [
        &["user", "create", "grace"][..],
        &["user", "disable", "grace"],
        &["user", "enable", "grace"],
        &["user", "limit", "grace", "--requests-per-second", "5"],
        &["user", "list"],
        &["pause", "--because", "calm"],
        &["resume"],
        &["tasks", "list"],
        &["tasks", "inspect", &dead],
        &["why", &dead],
        &["tasks", "cancel", &dead],
        &["tasks", "cancel", "--all"],
        &["user", "export", "ada"],
        &["user", "hold", "ada"],
        &["user", "release", "ada"],
        &["user", "erase", "ada", "--yes"],
        &["check"],
    ] {
        pulse(env, command).await?;
    }
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 0, "the events go with their user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_role_runs_all_roles_and_commands_without_a_denied_statement() -> anyhow::Result<()> {
    let env = migrated().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "0.1"]).await?;
    let mut scheduler = Process::start(&env, "scheduler", &[]).await?;
    let console = Process::start(&env, "console", &[]).await?;
    tasks_pass(&env, &api, &console).await?;

    let partitions = env.number(PARTITIONS).await?;
    assert_eq!(scheduler.stop().await?, 0);
    execute(&env, DROP_PARTITIONS).await?;
    execute(&env, JOBS_DUE).await?;
    let later_scheduler = Process::start(&env, "scheduler", &[]).await?;
    let ran = async || Ok(env.number(JOBS_WITHOUT_SUCCESS).await? == 0);
    eventually("each job succeeds", TIMEOUT, ran).await?;
    assert_eq!(env.number(PARTITIONS).await?, partitions, "the scheduler creates partitions");
    assert_eq!(env.number("SELECT count(*) FROM idempotency_keys").await?, 0);

    // A later migration takes nothing away from running processes.
    migrate(&env).await?;
    administrators_act(&env).await?;
    for process in [api, worker, scheduler, later_scheduler, console] {
        let log = std::fs::read_to_string(&process.log)?;
        assert!(!log.contains("permission denied"), "{log}");
    }
    Ok(())
}
