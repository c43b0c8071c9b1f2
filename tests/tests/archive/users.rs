//! One user's rows in the archive.

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
