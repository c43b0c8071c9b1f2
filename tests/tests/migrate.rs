//! `pulse migrate`: plans, refusals with their exit codes, the result file and the time limit.

use std::time::Duration;

use pulse_tests::{TestEnv, eventually, pulse_output};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::Instant;

async fn migrate(env: &TestEnv, more: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut args = vec!["migrate"];
    args.extend(more);
    let (code, output) = pulse_output(env, &args).await?;
    // Logs go to stderr, which follows stdout here: the last line of stdout has the result.
    let message = output.lines().rfind(|line| !line.starts_with('{') || line.starts_with("{\"current\""));
    Ok((code, message.unwrap_or_default().to_owned()))
}

async fn plan(env: &TestEnv, more: &[&str]) -> anyhow::Result<Value> {
    let mut args = vec!["--plan"];
    args.extend(more);
    let (code, plan) = migrate(env, &args).await?;
    anyhow::ensure!(code == 0, "{plan}");
    Ok(serde_json::from_str(&plan)?)
}

async fn execute(env: &TestEnv, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&env.db).await?;
    Ok(())
}

/// Removes the newest migration from the history, so that it is pending. The tests do not apply it again.
const UNRECORD_NEWEST: &str =
    "DELETE FROM pulse_migrations WHERE version = (SELECT max(version) FROM pulse_migrations)";

#[tokio::test(flavor = "multi_thread")]
async fn migrate_approval_is_bound_to_image_and_schema() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    execute(&env, UNRECORD_NEWEST).await?;
    let one = plan(&env, &["--image", "example.com/pulse:1"]).await?;
    let other = plan(&env, &["--image", "example.com/pulse:2"]).await?;
    assert_eq!(one["pending"].as_array().map(Vec::len), Some(1));
    assert_ne!(one["hash"], other["hash"]);
    let hash = one["hash"].as_str().unwrap_or_default();
    let (code, message) = migrate(&env, &["--image", "example.com/pulse:2", "--expect-plan", hash]).await?;
    assert!(code == 23 && message.contains("approve it again"), "{code}: {message}");
    execute(&env, UNRECORD_NEWEST).await?;
    let (code, _) = migrate(&env, &["--image", "example.com/pulse:1", "--expect-plan", hash]).await?;
    assert_eq!(code, 23, "the plan was made for another schema");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_result_file_fits_a_termination_message() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = env.file("result.json");
    let (code, _) = migrate(&env, &["--result-file", &file.display().to_string()]).await?;
    let text = std::fs::read_to_string(&file)?;
    let result: Value = serde_json::from_str(&text)?;
    assert_eq!(
        (code, &result["pending"], &result["destructive"], &result["ahead"]),
        (0, &0.into(), &false.into(), &0.into())
    );
    assert!(text.len() < 2048 && result["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{text}");
    assert_eq!(result["newest"], env.number("SELECT max(version) FROM pulse_migrations").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_refusals_have_an_exit_code_and_a_remedy() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let newer = |additive: bool| {
        format!(
            "INSERT INTO pulse_migrations (version, name, checksum, additive) VALUES (99990101000000, 'newer', '\\x00', {additive})"
        )
    };
    execute(&env, &newer(true)).await?;
    let ahead = plan(&env, &[]).await?;
    assert_eq!(
        (&ahead["ahead"], migrate(&env, &[]).await?.0),
        (&1.into(), 0),
        "an additive newer migration is accepted"
    );
    execute(&env, "UPDATE pulse_migrations SET additive = false WHERE name = 'newer'").await?;
    let (code, message) = migrate(&env, &[]).await?;
    assert!(code == 22 && message.contains("deploy the newer version"), "{code}: {message}");
    execute(&env, "DELETE FROM pulse_migrations WHERE name = 'newer'").await?;

    let (code, message) = migrate(&env, &["--instance", "shop/other"]).await?;
    assert!(code == 24 && message.contains("`dev`") && message.contains("--take-over"), "{code}: {message}");
    assert_eq!(migrate(&env, &["--instance", "shop/other", "--take-over"]).await?.0, 0);

    execute(
        &env,
        "UPDATE pulse_migrations SET checksum = '\\x00' WHERE version = (SELECT min(version) FROM pulse_migrations)",
    )
    .await?;
    let (code, message) = migrate(&env, &["--instance", "shop/other"]).await?;
    assert!(code == 20 && message.contains("restore the released file"), "{code}: {message}");

    execute(&env, "ALTER DATABASE pulse SET synchronous_commit = off").await?;
    let (code, message) = migrate(&env, &["--instance", "shop/other"]).await?;
    assert!(code == 25 && message.contains("synchronous_commit"), "{code}: {message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_stops_at_its_time_limit() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut other = PgConnection::connect(&env.database_url).await?;
    // The advisory lock of a migration in another process: "pulse" in ASCII.
    sqlx::query("SELECT pg_advisory_lock(x'70756c7365'::bigint)").execute(&mut other).await?;
    let started = Instant::now();
    let (code, message) = migrate(&env, &["--time-limit", "1s"]).await?;
    assert!(code == 1 && message.contains("time limit of 1s"), "{code}: {message}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    other.close().await?;
    // On a loaded machine a connection may take longer than the 2 s for one.
    let migrated = async || {
        let (code, message) = migrate(&env, &["--time-limit", "60s"]).await?;
        assert!(code == 0 || message.contains("PostgreSQL is unavailable"), "{code}: {message}");
        Ok(code == 0)
    };
    eventually("the migration goes on without the lock", Duration::from_secs(60), migrated).await
}
