//! What grows with event names and with starts of workers stays bounded.

use std::time::{Duration, Instant};

use pulse_store::NameFigures;
use pulse_store::console::Range;
use pulse_tests::TestEnv;

use crate::store;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_event_names_leave_51_rows_per_ten_minutes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let store = store(&env)?;
    // A worker reports at most 50 names with a heartbeat.
    for heartbeat in 0..200 {
        let of = |name| (format!("name {heartbeat} {name}"), NameFigures { completed: 1, ..NameFigures::default() });
        store.add_name_figures("worker", &(0..50).map(of).collect()).await?;
        if heartbeat % 50 == 49 {
            sqlx::query("UPDATE throughput SET start = start - interval '3 minutes' WHERE period = 'live'")
                .execute(&env.db)
                .await?;
            store.fold_throughput().await?;
            assert_eq!(env.number("SELECT count(*) FROM throughput WHERE period = 'live'").await?, 0);
        }
    }
    let most = "SELECT max(names) FROM (SELECT count(*) AS names FROM throughput GROUP BY period, start) AS starts";
    assert!(env.number(most).await? <= 51);
    // They fall into one or two periods of ten minutes.
    let rows = store.event_names(Range::Hour, 1000).await?;
    assert!((51..=102).contains(&rows.len()), "{} names", rows.len());
    assert_eq!(rows.iter().map(|row| row.completed).sum::<i64>(), 10_000, "no name is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_worker_starts_leave_a_thousand_workers_and_one_row_per_minute() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let store = store(&env)?;
    sqlx::raw_sql(
        "INSERT INTO workers (name, version, state, concurrency, running, in_flight, seen_at)
         SELECT 'worker ' || n, '1', CASE WHEN n % 2 = 0 THEN 'stopped' ELSE 'running' END, 1, 0, 0,
                now() - interval '26 s' - n * interval '0.1 s'
         FROM generate_series(1, 10000) AS n;
         INSERT INTO workers (name, version, state, concurrency, running, in_flight) VALUES ('zz', '1', 'running', 1, 0, 0);
         INSERT INTO throughput (period, start, writer, completed)
         SELECT 'live', date_trunc('minute', now()) - interval '3 minutes', 'worker ' || n || '/settle', 1
         FROM generate_series(1, 10000) AS n",
    )
    .execute(&env.db)
    .await?;
    let started = Instant::now();
    let listed = store.workers().await?;
    assert_eq!((listed.len(), listed[0].name.as_str()), (100, "zz"), "those that run come first");
    assert_eq!(store.overview().await?.workers, 1);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    store.expire_throughput().await?;
    assert_eq!(env.number("SELECT count(*) FROM workers").await?, 1000);
    assert_eq!(env.number("SELECT count(*) FROM workers WHERE name = 'zz'").await?, 1);
    store.fold_throughput().await?;
    assert_eq!(env.number("SELECT count(*) FROM throughput").await?, 3, "a minute, ten minutes, and the totals");
    assert_eq!(env.number("SELECT completed FROM throughput WHERE period = 'all'").await?, 10_000);
    Ok(())
}
