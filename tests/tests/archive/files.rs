//! The files of an archive: verified, restored, damaged, and of another instance.

use pulse_tests::{Process, S3, TestEnv, eventually};
use sqlx::{AssertSqlSafe, PgPool};

use super::{OLD_MONTHS, RETAIN, TIMEOUT, command, count_with_duckdb, fill, wait_for_drop};

/// What the month has, in any order.
async fn fingerprint(db: &PgPool, table: &str) -> anyhow::Result<(i64, Option<String>)> {
    let time = if table == "events" { "created_at" } else { "settled_at" };
    let query = format!(
        "SELECT count(*), sum(hashtextextended(row_to_json(stored)::text, 0))::text FROM {table} AS stored
         WHERE {time} >= '2020-01-01Z' AND {time} < '2020-02-01Z'"
    );
    Ok(sqlx::query_as(AssertSqlSafe(query)).fetch_one(db).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn month_is_copied_to_s3_dropped_verified_and_restored() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let s3 = S3::start(&env).await?;
    fill(&env.db, 250_000).await?;
    let before = [fingerprint(&env.db, "events").await?, fingerprint(&env.db, "task_history").await?];
    let args = [&RETAIN[..], &["--archive", &s3.url]].concat();
    let scheduler = Process::spawn_with_variables(&env, "scheduler", &s3.variables(), &args)?;
    scheduler.wait_until_ready().await?;
    wait_for_drop(&env).await?;
    assert_eq!(scheduler.metric("pulse_archived_rows").await? as i64, 275_000);
    assert!(scheduler.metric("pulse_archive_blocked").await?.abs() < 0.5);
    let audit = "SELECT count(*) FROM audit_log WHERE action = 'retention.archive'";
    assert_eq!(env.number(audit).await?, 2);
    scheduler.kill().await?;

    let archive = ["--archive", &s3.url];
    let (_, listed) = command(&env, &s3.variables(), &[&["archive", "list"][..], &archive].concat()).await?;
    assert!(listed.contains("events        2020-01  250000  3"), "{listed}");
    let (is_good, verified) = command(&env, &s3.variables(), &[&["archive", "verify"][..], &archive].concat()).await?;
    assert!(
        is_good && verified.contains("task_history 2020-01: 25000 rows in 1 files are as they were written"),
        "{verified}"
    );

    let counted = count_with_duckdb(&s3.folder.join("pulse/events/2020-01")).await?;
    assert_eq!(counted.trim(), "250000 250000 100 31250125000");

    for table in ["events", "task_history"] {
        let restore = [&["archive", "restore", table, "2020-01"][..], &archive].concat();
        let (is_restored, output) = command(&env, &s3.variables(), &restore).await?;
        assert!(is_restored, "{output}");
        let (_, again) = command(&env, &s3.variables(), &restore).await?;
        assert!(again.contains("restored 0 of"), "{again}");
    }
    let after = [fingerprint(&env.db, "events").await?, fingerprint(&env.db, "task_history").await?];
    assert_eq!(after, before, "each row is as it was");

    let (api, scheduler) = (Process::start(&env, "api", &[]).await?, Process::start(&env, "scheduler", &RETAIN).await?);
    let page = api.client("user 8").get("/api/v1/events?limit=100").await?;
    assert_eq!(page.json["events"].as_array().map(Vec::len), Some(100), "{page:?}");
    eventually("retention has run", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM jobs WHERE name = 'retain' AND last_outcome = 'succeeded'").await? == 1)
    })
    .await?;
    assert_eq!(env.number(OLD_MONTHS).await?, 2, "restored months are kept");
    drop(scheduler);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_files_are_found_and_a_foreign_folder_is_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, 1000).await?;
    let folder = env.file("archive");
    let url = format!("file://{}", folder.display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let scheduler = Process::start(&env, "scheduler", &args).await?;
    wait_for_drop(&env).await?;
    scheduler.kill().await?;
    let mut files: Vec<_> = std::fs::read_dir(folder.join("events/2020-01"))?.collect::<Result<_, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|extension| extension == "zst"));
    let file = files[0].path();
    let content = std::fs::read(&file)?;
    let mut damaged = content.clone();
    damaged[content.len() / 2] ^= 1;
    std::fs::write(&file, &damaged)?;
    let verify = ["archive", "verify", "--archive", &url];
    let (is_good, output) = command(&env, &[], &verify).await?;
    assert!(!is_good && output.contains("is damaged: its checksum is"), "{output}");
    let restore = ["archive", "restore", "events", "2020-01", "--archive", &url];
    let (is_restored, output) = command(&env, &[], &restore).await?;
    assert!(!is_restored && output.contains("is damaged"), "{output}");
    std::fs::remove_file(&file)?;
    let (is_good, output) = command(&env, &[], &verify).await?;
    assert!(!is_good && output.contains("is damaged: it is missing"), "{output}");
    let (is_found, output) =
        command(&env, &[], &["archive", "restore", "events", "2019-01", "--archive", &url]).await?;
    assert!(!is_found && output.contains("the archive has no events of 2019-01"), "{output}");

    let other = TestEnv::start().await?;
    fill(&other.db, 10).await?;
    let args = [&args[..], &["--instance", "other/one"]].concat();
    let scheduler = Process::start(&other, "scheduler", &args).await?;
    let blocked = async || Ok(scheduler.metric(r#"pulse_archive_blocked{table="events"}"#).await? > 0.5);
    eventually("the archive of another instance is refused", TIMEOUT, blocked).await?;
    let log = std::fs::read_to_string(&scheduler.log)?;
    assert!(log.contains("give each instance another prefix"), "{log}");
    assert_eq!(other.number(OLD_MONTHS).await?, 2, "nothing is dropped");
    Ok(())
}
