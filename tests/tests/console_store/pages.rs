//! Pages of tasks and events, search, and what the scheduler measures.

use pulse_store::console::{Matched, PageFilter, TailFilter};
use pulse_tests::{Process, TestEnv, eventually};
use uuid::Uuid;

use crate::{TIMEOUT, store};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Completed, retrying, dead and completed tasks of ada, a completed one of bob, and a pending one of ada.
async fn tasks_in_all_states(env: &TestEnv, api: &Process) -> anyhow::Result<Vec<Uuid>> {
    let worker = Process::start(env, "worker", &["--retry-base", "1000"]).await?;
    let (ada, bob) = (api.client("ada"), api.client("bob"));
    let mut all: Vec<Uuid> = Vec::new();
    for name in ["good", "fail", "invalid", "good"] {
        all.push(ada.post_event(name).await?.parse()?);
    }
    all.push(bob.post_event("good").await?.parse()?);
    eventually("four are settled", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks").await? == 1
            && env.number("SELECT count(*) FROM tasks WHERE attempts = 1").await? == 1)
    })
    .await?;
    worker.kill().await?;
    all.push(ada.post_event("late").await?.parse()?);
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_all_tables_are_paged_newest_first() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut all = tasks_in_all_states(&env, &api).await?;
    let store = store(&env)?;
    let mut paged = Vec::new();
    let mut below = None;
    loop {
        let page = store.task_page(&PageFilter::default(), below, 2).await?;
        paged.extend(page.tasks.iter().map(|task| task.id));
        below = page.next;
        if below.is_none() {
            break;
        }
    }
    all.reverse();
    assert_eq!(paged, all);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_filtered_by_state_user_event_error_and_time() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let all = tasks_in_all_states(&env, &api).await?;
    let store = store(&env)?;
    let state = |state: &str| PageFilter { states: vec![state.into()], ..PageFilter::default() };
    let bob = env.number("SELECT id FROM users WHERE subject = 'bob'").await?;
    let dead = store.task_page(&state("dead"), None, 1).await?.tasks.remove(0);
    let error = dead.error.expect("a dead task has an error");
    let error_is = |prefix: &str, reason: &Option<String>| PageFilter {
        error_prefix: Some(prefix.into()),
        reason: reason.clone(),
        ..PageFilter::default()
    };
    let hour_ago = chrono::Utc::now() - chrono::TimeDelta::hours(1);
    for (filter, expected) in [
        (state("retrying"), vec![all[1]]),
        (state("dead"), vec![all[2]]),
        (state("pending"), vec![all[5]]),
        (state("completed"), vec![all[4], all[3], all[0]]),
        (PageFilter { user_id: Some(bob), ..PageFilter::default() }, vec![all[4]]),
        (PageFilter { event_name: Some("fail".into()), ..PageFilter::default() }, vec![all[1]]),
        (error_is(&error[..4], &dead.reason), vec![all[2]]),
        (error_is("no such", &None), vec![]),
        (PageFilter { until: Some(hour_ago), ..PageFilter::default() }, vec![]),
        (PageFilter { since: Some(hour_ago), ..state("dead") }, vec![all[2]]),
    ] {
        let found = store.task_page(&filter, None, 100).await?;
        assert_eq!(found.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let detail = store.task_detail(None, all[2]).await?.expect("the dead task is there");
    assert_eq!((detail.user.as_deref(), detail.same_error, detail.events.len()), (Some("ada"), Some(1), 1));
    assert!(detail.task.errors.len() == 1 && detail.events[0].processing_error.is_some(), "{detail:?}");
    assert!(store.task_detail(Some(bob), all[2]).await?.is_none(), "the task of another user");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn task_is_found_by_each_of_its_ids_in_each_table() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let bob = api.client("bob");
    bob.post_event("good").await?;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("x-request-id", "shop-7"), ("traceparent", traceparent.as_str())];
    let store = store(&env)?;
    let other = env.number("SELECT id FROM users WHERE subject = 'bob'").await?;
    for (state, name) in [("pending", "good"), ("completed", "good"), ("dead", "invalid")] {
        sqlx::raw_sql("TRUNCATE tasks, dead_tasks, task_history").execute(&env.db).await?;
        let body = format!(r#"{{"event_name": "{name}", "event_type": "t"}}"#);
        let answer = api.client("ada").send(http::Method::POST, "/api/v1/events", &headers, body.into()).await?;
        let (id, event_id) = (answer.json["task_id"].as_str().unwrap_or_default(), answer.json["event_id"].to_string());
        if state != "pending" {
            let worker = Process::start(&env, "worker", &[]).await?;
            env.wait_until_settled(TIMEOUT).await?;
            worker.kill().await?;
        }
        assert_eq!(store.task_detail(None, id.parse()?).await?.map(|detail| detail.task.state).as_deref(), Some(state));
        for (text, matched) in [
            (id, Matched::Task),
            (&event_id, Matched::Event),
            ("shop-7", Matched::Request),
            (TRACE, Matched::Trace),
            (&traceparent, Matched::Trace),
        ] {
            let hits = store.search(text, None).await?;
            let found: Vec<(Matched, String)> = hits.iter().map(|hit| (hit.matched, hit.task_id.to_string())).collect();
            assert_eq!(found, [(matched, id.to_owned())], "{text} of the {state} task");
            assert!(store.search(text, Some(other)).await?.is_empty(), "another user must not find {text}");
        }
    }
    assert!(store.search("nothing", None).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rare_task_is_found_behind_many_others() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let store = store(&env)?;
    sqlx::raw_sql(
        "INSERT INTO users (subject) VALUES ('ada'), ('bob');
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'process_event', 1 + (n = 1)::int, ARRAY[n], 'completed', 1, '[]', now()
         FROM generate_series(1, 50000) AS n",
    )
    .execute(&env.db)
    .await?;
    let bob = PageFilter { user_id: Some(2), ..PageFilter::default() };
    // Each page takes at least one step of 10,000 rows.
    let mut found = Vec::new();
    let mut below = None;
    for _ in 0..6 {
        let page = store.task_page(&bob, below, 10).await?;
        found.extend(page.tasks.iter().map(|task| task.id));
        below = page.next;
        if below.is_none() {
            break;
        }
    }
    assert_eq!((found, below), (vec![Uuid::from_u128(1)], None));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_gauges_jobs_and_queue_are_shown() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    for name in ["a", "b", "a"] {
        client.post_event(name).await?;
    }
    let store = store(&env)?;
    let all = TailFilter::default();
    let first = store.event_tail(&all, None, 2).await?;
    let names: Vec<&str> = first.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let rest = store.event_tail(&all, first.next, 2).await?;
    assert_eq!((rest.events.len(), rest.next), (1, None));
    assert_eq!(first.events[0].user.as_deref(), Some("ada"));
    client.post_event("c").await?;
    let only = TailFilter { event_name: Some("b".into()), ..TailFilter::default() };
    assert_eq!(store.event_tail(&only, None, 10).await?.events.len(), 1);

    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    eventually("the scheduler has measured", TIMEOUT, async || {
        let queue = store.queue_view().await?;
        Ok(queue.gauges.is_some_and(|gauges| gauges.pending == 4 && gauges.undelivered == Some(4)))
    })
    .await?;
    let queue = store.queue_view().await?;
    assert_eq!((queue.drift, queue.refused_last_hour), (Some(0), 0));
    assert_eq!(store.state_counts().await?.pending, 4);
    let schedules = store.schedules().await?;
    assert!(schedules.leader.is_some() && schedules.jobs.iter().any(|job| job.name == "fold_throughput"));
    assert!(serde_json::to_string(&store.overview().await?)?.contains("\"accepted_events_total\":4"));
    Ok(())
}
