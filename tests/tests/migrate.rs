//! `pulse migrate`: its plan, what it refuses and with which exit code, and what it leaves for whoever started it.

use std::time::Duration;

use pulse_tests::{TestEnv, pulse_output};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::Instant;

async fn migrate(world: &TestEnv, more: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut args = vec!["migrate"];
    args.extend(more);
    let (code, output) = pulse_output(world, &args).await?;
    // Logs go to stderr, after it: the last line of stdout says why.
    let told = output.lines().rfind(|line| !line.starts_with('{') || line.starts_with("{\"current\""));
    Ok((code, told.unwrap_or_default().to_owned()))
}

async fn plan(world: &TestEnv, more: &[&str]) -> anyhow::Result<Value> {
    let mut args = vec!["--plan"];
    args.extend(more);
    let (code, plan) = migrate(world, &args).await?;
    anyhow::ensure!(code == 0, "{plan}");
    Ok(serde_json::from_str(&plan)?)
}

async fn execute(world: &TestEnv, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&world.db).await?;
    Ok(())
}

/// Forgets the newest migration, so that one is pending; it is not applied again.
const FORGET: &str = "DELETE FROM pulse_migrations WHERE version = (SELECT max(version) FROM pulse_migrations)";

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_plan_fits_no_other_image_and_no_other_schema() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    execute(&world, FORGET).await?;
    let one = plan(&world, &["--image", "example.com/pulse:1"]).await?;
    let other = plan(&world, &["--image", "example.com/pulse:2"]).await?;
    assert_eq!(one["pending"].as_array().map(Vec::len), Some(1));
    assert_ne!(one["hash"], other["hash"]);
    let hash = one["hash"].as_str().unwrap_or_default();
    let (code, told) = migrate(&world, &["--image", "example.com/pulse:2", "--expect-plan", hash]).await?;
    assert!(code == 23 && told.contains("approve it again"), "{code}: {told}");
    execute(&world, FORGET).await?;
    let (code, _) = migrate(&world, &["--image", "example.com/pulse:1", "--expect-plan", hash]).await?;
    assert_eq!(code, 23, "the schema is another one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_left_in_a_file_that_fits_a_termination_message() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let file = world.file("result.json");
    let (code, _) = migrate(&world, &["--result-file", &file.display().to_string()]).await?;
    let text = std::fs::read_to_string(&file)?;
    let result: Value = serde_json::from_str(&text)?;
    assert_eq!(
        (code, &result["pending"], &result["destructive"], &result["ahead"]),
        (0, &0.into(), &false.into(), &0.into())
    );
    assert!(text.len() < 2048 && result["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{text}");
    assert_eq!(result["newest"], world.number("SELECT max(version) FROM pulse_migrations").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_code_and_says_what_to_do() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let newer = |additive: bool| {
        format!(
            "INSERT INTO pulse_migrations (version, name, checksum, additive) VALUES (99990101000000, 'newer', '\\x00', {additive})"
        )
    };
    execute(&world, &newer(true)).await?;
    let ahead = plan(&world, &[]).await?;
    assert_eq!((&ahead["ahead"], migrate(&world, &[]).await?.0), (&1.into(), 0), "an older binary may run on it");
    execute(&world, "UPDATE pulse_migrations SET additive = false WHERE name = 'newer'").await?;
    let (code, told) = migrate(&world, &[]).await?;
    assert!(code == 22 && told.contains("deploy the newer version"), "{code}: {told}");
    execute(&world, "DELETE FROM pulse_migrations WHERE name = 'newer'").await?;

    let (code, told) = migrate(&world, &["--instance", "shop/other"]).await?;
    assert!(code == 24 && told.contains("`dev`") && told.contains("--take-over"), "{code}: {told}");
    assert_eq!(migrate(&world, &["--instance", "shop/other", "--take-over"]).await?.0, 0);

    execute(
        &world,
        "UPDATE pulse_migrations SET checksum = '\\x00' WHERE version = (SELECT min(version) FROM pulse_migrations)",
    )
    .await?;
    let (code, told) = migrate(&world, &["--instance", "shop/other"]).await?;
    assert!(code == 20 && told.contains("restore the file"), "{code}: {told}");

    execute(&world, "ALTER DATABASE pulse SET synchronous_commit = off").await?;
    let (code, told) = migrate(&world, &["--instance", "shop/other"]).await?;
    assert!(code == 25 && told.contains("synchronous_commit"), "{code}: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_takes_too_long_gives_up_and_says_so() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let mut other = PgConnection::connect(&world.database_url).await?;
    // What a migration of another process holds: "pulse" in ASCII.
    sqlx::query("SELECT pg_advisory_lock(x'70756c7365'::bigint)").execute(&mut other).await?;
    let started = Instant::now();
    let (code, told) = migrate(&world, &["--time-limit", "1s"]).await?;
    assert!(code == 1 && told.contains("longer than 1s"), "{code}: {told}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    other.close().await?;
    assert_eq!(migrate(&world, &["--time-limit", "60s"]).await?.0, 0);
    Ok(())
}
