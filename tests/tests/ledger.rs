//! Guarantees under faults: each event that was accepted with a 202 is stored once, and processed exactly once or
//! dead-lettered with a reason, when any process dies meanwhile. The load client syncs every 202 to a ledger file.

#![expect(clippy::print_stdout, reason = "the tests print how long a recovery takes")]

use std::time::Duration;

use anyhow::Context;
use pulse_tests::{Process, TestEnv, eventually, load, report};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Lease of 30 s, and the requeue after it.
const CRASH_RECOVERY_TIMEOUT: Duration = Duration::from_secs(45);

/// Whether every refused request got a 503.
fn refused_only_with_503(report: &Value) -> bool {
    report["refused"].as_object().into_iter().flatten().all(|(code, _)| code == "503")
}

async fn wait_for_accepted(env: &TestEnv, at_least: usize) -> anyhow::Result<()> {
    let ledger = env.file("ledger");
    eventually("events are accepted", TIMEOUT, async || {
        Ok(std::fs::read_to_string(&ledger).unwrap_or_default().lines().count() >= at_least)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_worker_task_runs_again_within_45_seconds() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let killed_worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let path = format!("/api/v1/tasks/{}", client.post_event("sleep:3000").await?);
    eventually("the task runs", TIMEOUT, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    let first = env.number("SELECT fencing_token FROM tasks").await?;
    killed_worker.kill().await?;
    let killed_at = Instant::now();
    let _other = Process::start(&env, "worker", &[]).await?;
    eventually("the task runs again", CRASH_RECOVERY_TIMEOUT, async || {
        let running = client.get(&path).await?.json["state"] == "running";
        Ok(running && env.number("SELECT fencing_token FROM tasks").await? != first)
    })
    .await?;
    println!("killed worker: its task runs again after {:.1?}", killed_at.elapsed());
    assert!(killed_at.elapsed() < CRASH_RECOVERY_TIMEOUT);
    eventually("the task is completed", TIMEOUT, async || Ok(client.get(&path).await?.json["state"] == "completed"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_worker_cannot_settle_after_its_lease_expired() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let paused = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let path = format!("/api/v1/tasks/{}", client.post_event("sleep:2000").await?);
    // The state is `running` before the worker has PostgreSQL's answer to its claim.
    let runs = async || Ok(paused.metric("pulse_worker_in_flight_tasks").await? == 1.0);
    eventually("the task runs", TIMEOUT, runs).await?;
    paused.signal(Signal::STOP)?;
    let _other = Process::start(&env, "worker", &[]).await?;
    eventually("another worker has completed the task", Duration::from_secs(60), async || {
        Ok(client.get(&path).await?.json["state"] == "completed")
    })
    .await?;
    let processed_at = env.number("SELECT (extract(epoch FROM processed_at) * 1000000)::bigint FROM events").await?;
    paused.signal(Signal::CONT)?;
    let refused = async || Ok(paused.metric("pulse_stale_settlements_total").await? == 1.0);
    let refused = eventually("the stale settlement is refused", TIMEOUT, refused).await;
    refused.with_context(|| std::fs::read_to_string(&paused.log).unwrap_or_default())?;
    let still = env.number("SELECT (extract(epoch FROM processed_at) * 1000000)::bigint FROM events").await?;
    assert_eq!(still, processed_at, "the stale worker changed the event");
    assert_eq!(env.number("SELECT count(*) FROM task_history").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_killed_under_load_loses_no_accepted_event() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, 500, 4)?;
    wait_for_accepted(&env, 500).await?;
    api.kill().await?;
    let killed_at = Instant::now();
    report(posting).await?;
    // Tasks that were committed but not enqueued are requeued 10 s later.
    env.wait_until_settled(Duration::from_secs(25)).await?;
    println!("killed API: its last task is settled after {:.1?}", killed_at.elapsed());
    assert!(env.check_ledger("ledger").await? >= 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_killed_between_commit_and_enqueue_loses_no_task() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    // A stopped Redis never responds: the API has committed the task and cannot enqueue it.
    env.signal_redis(Signal::STOP)?;
    let event = json!({"event_name": "a", "event_type": "t"});
    let accepted = api.client("ada").post("/api/v1/events", &event).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    api.kill().await?;
    env.signal_redis(Signal::KILL)?;
    assert_eq!(env.number("SELECT count(*) FROM tasks").await?, 1);
    let mut env = env;
    env.kill_and_wipe_redis().await?;
    env.start_redis().await?;
    let started_at = Instant::now();
    let _worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(Duration::from_secs(15)).await?;
    println!(
        "killed API: the task that it did not enqueue is settled {:.1?} after Redis is back",
        started_at.elapsed()
    );
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_emptied_under_load_loses_nothing() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let [api, worker, _scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, 500, 8)?;
    wait_for_accepted(&env, 500).await?;
    env.kill_and_wipe_redis().await?;
    let events_at_loss = env.number("SELECT count(*) FROM events").await?;
    eventually("202s continue without Redis", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM events").await? > events_at_loss + 500)
    })
    .await?;
    let admin = api.admin();
    eventually("readyz reports degraded", TIMEOUT, async || {
        Ok(admin.get("/readyz").await?.json["status"] == "degraded")
    })
    .await?;
    assert_eq!(admin.get("/readyz").await?.status, 200);
    let settled = worker.metric("pulse_tasks_settled_total{outcome=\"completed\"}").await?;
    eventually("workers poll PostgreSQL", TIMEOUT, async || {
        Ok(worker.metric("pulse_tasks_settled_total{outcome=\"completed\"}").await? > settled + 100.0)
    })
    .await?;
    assert!(api.metric("pulse_enqueues_dropped_total").await? > 0.0);
    env.start_redis().await?;
    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(Some(env.check_ledger("ledger").await? as u64), report["accepted_events"].as_u64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_out_of_memory_loses_nothing() -> anyhow::Result<()> {
    let env = TestEnv::with_redis_setting("maxmemory", "1mb").await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let report = report(load(&env, &api, 300, 4)?).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    env.wait_until_settled(Duration::from_secs(25)).await?;
    assert_eq!(Some(env.check_ledger("ledger").await? as u64), report["accepted_events"].as_u64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crash_is_answered_503_and_recovers_within_10_seconds() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, 300, 10)?;
    wait_for_accepted(&env, 300).await?;
    env.crash_postgres().await?;
    let client = api.client("ada");
    let event = json!({"event_name": "a", "event_type": "t"});
    eventually("a 503 has Retry-After", TIMEOUT, async || {
        let answer = client.post("/api/v1/events", &event).await?;
        Ok(answer.status == 503 && answer.headers.contains_key("retry-after"))
    })
    .await?;
    env.start_postgres().await?;
    let started_at = Instant::now();
    eventually("events are accepted again", Duration::from_secs(10), async || {
        Ok(client.post("/api/v1/events", &event).await?.status == 202)
    })
    .await?;
    println!("crashed PostgreSQL: events are accepted {:.1?} after its start", started_at.elapsed());
    let report = report(posting).await?;
    assert!(refused_only_with_503(&report), "{report}");
    env.wait_until_settled(Duration::from_secs(60)).await?;
    assert!(env.check_ledger("ledger").await? >= 300);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_closed_by_postgresql_cost_no_request() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let event = json!({"event_name": "a", "event_type": "t"});
    // Enough requests for every dedicated connection to be used.
    for _ in 0..8 {
        assert_eq!(client.post("/api/v1/events", &event).await?.status, 202);
    }
    let accepting = "application_name LIKE 'pulse api%' AND query NOT LIKE '%SELECT 1%'";
    let busy = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {accepting} AND state_change > now() - interval '1500 ms'"
    );
    eventually("the dedicated connections are idle", TIMEOUT, async || Ok(env.number(&busy).await? == 0)).await?;
    let terminate = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {accepting}");
    assert!(env.number(&terminate).await? > 0);
    for _ in 0..8 {
        let answer = client.post("/api/v1/events", &event).await?;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_backends_terminated_at_random_cost_only_503s() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let mut posting = load(&env, &api, 300, 8)?;
    let mut terminated = 0;
    while posting.try_wait()?.is_none() {
        let victim = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                      WHERE application_name LIKE 'pulse %' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS victim";
        terminated += env.number(victim).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(terminated > 20, "{terminated} backends terminated");
    let report = report(posting).await?;
    assert!(refused_only_with_503(&report), "{report}");
    env.wait_until_settled(Duration::from_secs(60)).await?;
    env.check_ledger("ledger").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_tasks_do_not_affect_other_tasks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let timeout = ["--task-timeout", "1s", "--retry-base", "0.1"];
    let worker = Process::start(&env, "worker", &timeout).await?;
    let client = api.client("ada");
    let mut poison = Vec::new();
    for (name, reason, attempts) in [
        ("panic", "panic", 3),
        ("sleep:60000", "timeout", 3),
        ("spin", "timeout", 3),
        ("constraint", "constraint", 3),
        ("fail", "error", 3),
        ("invalid", "invalid_payload", 1),
    ] {
        poison.push((client.post_event(name).await?, reason, attempts));
    }
    let mut events = vec![json!({"event_name": "good", "event_type": "t"}); 99];
    events.insert(50, json!({"event_name": "fail", "event_type": "t"}));
    let batch = client.post("/api/v1/events/batch", &json!({ "events": events })).await?;
    assert_eq!(batch.status, 202, "{}", batch.text);
    let good = client
        .post("/api/v1/events/batch", &json!({"events": vec![json!({"event_name": "good", "event_type": "t"}); 100]}))
        .await?;

    env.wait_until_settled(Duration::from_secs(60)).await?;
    for (task_id, reason, attempts) in &poison {
        let task = client.get(&format!("/api/v1/tasks/{task_id}")).await?.json;
        let last = &task["errors"][usize::try_from(*attempts)? - 1];
        assert_eq!((task["state"].as_str(), last["reason"].as_str()), (Some("dead"), Some(*reason)), "{task}");
    }
    let done = client.get(&format!("/api/v1/tasks/{}", good.json["task_id"].as_str().unwrap_or_default())).await?;
    assert_eq!(done.json["state"], "completed");
    let completed = "SELECT count(*) FROM events WHERE event_name = 'good' AND processed";
    assert_eq!(env.number(completed).await?, 199, "one failed event of a batch fails no other");
    let stats = client.get("/api/v1/events/status/unprocessed").await?.json;
    assert_eq!((stats["failed_count"].as_i64(), stats["unprocessed_count"].as_i64()), (Some(7), Some(7)));
    assert_eq!(
        worker.admin().get("/livez").await?.status,
        503,
        "a processor that never yields makes the worker not live"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduler_jobs_start_once_per_due_time_when_the_leader_is_paused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    sqlx::raw_sql(
        "CREATE TABLE runs (name text, run_at timestamptz, term bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO runs SELECT NEW.name, NEW.last_run_at, term FROM leases WHERE leases.name = 'scheduler'; RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE OF last_run_at ON jobs FOR EACH ROW EXECUTE FUNCTION note();",
    )
    .execute(&env.db)
    .await?;
    let first = Process::start(&env, "scheduler", &[]).await?;
    eventually("the first scheduler leads", TIMEOUT, async || Ok(first.metric("pulse_scheduler_leader").await? == 1.0))
        .await?;
    let second = Process::start(&env, "scheduler", &[]).await?;
    eventually("jobs run", TIMEOUT, async || Ok(env.number("SELECT count(*) FROM runs").await? > 3)).await?;
    first.signal(Signal::STOP)?;
    eventually("the second scheduler leads", Duration::from_secs(30), async || {
        Ok(second.metric("pulse_scheduler_leader").await? == 1.0)
    })
    .await?;
    first.signal(Signal::CONT)?;
    eventually("the first scheduler does not lead", TIMEOUT, async || {
        Ok(first.metric("pulse_scheduler_leader").await? == 0.0)
    })
    .await?;
    let runs = env.number("SELECT count(*) FROM runs").await?;
    eventually("jobs continue", TIMEOUT, async || Ok(env.number("SELECT count(*) FROM runs").await? > runs + 5))
        .await?;
    let row = sqlx::query("SELECT count(*), count(DISTINCT (name, run_at)), count(DISTINCT term) FROM runs")
        .fetch_one(&env.db)
        .await?;
    let [runs, distinct, terms]: [i64; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
    assert_eq!((runs, terms), (distinct, 2));
    let ended = "SELECT count(*) FROM jobs WHERE last_outcome = 'succeeded' AND next_run_at > last_run_at \
                 AND last_duration_ms IS NOT NULL";
    assert!(env.number(ended).await? >= 3, "requeue, gauges and deliveries have run");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_stop_under_load_fails_no_request_and_uses_no_attempt() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &["--drain-delay", "8s"]).await?;
    let mut worker = Process::start(&env, "worker", &["--drain-timeout", "1s"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let client = api.client("ada");
    let path = format!("/api/v1/tasks/{}", client.post_event("sleep:8000").await?);
    eventually("the slow task runs", TIMEOUT, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    // The load ends during the drain delay, in which the API still accepts, because load balancers need time to react.
    let posting = load(&env, &api, 300, 4)?;
    wait_for_accepted(&env, 200).await?;
    assert_eq!(worker.stop().await?, 0);
    let task = client.get(&path).await?.json;
    assert_eq!((task["attempts"].as_i64(), task["errors"].as_array().map(Vec::len)), (Some(0), Some(0)), "{task}");
    let (report, code) = tokio::join!(report(posting), api.stop());
    assert_eq!(code?, 0);
    let report = report?;
    assert_eq!(report["refused"], json!({}), "{report}");
    let _second_worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(Duration::from_secs(30)).await?;
    env.check_ledger("ledger").await?;
    Ok(())
}
