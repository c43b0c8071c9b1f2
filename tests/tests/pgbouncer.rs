//! PostgreSQL behind a real PgBouncer, and causes of an unavailable PostgreSQL.

use std::time::Duration;

use pulse_tests::{PgBouncer, Process, TestEnv, eventually, pulse_output};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A migrated database whose URL goes through PgBouncer.
async fn start(pool_mode: &str) -> anyhow::Result<(TestEnv, PgBouncer)> {
    let mut env = TestEnv::start().await?;
    let bouncer = PgBouncer::start(&env, pool_mode).await?;
    env.database_url = bouncer.url();
    Ok((env, bouncer))
}

#[tokio::test(flavor = "multi_thread")]
async fn session_mode_works_and_keeps_the_session_settings() -> anyhow::Result<()> {
    let (env, _bouncer) = start("session").await?;
    let (code, output) = pulse_output(&env, &["check"]).await?;
    assert!(code == 0 && output.contains("session settings = applied"), "{code}: {output}");
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    for _ in 0..10 {
        api.client("ada").post_event("a").await?;
    }
    env.wait_until_settled(TIMEOUT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_mode_is_refused_at_start_with_the_remedy() -> anyhow::Result<()> {
    let (env, _bouncer) = start("transaction").await?;
    for (role, is_api) in [("api", true), ("worker", false), ("scheduler", false)] {
        let role = Process::start_unready(&env, role, &[]).await?;
        let ready = role.admin().get("/readyz").await?;
        assert!(ready.status == 503 && ready.text.contains("set pool_mode = session"), "{}", ready.text);
        let logged = async || Ok(std::fs::read_to_string(&role.log)?.contains("set pool_mode = session"));
        eventually("the log has the remedy", TIMEOUT, logged).await?;
        if is_api {
            let answer = role.client("ada").get("/api/v1/events").await?;
            assert_eq!(answer.status, 503, "{}", answer.text);
        }
    }
    for command in ["check", "migrate"] {
        let (code, output) = pulse_output(&env, &[command]).await?;
        assert!(code != 0 && output.contains("set pool_mode = session"), "{command}: {code}: {output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn change_to_transaction_mode_is_never_a_500() -> anyhow::Result<()> {
    let (env, bouncer) = start("session").await?;
    let api = Process::start(&env, "api", &[]).await?;
    api.client("ada").post_event("a").await?;
    bouncer.set_pool_mode("transaction")?;
    let event = json!({"event_name": "a", "event_type": "t"});
    let mut statuses = Vec::new();
    for user in 0..40 {
        let client = api.client(&format!("user-{user}"));
        let (posted, listed) = tokio::join!(client.post("/api/v1/events", &event), client.get("/api/v1/events"));
        statuses.extend([posted?.status, listed?.status]);
    }
    let log = std::fs::read_to_string(&api.log)?;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 202 | 503)), "{statuses:?}\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cause_of_an_unavailable_postgresql_is_in_readyz_and_in_the_log() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    env.database_url = "postgres://pulse:canary@127.0.0.1:1/pulse".into();
    let worker = Process::start_unready(&env, "worker", &[]).await?;
    let ready = worker.admin().get("/readyz").await?;
    assert!(
        ready.status == 503 && ready.text.contains("PostgreSQL is unavailable: Connection refused"),
        "{}",
        ready.text
    );
    let logged = async || Ok(std::fs::read_to_string(&worker.log)?.contains("Connection refused"));
    eventually("the log has the cause", TIMEOUT, logged).await?;
    assert!(!std::fs::read_to_string(&worker.log)?.contains("canary") && !ready.text.contains("canary"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_does_not_wait_for_slow_reads() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--database-max-connections", "1", "--user-max-lists", "0"]).await?;
    let client = api.client("ada");
    client.post_event("a").await?;
    // Readers wait for the table, each with a connection of the pool.
    let mut lock = env.db.begin().await?;
    sqlx::query("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    let reads = async {
        let reads = (0..8).map(|_| client.get("/api/v1/events"));
        futures_util::future::join_all(reads).await
    };
    let probes = async {
        for _ in 0..5 {
            let ready = api.admin().get("/readyz").await?;
            anyhow::ensure!(ready.status == 200, "{}", ready.text);
        }
        Ok(())
    };
    let (reads, probes) = tokio::join!(reads, probes);
    probes?;
    assert!(reads.into_iter().all(|read| read.is_ok_and(|read| read.status == 503)));
    lock.rollback().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_compares_the_connections_of_all_processes_with_max_connections() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let (code, output) = pulse_output(&env, &["check", "--apis", "3", "--workers", "20", "--schedulers", "2"]).await?;
    assert!(code == 0 && output.contains("197 available, up to 170 used"), "{code}: {output}");
    assert!(!output.contains("raise max_connections"), "{output}");
    let (code, output) = pulse_output(&env, &["check", "--workers", "30"]).await?;
    assert!(code == 0 && output.contains("raise max_connections"), "{code}: {output}");
    Ok(())
}
