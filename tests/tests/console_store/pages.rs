//! Pages of tasks and events, search, and what the scheduler measures.

use pulse_store::Store;
use pulse_store::console::{Matched, PageFilter, TailFilter};
use pulse_tests::{Process, TestEnv, eventually};
use uuid::Uuid;

use crate::{TIMEOUT, store};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn ids(store: &Store, filter: &PageFilter) -> anyhow::Result<Vec<Uuid>> {
    Ok(store.task_page(filter, None, 100).await?.tasks.iter().map(|task| task.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_all_tables_are_paged_filtered_and_found() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "1000"]).await?;
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
    let headers = [("x-request-id", "shop-7"), ("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01") as &str)];
    let body = r#"{"event_name": "late", "event_type": "t"}"#;
    let answer = ada.send(http::Method::POST, "/api/v1/events", &headers, body.into()).await?;
    let (late, event_id) = (answer.json["task_id"].as_str().unwrap_or_default(), &answer.json["event_id"]);
    all.push(late.parse()?);
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
    assert_eq!(paged, all, "newest first, over all tables");
    all.reverse();

    let state = |state: &str| PageFilter { states: vec![state.into()], ..PageFilter::default() };
    assert_eq!(ids(&store, &state("retrying")).await?, [all[1]]);
    assert_eq!(ids(&store, &state("dead")).await?, [all[2]]);
    assert_eq!(ids(&store, &state("pending")).await?, [all[5]]);
    assert_eq!(ids(&store, &state("completed")).await?, [all[4], all[3], all[0]]);
    let bob = env.number("SELECT id FROM users WHERE subject = 'bob'").await?;
    assert_eq!(ids(&store, &PageFilter { user_id: Some(bob), ..PageFilter::default() }).await?, [all[4]]);
    let name = PageFilter { event_name: Some("fail".into()), ..PageFilter::default() };
    assert_eq!(ids(&store, &name).await?, [all[1]]);
    let row = store.task_page(&state("dead"), None, 1).await?.tasks.remove(0);
    let error = row.error.expect("a dead task has an error");
    let prefix = PageFilter { error_prefix: Some(error[..4].into()), reason: row.reason, ..PageFilter::default() };
    assert_eq!(ids(&store, &prefix).await?, [all[2]]);
    let unknown = PageFilter { error_prefix: Some("no such".into()), ..PageFilter::default() };
    assert!(ids(&store, &unknown).await?.is_empty());
    let hour = chrono::TimeDelta::hours(1);
    let past = PageFilter { until: Some(chrono::Utc::now() - hour), ..PageFilter::default() };
    assert!(ids(&store, &past).await?.is_empty());
    let recent = PageFilter { since: Some(chrono::Utc::now() - hour), ..PageFilter::default() };
    assert_eq!(ids(&store, &recent).await?.len(), 6);

    for (text, matched) in [
        (late.to_owned(), Matched::Task),
        (event_id.to_string(), Matched::Event),
        ("shop-7".into(), Matched::Request),
        (TRACE.into(), Matched::Trace),
        (headers[1].1.into(), Matched::Trace),
    ] {
        let hits = store.search(&text, None).await?;
        assert_eq!(
            hits.iter().map(|hit| (hit.matched, hit.task_id)).collect::<Vec<_>>(),
            [(matched, all[5])],
            "{text}"
        );
        assert!(store.search(&text, Some(bob)).await?.is_empty(), "another user must not find {text}");
    }
    assert!(store.search("nothing", None).await?.is_empty());

    let detail = store.task_detail(None, all[2]).await?.expect("the dead task is there");
    assert_eq!((detail.user.as_deref(), detail.same_error, detail.events.len()), (Some("ada"), Some(1), 1));
    assert!(detail.task.errors.len() == 1 && detail.events[0].processing_error.is_some(), "{detail:?}");
    assert!(store.task_detail(Some(bob), all[2]).await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn page_stops_after_a_limited_number_of_rows_and_continues_there() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let store = store(&env)?;
    sqlx::raw_sql(
        "INSERT INTO users (subject) VALUES ('ada'), ('bob');
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at)
         SELECT lpad(to_hex(n), 32, '0')::uuid, 'process_event', 1 + (n = 1)::int, ARRAY[n], 'completed', 1, '[]', now()
         FROM generate_series(1, 30000) AS n",
    )
    .execute(&env.db)
    .await?;
    let bob = PageFilter { user_id: Some(2), ..PageFilter::default() };
    let page = store.task_page(&bob, None, 10).await?;
    assert_eq!((page.tasks.len(), page.next), (0, Some(Uuid::from_u128(10_001))));
    let page = store.task_page(&bob, page.next, 10).await?;
    assert_eq!((page.tasks.len(), page.next), (1, None));
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
    let first = store.event_tail(&all, None, None, 2).await?;
    let names: Vec<&str> = first.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let rest = store.event_tail(&all, first.next, None, 2).await?;
    assert_eq!((rest.events.len(), rest.next), (1, None));
    let newest = first.events[0].id;
    assert!(store.event_tail(&all, None, Some(newest), 10).await?.events.is_empty());
    client.post_event("c").await?;
    let new = store.event_tail(&all, None, Some(newest), 10).await?;
    assert_eq!((new.events.len(), new.events[0].user.as_deref()), (1, Some("ada")));
    let only = TailFilter { event_name: Some("b".into()), ..TailFilter::default() };
    assert_eq!(store.event_tail(&only, None, None, 10).await?.events.len(), 1);

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
