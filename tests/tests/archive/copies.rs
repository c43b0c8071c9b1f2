//! Copies beside crashes, changes and load.

use std::time::Duration;

use anyhow::Context;
use pulse_tests::latency::GOOD;
use pulse_tests::{Process, TestEnv, eventually, load, report};

use super::{RETAIN, TIMEOUT, count_with_duckdb, fill, wait_for_drop};

/// Number of events in a month of 2020.
const EVENTS: i64 = if cfg!(feature = "long") { 5_000_000 } else { 120_000 };
/// Events per second beside a copy, and for how long.
const RATE: u32 = 500;
const COPY_SECONDS: u32 = if cfg!(feature = "long") { 60 } else { 15 };
const KILLS: usize = if cfg!(feature = "long") { 20 } else { 10 };

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_scheduler_at_any_point_loses_and_doubles_no_row() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, EVENTS).await?;
    let expected = env.number("SELECT sum(id)::bigint FROM events WHERE created_at < '2021-01-01Z'").await?;
    let folder = env.file("archive");
    let url = format!("file://{}", folder.display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let mut delay = Duration::from_millis(150);
    for _ in 0..KILLS {
        let scheduler = Process::start(&env, "scheduler", &args).await?;
        tokio::time::sleep(delay).await;
        scheduler.kill().await?;
        sqlx::raw_sql("DELETE FROM leases; UPDATE jobs SET last_run_at = now() - interval '1 day'")
            .execute(&env.db)
            .await?;
        delay += Duration::from_millis(130);
    }
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    wait_for_drop(&env).await?;
    let months = count_with_duckdb(&folder.join("events/2020-01")).await?;
    assert_eq!(months.trim(), format!("{EVENTS} {EVENTS} 100 {expected}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn month_that_changes_while_it_is_copied_is_copied_again() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, 1000).await?;
    let url = format!("file://{}", env.file("archive").display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    // The reader keeps the month from being dropped, and the copy from nothing.
    let mut reader = env.db.begin().await?;
    sqlx::query("SELECT FROM events LIMIT 1").execute(&mut *reader).await?;
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    let verified = "SELECT count(*) FROM archived_months WHERE verified_at IS NOT NULL AND NOT is_changed";
    eventually("the copy is verified", TIMEOUT, async || Ok(env.number(verified).await? >= 1)).await?;
    sqlx::query("DELETE FROM events WHERE user_id = 7 AND created_at < '2021-01-01Z'").execute(&env.db).await?;
    assert_eq!(env.number("SELECT count(*) FROM archived_months WHERE is_changed").await?, 1);
    reader.rollback().await?;
    wait_for_drop(&env).await?;
    let counted = count_with_duckdb(&env.file("archive").join("events/2020-01")).await?;
    assert_eq!(counted.trim(), "990 990 99 495940", "neither the rows of the user nor old files are left");
    Ok(())
}

async fn p99_of(posting: tokio::process::Child) -> anyhow::Result<f64> {
    report(posting).await?["p99_ms"].as_f64().context("p99")
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_beside_a_reader_and_500_events_per_second_slows_no_post() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, EVENTS).await?;
    let url = format!("file://{}", env.file("archive").display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let api = Process::start(&env, "api", &[]).await?;
    let before = p99_of(load(&env, &api, RATE, 8)?).await?;
    let mut reader = env.db.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *reader).await?;
    sqlx::query("SELECT FROM events LIMIT 1").execute(&mut *reader).await?;
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    let during = p99_of(load(&env, &api, RATE, COPY_SECONDS)?).await?;
    let verified =
        "SELECT count(*) FROM archived_months WHERE partition = 'events_y2020m01' AND verified_at IS NOT NULL";
    eventually("the copy is verified", TIMEOUT * 10, async || Ok(env.number(verified).await? == 1)).await?;
    reader.rollback().await?;
    let ended = std::time::Instant::now();
    wait_for_drop(&env).await?;
    let dropped = ended.elapsed();
    println!(
        "{EVENTS} events: POST p99 {before} ms, {during} ms beside the copy; dropped {dropped:?} after the reader"
    );
    assert!(
        during <= (before + 20.0).max(GOOD.as_secs_f64() * 1e3),
        "p99 {during} ms beside the copy, {before} ms before"
    );
    assert!(dropped <= Duration::from_secs(30));
    Ok(())
}
