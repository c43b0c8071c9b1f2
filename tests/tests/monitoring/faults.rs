//! Each fault raises its alert, with the rules' minutes as seconds.

use std::time::Duration;

use pulse_tests::{Process, Prometheus, TestEnv, eventually, pulse_output};
use rustix::process::Signal;
use serde_json::json;

use crate::{TIMEOUT, rules};

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
        let env = TestEnv::with_redis_setting("maxmemory", "64mb").await?;
        let api = Process::start(&env, "api", &[]).await?;
        let worker = Process::start(&env, "worker", &["--retry-base", "1"]).await?;
        let scheduler = Process::start(&env, "scheduler", &[]).await?;
        let console = Process::start(&env, "console", &[]).await?;
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

    /// Waits until the alert fires, and posts an event each second meanwhile.
    async fn raises(&self, alert: &str, event_name: &str) -> anyhow::Result<()> {
        let client = self.api.client("ada");
        let event = json!({ "event_name": event_name, "event_type": "t" });
        eventually(&format!("{alert} fires"), TIMEOUT, async || {
            // While something is down, posts may fail.
            let _ = tokio::time::timeout(Duration::from_millis(500), client.post("/api/v1/events", &event)).await;
            Ok(self.prometheus.firing(alert).await?.is_some())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_tasks_a_pause_and_refused_sign_ins_raise_alerts() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    instance.raises("PulseRetryRateHigh", "fail").await?;
    instance.raises("PulseDeadTasks", "invalid").await?;
    for _ in 0..30 {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        instance.console.client("").send(http::Method::POST, "/login", &form, "token=wrong".into()).await?;
    }
    instance.raises("PulseSignInsRefused", "page_view").await?;
    let (code, output) = pulse_output(&instance.env, &["pause", "--because", "a test"]).await?;
    assert_eq!(code, 0, "{output}");
    instance.raises("PulsePausedLong", "page_view").await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_workers_and_schedulers_raise_alerts() -> anyhow::Result<()> {
    let instance = Instance::start().await?;
    instance.worker.signal(Signal::STOP)?;
    instance.raises("PulseWorkersStalled", "page_view").await?;
    sqlx::query("UPDATE tasks SET created_at = created_at - interval '1 hour'").execute(&instance.env.db).await?;
    instance.raises("PulseTasksWait", "page_view").await?;
    instance.scheduler.signal(Signal::STOP)?;
    instance.raises("PulseSchedulerMissing", "page_view").await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_stores_and_apis_raise_alerts() -> anyhow::Result<()> {
    let mut instance = Instance::start().await?;
    instance.env.kill_and_wipe_redis().await?;
    instance.raises("PulseRedisUnavailable", "page_view").await?;
    instance.env.crash_postgres().await?;
    instance.raises("PulseErrorBudgetBurnsFast", "page_view").await?;
    instance.raises("PulseErrorBudgetBurnsSlowly", "page_view").await?;
    let Instance { api, prometheus, .. } = &mut instance;
    api.stop().await?;
    eventually("PulseApiDown fires", TIMEOUT, async || Ok(prometheus.firing("PulseApiDown").await?.is_some())).await
}
