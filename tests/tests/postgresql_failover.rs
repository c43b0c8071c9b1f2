//! A standby that is promoted under load: nothing is lost with synchronous replication, and what is lost without it is shown.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::{Duration, Instant};

use pulse_tests::{Link, Network, Process, Standby, TestEnv, eventually, load, pulse_output, report};
use sqlx::PgPool;

const RATE: u32 = 500;
const SECONDS: u32 = 15;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time from the promotion until events are accepted and processed again.
const NORMAL: Duration = Duration::from_secs(15);

/// Promotes the standby of a loaded instance whose PostgreSQL crashes, and returns the number of accepted events and the
/// error of the ledger.
async fn fail_over(
    env: &mut TestEnv,
    standby: &Standby,
    before: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Result<usize, String>> {
    env.database_url.clone_from(&standby.urls);
    let [api, worker, scheduler] = Process::start_all(env).await?;
    let load = load(env, &api, RATE, SECONDS)?;
    let accepted = async || Ok(env.number("SELECT count(*) FROM events").await? > 1000);
    eventually("events are accepted", TIMEOUT, accepted).await?;
    before().await?;
    env.crash_postgres().await?;
    standby.promote().await?;
    let promoted = Instant::now();
    env.db = PgPool::connect(&standby.url()).await?;
    let newest = env.number("SELECT max(id) FROM events").await?;
    let settled = format!("SELECT count(*) FROM events WHERE id > {newest} AND processed");
    let works = async || Ok(env.number(&settled).await? > 100);
    eventually("events are accepted and processed", TIMEOUT, works).await?;
    println!("normal {:.1?} after the promotion", promoted.elapsed());
    assert!(promoted.elapsed() < NORMAL, "{:.1?}", promoted.elapsed());
    for role in [&api, &worker, &scheduler] {
        assert_eq!(role.admin().get("/readyz").await?.status, 200);
    }
    let report = report(load).await?;
    env.wait_until_settled(TIMEOUT).await?;
    println!("{report}");
    Ok(env.check_ledger("ledger").await.map_err(|error| format!("{error:#}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_synchronous_standby_loses_nothing() -> anyhow::Result<()> {
    let (mut env, port) = Standby::primary("wal_level=replica").await?;
    let standby = Standby::start(&env, port, "replica").await?;
    let (_, output) = pulse_output(&env, &["check"]).await?;
    assert!(output.contains("replication = 1 connected, asynchronous"), "{output}");
    sqlx::raw_sql("ALTER SYSTEM SET synchronous_standby_names = 'replica'").execute(&env.db).await?;
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&env.db).await?;
    let synchronous = async || {
        let (_, output) = pulse_output(&env, &["check"]).await?;
        Ok(output.contains("replication = 1 connected, synchronous (replica)"))
    };
    eventually("replication is synchronous", TIMEOUT, synchronous).await?;
    let accepted = fail_over(&mut env, &standby, async || Ok(())).await?;
    println!("{accepted:?} events");
    assert!(accepted.is_ok_and(|accepted| accepted > (RATE * SECONDS) as usize / 4));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_asynchronous_standby_loses_what_it_has_not_received() -> anyhow::Result<()> {
    let (mut env, port) = Standby::primary("wal_level=replica").await?;
    let standby = Standby::start(&env, port, "replica").await?;
    let primary = env.db.clone();
    let behind = async || {
        standby.cut_off().await?;
        let count = async |db: &PgPool| {
            anyhow::Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events").fetch_one(db).await?)
        };
        let received = count(&PgPool::connect(&standby.url()).await?).await?;
        eventually("the primary is ahead", TIMEOUT, async || Ok(count(&primary).await? > received + 500)).await
    };
    let ledger = fail_over(&mut env, &standby, behind).await?.err().unwrap_or_default();
    let accepted = std::fs::read_to_string(env.file("ledger"))?.lines().count() as i64;
    let lost = accepted - env.number("SELECT count(*) FROM events").await?;
    println!("{lost} of {accepted} events are lost");
    // No id was given twice, which the ledger would say first.
    assert_eq!(ledger, format!("{lost} of {accepted} accepted events are not stored"));
    // Those that were committed after the standby was cut off.
    assert!(lost >= 500, "{lost} of {accepted}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn former_primary_that_answers_again_is_not_used() -> anyhow::Result<()> {
    let (mut env, port) = Standby::primary("wal_level=replica").await?;
    let standby = Standby::start(&env, port, "replica").await?;
    env.database_url.clone_from(&standby.urls);
    let api = Process::start(&env, "api", &[]).await?;
    let event = serde_json::json!({ "event_name": "page_view", "event_type": "t" });
    let accepts = async || Ok(api.client("ada").post("/api/v1/events", &event).await?.status == 202);
    eventually("events are accepted", TIMEOUT, accepts).await?;
    let frozen = env.freeze_postgres()?;
    standby.promote().await?;
    eventually("the new primary accepts events", TIMEOUT, accepts).await?;
    drop(frozen);
    let new = PgPool::connect(&standby.url()).await?;
    let count = async |db: &PgPool| {
        anyhow::Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events").fetch_one(db).await?)
    };
    let (before_old, before_new) = (count(&env.db).await?, count(&new).await?);
    for _ in 0..20 {
        api.client("ada").post_event("page_view").await?;
        let listed = api.client("ada").get("/api/v1/events?limit=100").await?.json["events"].as_array().map(Vec::len);
        assert_eq!(listed, usize::try_from(count(&new).await?).ok());
    }
    assert_eq!((count(&env.db).await?, count(&new).await?), (before_old, before_new + 20));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_while_the_first_host_of_the_url_does_not_answer() -> anyhow::Result<()> {
    let (mut env, port) = Standby::primary("wal_level=replica").await?;
    let silent = Link::to(port).await?;
    silent.set(Network::Silent);
    env.database_url = format!("postgres://pulse@127.0.0.1:{},127.0.0.1:{port}/pulse", silent.port);
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    for command in ["migrate", "check"] {
        let (code, output) = pulse_output(&env, &[command]).await?;
        assert_eq!(code, 0, "{command}: {output}");
    }
    let (_, output) = pulse_output(&env, &["check"]).await?;
    // Five connections of each role, and not four of a scheduler.
    assert!(output.contains("up to 27 used by the given roles"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_password_in_the_file_of_the_url_needs_no_restart() -> anyhow::Result<()> {
    let (env, port) = Standby::primary("wal_level=replica").await?;
    sqlx::raw_sql("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'one'").execute(&env.db).await?;
    let rules = env.file("postgres/data/pg_hba.conf");
    let others = std::fs::read_to_string(&rules)?;
    std::fs::write(&rules, format!("host all app 127.0.0.1/32 scram-sha-256\n{others}"))?;
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&env.db).await?;
    let file = env.file("url");
    let write = |password: &str| std::fs::write(&file, format!("postgres://app:{password}@127.0.0.1:{port}/pulse\n"));
    write("one")?;
    let flags = ["--database-url-file", file.to_str().unwrap_or_default()];
    let api = Process::start(&env, "api", &flags).await?;
    let worker = Process::start(&env, "worker", &flags).await?;
    api.client("ada").post_event("page_view").await?;
    env.wait_until_settled(TIMEOUT).await?;

    sqlx::raw_sql("ALTER ROLE app PASSWORD 'two'").execute(&env.db).await?;
    write("two")?;
    let sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    assert!(env.number(sessions).await? > 2);
    let event = serde_json::json!({ "event_name": "page_view", "event_type": "t" });
    let accepts = async || Ok(api.client("ada").post("/api/v1/events", &event).await?.status == 202);
    eventually("events are accepted", TIMEOUT, accepts).await?;
    eventually("the worker is ready", TIMEOUT, async || Ok(worker.admin().get("/readyz").await?.status == 200)).await?;
    env.wait_until_settled(TIMEOUT).await
}
