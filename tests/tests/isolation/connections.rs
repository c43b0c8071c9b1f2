//! The connections of many processes.

use std::time::Duration;

use futures_util::future::try_join_all;
use pulse_tests::{Process, TestEnv, eventually, load, pulse_output, report};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_workers_and_three_apis_need_fewer_than_100_connections() -> anyhow::Result<()> {
    let env = TestEnv::with_servers(
        |postgres| postgres.with_setting("max_connections=100"),
        |redis| redis.with_setting("appendonly", "no"),
    )
    .await?;
    let (code, output) = pulse_output(&env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let apis = try_join_all((0..3).map(|_| Process::start(&env, "api", &[]))).await?;
    let workers = (0..20).map(|_| Process::spawn(&env, "worker", &["--concurrency", "2"]));
    let workers: Vec<Process> = workers.collect::<anyhow::Result<_>>()?;
    for worker in &workers {
        let is_ready = async || Ok(worker.admin().get("/readyz").await?.status == 200);
        eventually("the worker is ready", Duration::from_secs(60), is_ready).await?;
    }
    let loads = apis.iter().map(|api| load(&env, api, 50, 4)).collect::<anyhow::Result<Vec<_>>>()?;
    for load in loads {
        let report = report(load).await?;
        assert_eq!(report["refused"], serde_json::json!({}), "{report}");
    }
    env.wait_until_settled(Duration::from_secs(30)).await?;
    // PostgreSQL keeps three of the 100 for superusers, such as this test.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pulse %'";
    let open = env.number(open).await?;
    assert!(open < 97, "{open} connections");
    for process in apis.iter().chain(&workers) {
        let log = std::fs::read_to_string(&process.log)?;
        assert!(!log.contains("too many clients"), "{log}");
    }
    Ok(())
}
