//! The promise under faults: each event that was answered 202 is stored once, and processed exactly once or buried with
//! a reason, whatever dies meanwhile. The load client syncs every 202 to a ledger of its own.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually, load, report};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(15);
/// A lease of 30 s and a sweep.
const AFTER_A_CRASH: Duration = Duration::from_secs(45);

/// Whether every request that was not accepted was answered 503.
fn refused_only_with_503(report: &Value) -> bool {
    report["refused"].as_object().into_iter().flatten().all(|(code, _)| code == "503")
}

async fn promised(world: &TestEnv, at_least: usize) -> anyhow::Result<()> {
    let ledger = world.file("ledger");
    eventually("promises are made", SOON, async || {
        Ok(std::fs::read_to_string(&ledger).unwrap_or_default().lines().count() >= at_least)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_task_runs_again_within_45_seconds() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let doomed = Process::start(&world, "worker", &[]).await?;
    let client = api.client("ada");
    let accepted = client.post("/api/v1/events", &json!({"event_name": "sleep:3000", "event_type": "t"})).await?;
    let path = format!("/api/v1/tasks/{}", accepted.json["task_id"].as_str().unwrap_or_default());
    eventually("the task runs", SOON, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    doomed.kill().await?;
    let killed = Instant::now();
    let _other = Process::start(&world, "worker", &[]).await?;
    eventually("it runs again", AFTER_A_CRASH, async || Ok(client.get(&path).await?.json["attempts"] == 2)).await?;
    assert!(killed.elapsed() < AFTER_A_CRASH);
    eventually("it is processed", SOON, async || Ok(client.get(&path).await?.json["state"] == "completed")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_from_a_long_pause_cannot_settle() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let zombie = Process::start(&world, "worker", &[]).await?;
    let client = api.client("ada");
    let accepted = client.post("/api/v1/events", &json!({"event_name": "sleep:2000", "event_type": "t"})).await?;
    let path = format!("/api/v1/tasks/{}", accepted.json["task_id"].as_str().unwrap_or_default());
    eventually("the task runs", SOON, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    zombie.signal(Signal::STOP)?;
    let _other = Process::start(&world, "worker", &[]).await?;
    eventually("another worker has processed it", Duration::from_secs(60), async || {
        Ok(client.get(&path).await?.json["state"] == "completed")
    })
    .await?;
    let processed_at = world.number("SELECT (extract(epoch FROM processed_at) * 1000000)::bigint FROM events").await?;
    zombie.signal(Signal::CONT)?;
    eventually("its settlement is refused", SOON, async || {
        Ok(zombie.metric("pulse_stale_settlements_total").await? == 1.0)
    })
    .await?;
    let still = world.number("SELECT (extract(epoch FROM processed_at) * 1000000)::bigint FROM events").await?;
    assert_eq!(still, processed_at, "the stale worker changed the event");
    assert_eq!(world.number("SELECT count(*) FROM task_history").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_killed_under_load_breaks_no_promise() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let posting = load(&world, &api, 500, 4)?;
    promised(&world, 500).await?;
    api.kill().await?;
    report(posting).await?;
    // Committed, and never told to Redis: the sweep finds it 10 s later.
    world.settled(Duration::from_secs(25)).await?;
    assert!(world.check_ledger("ledger").await? >= 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_killed_between_commit_and_enqueue_owes_the_task_all_the_same() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    // A frozen Redis takes the entry and never answers: the API has committed, and has not been able to enqueue.
    world.signal_redis(Signal::STOP)?;
    let event = json!({"event_name": "a", "event_type": "t"});
    let accepted = api.client("ada").post("/api/v1/events", &event).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    api.kill().await?;
    world.signal_redis(Signal::KILL)?;
    assert_eq!(world.number("SELECT count(*) FROM tasks").await?, 1);
    let mut world = world;
    world.lose_redis().await?;
    world.start_redis().await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    world.settled(Duration::from_secs(15)).await?;
    assert_eq!(world.number("SELECT count(*) FROM events WHERE processed").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_emptied_under_load_loses_nothing() -> anyhow::Result<()> {
    let mut world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let posting = load(&world, &api, 500, 8)?;
    promised(&world, 500).await?;
    world.lose_redis().await?;
    let at_the_loss = world.number("SELECT count(*) FROM events").await?;
    eventually("202s continue without Redis", SOON, async || {
        Ok(world.number("SELECT count(*) FROM events").await? > at_the_loss + 500)
    })
    .await?;
    let admin = api.admin();
    eventually("readyz says degraded", SOON, async || Ok(admin.get("/readyz").await?.json["status"] == "degraded"))
        .await?;
    assert_eq!(admin.get("/readyz").await?.status, 200);
    let settled = worker.metric("pulse_tasks_settled_total{outcome=\"completed\"}").await?;
    eventually("workers poll PostgreSQL", SOON, async || {
        Ok(worker.metric("pulse_tasks_settled_total{outcome=\"completed\"}").await? > settled + 100.0)
    })
    .await?;
    assert!(api.metric("pulse_enqueues_dropped_total").await? > 0.0);
    world.start_redis().await?;
    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    world.settled(SOON).await?;
    assert_eq!(Some(world.check_ledger("ledger").await? as u64), report["accepted_events"].as_u64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_out_of_memory_loses_nothing() -> anyhow::Result<()> {
    let world = TestEnv::with_redis_setting("maxmemory", "1mb").await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let report = report(load(&world, &api, 300, 4)?).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    world.settled(Duration::from_secs(25)).await?;
    assert_eq!(Some(world.check_ledger("ledger").await? as u64), report["accepted_events"].as_u64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashed_under_load_answers_503_and_recovers_within_10_seconds() -> anyhow::Result<()> {
    let mut world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let posting = load(&world, &api, 300, 10)?;
    promised(&world, 300).await?;
    world.crash_postgres().await?;
    let client = api.client("ada");
    let event = json!({"event_name": "a", "event_type": "t"});
    eventually("503 says when to come again", SOON, async || {
        let answer = client.post("/api/v1/events", &event).await?;
        Ok(answer.status == 503 && answer.headers.contains_key("retry-after"))
    })
    .await?;
    world.start_postgres().await?;
    eventually("202 again", Duration::from_secs(10), async || {
        Ok(client.post("/api/v1/events", &event).await?.status == 202)
    })
    .await?;
    let report = report(posting).await?;
    assert!(refused_only_with_503(&report), "{report}");
    world.settled(Duration::from_secs(60)).await?;
    assert!(world.check_ledger("ledger").await? >= 300);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ended_while_nobody_posted_cost_no_request() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let client = api.client("ada");
    let event = json!({"event_name": "a", "event_type": "t"});
    // Enough for each lane to have had one.
    for _ in 0..8 {
        assert_eq!(client.post("/api/v1/events", &event).await?.status, 202);
    }
    let accepting = "application_name LIKE 'pulse api%' AND query NOT LIKE '%SELECT 1%'";
    let busy = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {accepting} AND state_change > now() - interval '1500 ms'"
    );
    eventually("the lanes have rested", SOON, async || Ok(world.number(&busy).await? == 0)).await?;
    let ended = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {accepting}");
    assert!(world.number(&ended).await? > 0);
    for _ in 0..8 {
        let answer = client.post("/api/v1/events", &event).await?;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_terminated_at_random_cost_only_503s() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let mut posting = load(&world, &api, 300, 8)?;
    let mut terminated = 0;
    while posting.try_wait()?.is_none() {
        let victim = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                      WHERE application_name LIKE 'pulse %' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) AS victim";
        terminated += world.number(victim).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(terminated > 20, "{terminated} backends terminated");
    let report = report(posting).await?;
    assert!(refused_only_with_503(&report), "{report}");
    world.settled(Duration::from_secs(60)).await?;
    world.check_ledger("ledger").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_tasks_hurt_only_themselves() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let timeout = ["--task-timeout", "1s", "--retry-base", "0.1"];
    let worker = Process::start(&world, "worker", &timeout).await?;
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
        let accepted = client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
        poison.push((accepted.json["task_id"].as_str().unwrap_or_default().to_owned(), reason, attempts));
    }
    let mut events = vec![json!({"event_name": "good", "event_type": "t"}); 99];
    events.insert(50, json!({"event_name": "fail", "event_type": "t"}));
    let batch = client.post("/api/v1/events/batch", &json!({ "events": events })).await?;
    poison.push((batch.json["task_id"].as_str().unwrap_or_default().to_owned(), "error", 3));
    let good = client
        .post("/api/v1/events/batch", &json!({"events": vec![json!({"event_name": "good", "event_type": "t"}); 100]}))
        .await?;

    world.settled(Duration::from_secs(60)).await?;
    for (task_id, reason, attempts) in &poison {
        let task = client.get(&format!("/api/v1/tasks/{task_id}")).await?.json;
        let last = &task["errors"][usize::try_from(*attempts)? - 1];
        assert_eq!((task["state"].as_str(), last["reason"].as_str()), (Some("dead"), Some(*reason)), "{task}");
    }
    let done = client.get(&format!("/api/v1/tasks/{}", good.json["task_id"].as_str().unwrap_or_default())).await?;
    assert_eq!(done.json["state"], "completed");
    let atomic = "SELECT count(*) FROM events WHERE event_name = 'good' AND processed";
    assert_eq!(world.number(atomic).await?, 100, "a batch is processed whole or not at all");
    let stats = client.get("/api/v1/events/status/unprocessed").await?.json;
    assert_eq!((stats["failed_count"].as_i64(), stats["unprocessed_count"].as_i64()), (Some(106), Some(106)));
    assert_eq!(worker.admin().get("/livez").await?.status, 503, "a step that never yields wants a restart");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_each_tick_is_fired_once_though_the_leader_is_paused() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    sqlx::raw_sql(
        "CREATE TABLE fired (name text, tick timestamptz, term bigint);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO fired VALUES (NEW.name, NEW.last_tick, NEW.term); RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE OF last_tick ON schedules FOR EACH ROW EXECUTE FUNCTION note();",
    )
    .execute(&world.db)
    .await?;
    let first = Process::start(&world, "scheduler", &[]).await?;
    eventually("the first leads", SOON, async || Ok(first.metric("pulse_scheduler_leader").await? == 1.0)).await?;
    let second = Process::start(&world, "scheduler", &[]).await?;
    eventually("it fires", SOON, async || Ok(world.number("SELECT count(*) FROM fired").await? > 3)).await?;
    first.signal(Signal::STOP)?;
    eventually("the second takes over", Duration::from_secs(30), async || {
        Ok(second.metric("pulse_scheduler_leader").await? == 1.0)
    })
    .await?;
    first.signal(Signal::CONT)?;
    eventually("the first knows that it lost the lead", SOON, async || {
        Ok(first.metric("pulse_scheduler_leader").await? == 0.0)
    })
    .await?;
    let ticks = world.number("SELECT count(*) FROM fired").await?;
    eventually("ticks go on", SOON, async || Ok(world.number("SELECT count(*) FROM fired").await? > ticks + 5)).await?;
    let row = sqlx::query("SELECT count(*), count(DISTINCT (name, tick)), count(DISTINCT term) FROM fired")
        .fetch_one(&world.db)
        .await?;
    let [fired, distinct, terms]: [i64; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
    assert_eq!((fired, terms), (distinct, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_stopped_under_load_fail_no_request_and_use_up_no_attempt() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let mut api = Process::start(&world, "api", &["--drain-delay", "8s"]).await?;
    let mut worker = Process::start(&world, "worker", &["--drain-timeout", "1s"]).await?;
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    let client = api.client("ada");
    let slow = client.post("/api/v1/events", &json!({"event_name": "sleep:8000", "event_type": "t"})).await?;
    let path = format!("/api/v1/tasks/{}", slow.json["task_id"].as_str().unwrap_or_default());
    eventually("the slow task runs", SOON, async || Ok(client.get(&path).await?.json["state"] == "running")).await?;
    // The load ends while the API, told to stop, still accepts: load balancers need that long to take notice.
    let posting = load(&world, &api, 300, 4)?;
    promised(&world, 200).await?;
    assert_eq!(worker.stop().await?, 0);
    let task = client.get(&path).await?.json;
    assert_eq!((task["attempts"].as_i64(), task["errors"].as_array().map(Vec::len)), (Some(0), Some(0)), "{task}");
    let (report, code) = tokio::join!(report(posting), api.stop());
    assert_eq!(code?, 0);
    let report = report?;
    assert_eq!(report["refused"], json!({}), "{report}");
    let _again = Process::start(&world, "worker", &[]).await?;
    world.settled(Duration::from_secs(30)).await?;
    world.check_ledger("ledger").await?;
    Ok(())
}
