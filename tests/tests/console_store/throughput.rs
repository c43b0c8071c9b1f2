//! The figures of the overview and of the charts.

use pulse_store::console::{Point, Range, Series};
use pulse_tests::{Client, Process, TestEnv, eventually};
use serde_json::json;

use crate::{TIMEOUT, store};

/// Three events, a batch of four of which one is invalid, an event that is retried, and a dead one.
async fn post_some(client: &Client) -> anyhow::Result<()> {
    for name in ["good", "good", "good", "fail", "invalid"] {
        client.post_event(name).await?;
    }
    let event = |name| json!({"event_name": name, "event_type": "t"});
    let batch = json!({"events": [event("good"), event("invalid"), event("good"), event("good")]});
    anyhow::ensure!(client.post("/api/v1/events/batch", &batch).await?.status == 202);
    Ok(())
}

/// The sums of all steps.
fn sums(series: &Series) -> [i64; 7] {
    let sum = |value: fn(&Point) -> i64| series.points.iter().map(value).sum::<i64>();
    [
        sum(|point| point.accepted),
        sum(|point| point.accepted_events),
        sum(|point| point.completed),
        sum(|point| point.completed_events),
        sum(|point| point.failed),
        sum(|point| point.retried),
        sum(|point| point.dead),
    ]
}

/// The failed event of the batch becomes a task: it is accepted again as a task, and not as an event.
const EXPECTED: [i64; 7] = [7, 9, 4, 6, 3, 1, 2];

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_exact_and_stay_so_when_minutes_are_folded() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "1000"]).await?;
    post_some(&api.client("ada")).await?;
    let store = store(&env)?;
    eventually("the figures are exact", TIMEOUT, async || Ok(sums(&store.series(Range::Hour).await?) == EXPECTED))
        .await?;
    worker.kill().await?;
    let overview = store.overview().await?;
    assert_eq!((overview.accepted_events_total, overview.completed_events_total), (9, 6));
    assert!(overview.rates.accepted_events > 0.0, "{overview:?}");
    let p50 = overview.completion.p50.expect("the time of a completion is known");
    assert!(p50 > 0.0 && p50 < 10.0 && overview.attempt.count > 0, "{overview:?}");
    let totals =
        "SELECT sum(completed + dead)::bigint FROM throughput WHERE event_name = '' AND period IN ('live', 'all')";
    assert_eq!(env.number(totals).await?, 6);

    // A writer's row of the same minute is folded later than the others.
    for writers in ["writer LIKE '%/settle'", "true"] {
        let earlier =
            format!("UPDATE throughput SET start = start - interval '5 minutes' WHERE {writers} AND period = 'live'");
        sqlx::query(sqlx::AssertSqlSafe(earlier)).execute(&env.db).await?;
        store.fold_throughput().await?;
        for range in [Range::Hour, Range::Day, Range::Week] {
            assert_eq!(sums(&store.series(range).await?), EXPECTED, "{range:?} after {writers}");
        }
    }
    assert_eq!(env.number("SELECT count(*) FROM throughput WHERE period = 'live'").await?, 0);
    assert_eq!(env.number(totals).await?, 6, "the totals keep what is folded");
    let completions = |series: &Series| series.points.iter().map(|point| point.completion.count).sum::<i64>();
    assert!(completions(&store.series(Range::Week).await?) > 0, "histograms are folded too");

    sqlx::query("UPDATE throughput SET start = start - interval '26 hours'").execute(&env.db).await?;
    store.expire_throughput().await?;
    assert_eq!(env.number("SELECT count(*) FROM throughput WHERE period = 'minute'").await?, 0);
    assert!(env.number("SELECT count(*) FROM throughput WHERE period = 'ten_minutes'").await? > 0);
    sqlx::query("UPDATE throughput SET start = start - interval '7 days' WHERE period <> 'all'")
        .execute(&env.db)
        .await?;
    store.expire_throughput().await?;
    assert_eq!(env.number("SELECT count(*) FROM throughput").await?, 1, "the totals never expire");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_by_event_name_have_a_bounded_number_of_names() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let store = store(&env)?;
    let of = |completed| pulse_store::NameFigures { completed, retried: 1, dead: 0, attempt_seconds: vec![0.01, 0.02] };
    let figures = (1..=60).map(|n| (format!("name {n}"), of(n))).collect();
    store.add_name_figures("one", &figures).await?;
    store.add_name_figures("two", &figures).await?;
    sqlx::query("UPDATE throughput SET start = start - interval '5 minutes'").execute(&env.db).await?;
    store.fold_throughput().await?;
    let rows = store.event_names(Range::Hour, 100).await?;
    assert_eq!(rows.len(), 51);
    assert_eq!(rows.iter().map(|row| row.completed).sum::<i64>(), 2 * (1..=60).sum::<i64>());
    assert!(rows.iter().any(|row| (&*row.event_name, row.completed) == ("name 60", 120)), "{rows:?}");
    let other = rows.iter().find(|row| row.event_name == "other").expect("the rare names have a row");
    assert_eq!((other.completed, other.failed, other.attempt.count), (2 * (1..=10).sum::<i64>(), 20, 40));
    let overview = store.overview().await?;
    assert_eq!(overview.attempt.count, 0, "the figures of names are not counted twice");
    Ok(())
}
