//! A transaction that runs for long, such as a backup: PostgreSQL keeps the rows of all tasks that were settled since.

#![expect(clippy::print_stdout, reason = "the test prints what it measures")]

use std::collections::BTreeMap;
use std::time::Duration;

use pulse_tests::{Process, TestEnv, load, pulse_output, report};
use sqlx::{AssertSqlSafe, Row};

/// Events per second, and the time for which the snapshot is held, in seconds.
const RATE: u32 = if cfg!(feature = "long") { 1000 } else { 200 };
const HELD: u32 = if cfg!(feature = "long") { 600 } else { 20 };

/// The statements whose cost must not grow, by a part of their text.
const STATEMENTS: [(&str, &str); 4] = [
    ("claim", "), claimed AS ("),
    ("requeue", "WITH retries AS"),
    ("search for waiting tasks", "SELECT run_at FROM tasks"),
    ("recover", "WHERE lease_until < now()"),
];

/// Blocks that each statement reads in a call, on average while events are posted, and the fallback claim in one.
async fn blocks(env: &TestEnv, api: &Process) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    sqlx::query("SELECT pg_stat_statements_reset()").execute(&env.db).await?;
    let report = report(load(env, api, RATE, 10)?).await?;
    anyhow::ensure!(report["refused"] == serde_json::json!({}), "{report}");
    let mut blocks = BTreeMap::new();
    for (name, part) in STATEMENTS {
        let mean = "SELECT (sum(shared_blks_hit + shared_blks_read) / sum(calls))::float8 FROM pg_stat_statements
                    WHERE position($1 IN query) > 0";
        blocks.insert(name, sqlx::query_scalar(mean).bind(part).fetch_one(&env.db).await?);
    }
    let fallback =
        include_str!("../../../crates/pulse-store/src/claim_due.sql").replace("$1", "100").replace("$2", "256");
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {fallback}");
    let mut session = env.db.acquire().await?;
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        .execute(&mut *session)
        .await?;
    let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *session).await?;
    let plan: serde_json::Value = row.get(0);
    let read = |kind| plan[0]["Plan"][kind].as_f64().unwrap_or(f64::MAX);
    blocks.insert("claim without Redis", read("Shared Hit Blocks") + read("Shared Read Blocks"));
    Ok(blocks)
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshot_makes_no_claim_and_no_job_more_expensive() -> anyhow::Result<()> {
    let preload = "shared_preload_libraries=pg_stat_statements";
    let env = TestEnv::with_servers(|postgres| postgres.with_setting(preload), |redis| redis).await?;
    let (code, output) = pulse_output(&env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&env.db).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let mut reader = env.db.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *reader).await?;
    sqlx::query("SELECT count(*) FROM users").execute(&mut *reader).await?;

    // The jobs look at the tasks of the last ten seconds.
    report(load(&env, &api, RATE, 15)?).await?;
    let before = blocks(&env, &api).await?;
    report(load(&env, &api, RATE, HELD)?).await?;
    let after = blocks(&env, &api).await?;
    reader.rollback().await?;
    println!("blocks before: {before:?}\nblocks after {HELD} s: {after:?}");
    for (name, before) in before {
        let limit = (2.0 * before).max(before + 100.0);
        assert!(after[name] <= limit, "{name}: {before} blocks, and {} after {HELD} s", after[name]);
    }
    env.wait_until_settled(Duration::from_secs(60)).await?;
    Ok(())
}
