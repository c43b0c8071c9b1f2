//! One user's rows in the archive.

use std::time::{Duration, Instant};

use pulse_tests::latency::{GOOD, p99, post_beside, post_steadily};
use pulse_tests::{Process, S3, TestEnv};

use super::{RETAIN, command, count_with_duckdb, fill, wait_for_drop};

#[tokio::test(flavor = "multi_thread")]
async fn export_and_erasure_of_a_user_reach_the_archive() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let s3 = S3::start(&env).await?;
    fill(&env.db, 1000).await?;
    sqlx::query(
        "INSERT INTO events (user_id, event_name, event_type, task_id) VALUES (7, 'new', 't', gen_random_uuid())",
    )
    .execute(&env.db)
    .await?;
    let args = [&RETAIN[..], &["--archive", &s3.url]].concat();
    let scheduler = Process::spawn_with_variables(&env, "scheduler", &s3.variables(), &args)?;
    wait_for_drop(&env).await?;
    scheduler.kill().await?;
    let left_over = s3.folder.join("pulse/events/2020-01/left-over.jsonl.zst");
    std::fs::write(&left_over, "of an interrupted copy")?;

    let (is_done, output) = command(&env, &[], &["user", "erase", "user 7", "--yes"]).await?;
    assert!(!is_done && output.contains("give the URL with --archive"), "{output}");
    let archive = ["--archive", &s3.url];
    let (is_done, output) =
        command(&env, &s3.variables(), &[&["user", "export", "user 7"][..], &archive].concat()).await?;
    let archived = output.lines().filter(|line| line.starts_with(r#"{"table":"events","archived":true"#)).count();
    assert!(is_done && archived == 10 && output.contains(r#""event_name":"new""#), "{output}");

    let erase = [&["user", "erase", "user 7", "--yes", "--json"][..], &archive].concat();
    let (is_done, output) = command(&env, &s3.variables(), &erase).await?;
    assert!(is_done && output.contains(r#""archive":{"rows":10,"files":1}"#), "{output}");
    let counted = count_with_duckdb(&s3.folder.join("pulse/events/2020-01")).await?;
    assert_eq!(counted.trim(), "990 990 99 495940");
    assert!(!left_over.exists(), "files that no manifest names are deleted");
    let (is_good, output) = command(&env, &s3.variables(), &[&["archive", "verify"][..], &archive].concat()).await?;
    assert!(is_good, "{output}");
    let (_, output) = command(&env, &s3.variables(), &[&["user", "export", "user 8"][..], &archive].concat()).await?;
    assert!(output.contains("archive 10") || output.contains("archive 20"), "{output}");
    Ok(())
}

/// Of the user who is erased.
const EVENTS: i64 = if cfg!(feature = "long") { 1_000_000 } else { 10_000 };

#[tokio::test(flavor = "multi_thread")]
async fn erasure_of_many_archived_events_delays_no_other_user() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let s3 = S3::start(&env).await?;
    fill(&env.db, EVENTS / 5 * 6).await?;
    sqlx::query("UPDATE events SET user_id = CASE id % 6 WHEN 0 THEN 8 ELSE 7 END").execute(&env.db).await?;
    let args = [&RETAIN[..], &["--archive", &s3.url]].concat();
    let scheduler = Process::spawn_with_variables(&env, "scheduler", &s3.variables(), &args)?;
    let (api, _worker) = (Process::start(&env, "api", &[]).await?, Process::start(&env, "worker", &[]).await?);
    wait_for_drop(&env).await?;
    scheduler.kill().await?;
    let poster = api.client("poster");
    let before = p99(&post_steadily(&poster, Duration::from_secs(10)).await?);
    let (started, variables) = (Instant::now(), s3.variables());
    let erase = ["user", "erase", "user 7", "--yes", "--json", "--archive", &s3.url];
    let ((is_done, output), latencies) = post_beside(&poster, command(&env, &variables, &erase)).await?;
    let (took, during) = (started.elapsed(), p99(&latencies));
    println!("{EVENTS} archived events in {took:?}; p99 of another user {during:?}, {before:?} before");
    assert!(is_done && output.contains(&format!(r#""archive":{{"rows":{EVENTS},"#)), "{output}");
    let counted = count_with_duckdb(&s3.folder.join("pulse/events/2020-01")).await?;
    assert!(counted.starts_with(&format!("{} ", EVENTS / 5)), "{counted}");
    assert!(
        during <= (2 * before).max(GOOD),
        "p99 of the other's posts: {during:?} beside the erasure, {before:?} before"
    );
    Ok(())
}
