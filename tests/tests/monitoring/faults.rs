//! Each fault raises its alert, with the rules' minutes as seconds, and the first command of the runbook shows the cause.

use std::time::Duration;

use pulse_tests::documented::Shell;
use pulse_tests::{Process, Prometheus, TestEnv, eventually, pulse_output};
use rustix::process::Signal;
use serde_json::json;

use crate::{TIMEOUT, rules, runbook};

/// The processes of an instance, and the Prometheus that scrapes them.
struct Instance {
    env: TestEnv,
    api: Process,
    worker: Process,
    scheduler: Process,
    console: Process,
    prometheus: Prometheus,
}

impl Instance {
    async fn start() -> anyhow::Result<Self> {
        Self::with_scheduler(&[]).await
    }

    async fn with_scheduler(flags: &[&str]) -> anyhow::Result<Self> {
        let env = TestEnv::with_redis_setting("maxmemory", "64mb").await?;
        let api = Process::start(&env, "api", &[]).await?;
        let worker = Process::start(&env, "worker", &["--retry-base", "1"]).await?;
        let scheduler = Process::start(&env, "scheduler", flags).await?;
        let console = Process::start(&env, "console", &["--access-log", "errors"]).await?;
        let admins = [&api.admin, &worker.admin, &scheduler.admin, &console.admin].map(String::as_str);
        let prometheus = Prometheus::start(&env, &admins, &rules::scaled()?).await?;
        let instance = Self { env, api, worker, scheduler, console, prometheus };
        instance.until_scraped().await?;
        Ok(instance)
    }

    async fn until_scraped(&self) -> anyhow::Result<()> {
        let scraped = "pulse_scheduler_leader == 1 and on (app_kubernetes_io_instance) pulse_events_accepted_total";
        eventually("all are scraped", TIMEOUT, async || Ok(!self.prometheus.query(scraped).await?.is_empty())).await
    }

    /// Waits until the alert fires, and posts an event each second meanwhile. Then the runbook has to show the cause.
    async fn raises(&self, alert: &str, event_name: &str, cause: &str) -> anyhow::Result<()> {
        let client = self.api.client("ada");
        let event = json!({ "event_name": event_name, "event_type": "t" });
        eventually(&format!("{alert} fires"), TIMEOUT, async || {
            // While something is down, posts may fail.
            let _ = tokio::time::timeout(Duration::from_secs(3), client.post("/api/v1/events", &event)).await;
            Ok(self.prometheus.firing(alert).await?.is_some())
        })
        .await?;
        runbook::shows(&self.shell()?, &self.prometheus, alert, cause).await
    }

    /// A shell in which `pulse` and the logs of a pod are those of this instance.
    fn shell(&self) -> anyhow::Result<Shell> {
        let mut shell =
            Shell::new(&self.env)?.replacing("kubectl -n shop exec deploy/main-scheduler -- /pulse", "pulse");
        for (role, process) in [("scheduler", &self.scheduler), ("console", &self.console)] {
            for since in ["5m", "15m", "1h"] {
                let logs = format!("kubectl -n shop logs deploy/main-{role} --since={since}");
                shell = shell.replacing(&logs, &format!("cat {}", process.log.display()));
            }
        }
        Ok(shell)
    }

    async fn sql(&self, statement: &'static str) -> anyhow::Result<()> {
        sqlx::raw_sql(statement).execute(&self.env.db).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_tasks_a_pause_and_refused_sign_ins_raise_alerts() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    instance.raises("PulseRetryRateHigh", "fail_with:no such order", "no such order").await?;
    instance.raises("PulseDeadTasks", "invalid", "It is dead since").await?;
    for _ in 0..30 {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        instance.console.client("").send(http::Method::POST, "/login", &form, "token=wrong".into()).await?;
    }
    instance.raises("PulseSignInsRefused", "page_view", "/login").await?;
    let (code, output) = pulse_output(&instance.env, &["pause", "--because", "a test"]).await?;
    assert_eq!(code, 0, "{output}");
    instance.raises("PulsePausedLong", "page_view", "a test").await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_workers_and_schedulers_raise_alerts() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    instance.worker.signal(Signal::STOP)?;
    let batch: Vec<_> = (0..100).map(|_| json!({ "event_name": "page_view", "event_type": "t" })).collect();
    for _ in 0..12 {
        instance.api.client("grace").post("/api/v1/events/batch", &json!({ "events": batch })).await?;
    }
    instance.raises("PulseWorkersStalled", "page_view", "is stopped or hangs").await?;
    instance.raises("PulseBacklogGrows", "page_view", "grace").await?;
    instance.sql("UPDATE tasks SET created_at = created_at - interval '1 hour'").await?;
    instance.raises("PulseTasksWait", "page_view", "is stopped or hangs").await?;
    instance.scheduler.signal(Signal::STOP)?;
    instance.raises("PulseSchedulerMissing", "page_view", "| t").await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_stores_raise_alerts() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    instance.env.kill_and_wipe_redis().await?;
    instance.raises("PulseRedisUnavailable", "page_view", "that Redis runs").await?;
    instance.raises("PulseJobFails", "page_view", "failed").await?;
    instance.env.crash_postgres().await?;
    instance.raises("PulseErrorBudgetBurnsFast", "page_view", r#""code":"unavailable""#).await?;
    instance.raises("PulseErrorBudgetBurnsSlowly", "page_view", r#""status":"503""#).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_redis_and_rows_in_the_wrong_place_raise_alerts() -> anyhow::Result<()> {
    let instance = Instance::with_scheduler(&["--retain-events", "90d"]).await?;
    for command in ["create", "hold"] {
        let (code, output) = pulse_output(&instance.env, &["user", command, "ada"]).await?;
        assert_eq!(code, 0, "{output}");
    }
    let redis = redis::Client::open(instance.env.redis_url.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    redis::cmd("SETRANGE").arg("other").arg(60_000_000).arg("x").query_async::<i64>(&mut redis).await?;
    instance.raises("PulseRedisMemoryHigh", "page_view", "used_memory_human:6").await?;
    instance
        .sql(
            "CREATE TABLE events_y2020m01 PARTITION OF events FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
             INSERT INTO events (user_id, event_name, event_type, task_id, processed, created_at)
             SELECT id, 'a', 't', gen_random_uuid(), true, day::timestamptz
             FROM users, unnest(ARRAY['2020-01-02Z', '2090-01-02Z']) AS day",
        )
        .await?;
    instance.raises("PulseDefaultPartitionUsed", "page_view", "2090-01-01").await?;
    instance.raises("PulseRetentionBlocked", "page_view", "who is held").await
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_table_raises_alerts_of_slow_commits() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    let db = instance.env.db.clone();
    // Less than the two seconds that a commit waits for a lock.
    let locks = async {
        loop {
            sqlx::raw_sql("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT")
                .execute(&db)
                .await?;
        }
    };
    let alerts = async {
        instance.raises("PulsePostsSlow", "page_view", r#""value""#).await?;
        instance.raises("PulsePostgresqlSlow", "page_view", "LOCK TABLE events").await
    };
    tokio::select! {
        never = locks => never,
        raised = alerts => raised,
    }
}
