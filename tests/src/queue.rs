//! A private Redis with a task stream that the test fills, and a stand-in for the scheduler that publishes the gauges.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pulse::datastores::{DataDir, Redis, RedisConfig};
use redis::{Client, FromRedisValue};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::host::{free_port, send_signal};
use crate::wait::eventually;

const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Gauges that the scheduler would read from PostgreSQL and publish in Redis.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishedGauges {
    /// Stops the publication, as if the scheduler were down.
    pub stopped: bool,
    /// Tasks that are due and not enqueued.
    pub due_not_enqueued: i64,
    /// Time at which the next retry is due.
    pub next_due: Option<SystemTime>,
    /// Tasks accepted since the start, a counter.
    pub accepted: i64,
    /// Attempts that ended since the start, a counter.
    pub attempts: i64,
    /// Attempts that ended in a retry since the start, a counter.
    pub retried: i64,
    /// Time of attempts since the start, in milliseconds, a counter.
    pub attempt_ms: i64,
}

/// Queue of one instance. Redis ends when this is dropped.
pub struct TestQueue {
    redis: Option<Redis>,
    config: RedisConfig,
    client: Client,
    /// URL of Redis.
    pub url: String,
    tasks_key: String,
    bulk_key: String,
    gauges: Arc<Mutex<PublishedGauges>>,
    _scheduler: JoinSet<()>,
    _data: DataDir,
}

impl TestQueue {
    /// Starts Redis and the stand-in for the scheduler, for the instance `<namespace>/<name>`.
    ///
    /// # Errors
    /// If Redis does not start.
    pub async fn start(instance: &str) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let port = free_port()?;
        let config = RedisConfig::in_dir(data.path().join("redis"))
            .with_setting("port", &port.to_string())
            .with_setting("bind", "127.0.0.1");
        let redis = Redis::start(config.clone()).await?;
        // An operator connects to no unix socket.
        let url = format!("redis://127.0.0.1:{port}");
        let client = Client::open(url.as_str())?;
        let gauges = Arc::new(Mutex::new(PublishedGauges::default()));
        let mut scheduler = JoinSet::new();
        scheduler.spawn(publish(client.clone(), format!("pulse:{{{instance}}}:gauges"), gauges.clone()));
        Ok(Self {
            redis: Some(redis),
            config,
            client,
            url,
            tasks_key: format!("pulse:{{{instance}}}:tasks"),
            bulk_key: format!("pulse:{{{instance}}}:bulk"),
            gauges,
            _scheduler: scheduler,
            _data: data,
        })
    }

    /// Gauges that are published from now on; change them through the guard.
    pub fn gauges(&self) -> MutexGuard<'_, PublishedGauges> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries for this number of tasks to the stream of all users.
    ///
    /// # Errors
    /// If Redis refuses the command.
    pub async fn add(&self, tasks: usize) -> anyhow::Result<()> {
        self.add_to(&self.tasks_key, tasks).await
    }

    /// Adds entries for this number of tasks to the stream of deep users.
    ///
    /// # Errors
    /// If Redis refuses the command.
    pub async fn add_bulk(&self, tasks: usize) -> anyhow::Result<()> {
        self.add_to(&self.bulk_key, tasks).await
    }

    async fn add_to(&self, stream: &str, tasks: usize) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        for task in 0..tasks {
            pipeline.cmd("XADD").arg(stream).arg("*").arg("task_id").arg(task).ignore();
        }
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        Ok(pipeline.query_async(&mut connection).await?)
    }

    /// Removes all entries from both streams.
    ///
    /// # Errors
    /// If Redis refuses the command.
    pub async fn drain(&self) -> anyhow::Result<()> {
        let () = self.command(&["XTRIM", &self.tasks_key, "MAXLEN", "0"]).await?;
        self.command(&["XTRIM", &self.bulk_key, "MAXLEN", "0"]).await
    }

    /// Replaces the stream with a string, so that stream commands fail with `WRONGTYPE`.
    ///
    /// # Errors
    /// If Redis refuses the command.
    pub async fn replace_stream_with_string(&self) -> anyhow::Result<()> {
        self.command(&["SET", &self.tasks_key, "something else"]).await
    }

    /// Runs a Redis command.
    ///
    /// # Errors
    /// If Redis refuses the command.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        self.run_command(&self.client, words).await
    }

    /// Runs a Redis command with a password.
    ///
    /// # Errors
    /// If Redis refuses the password or the command.
    pub async fn command_as(&self, password: &str, words: &[&str]) -> anyhow::Result<()> {
        let client = Client::open(self.url.replace("redis://", &format!("redis://:{password}@")))?;
        self.run_command(&client, words).await
    }

    async fn run_command<T: FromRedisValue>(&self, client: &Client, words: &[&str]) -> anyhow::Result<T> {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        Ok(command.query_async(&mut connection).await?)
    }

    /// Waits until the operator has sampled the queue this many times more. A sample is counted by its `HGETALL`.
    ///
    /// # Errors
    /// If the samples are not taken within one minute.
    pub async fn wait_for_samples(&self, times: u64) -> anyhow::Result<()> {
        let before = self.samples().await?;
        let sampled = async || Ok(self.samples().await? >= before + times);
        eventually("the queue is sampled", Duration::from_secs(60), sampled).await
    }

    async fn samples(&self) -> anyhow::Result<u64> {
        let text: String = self.command(&["INFO", "commandstats"]).await?;
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:calls="));
        Ok(calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0))
    }

    /// Kills Redis.
    ///
    /// # Errors
    /// If Redis does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.redis.take().context("Redis runs")?.kill().await
    }

    /// Starts Redis again, with the data that it had.
    ///
    /// # Errors
    /// If Redis does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.redis = Some(Redis::start(self.config.clone()).await?);
        Ok(())
    }

    /// Sends a signal to Redis.
    ///
    /// # Errors
    /// If Redis does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.redis.as_ref().and_then(Redis::pid), signal)
    }
}

async fn publish(client: Client, key: String, gauges: Arc<Mutex<PublishedGauges>>) {
    loop {
        let gauges = *gauges.lock().unwrap_or_else(PoisonError::into_inner);
        if !gauges.stopped {
            // A failure is ignored: tests stop Redis on purpose.
            let _ = tokio::time::timeout(PUBLISH_TIMEOUT, publish_once(&client, &key, gauges)).await;
        }
        tokio::time::sleep(PUBLISH_INTERVAL).await;
    }
}

async fn publish_once(client: &Client, key: &str, gauges: PublishedGauges) -> redis::RedisResult<()> {
    let PublishedGauges { stopped: _, due_not_enqueued, next_due, accepted, attempts, retried, attempt_ms } = gauges;
    let now = SystemTime::now();
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let at = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis);
    let next = next_due.map_or(-1, |due| due.duration_since(now).map_or(0, millis));
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd("HSET");
    command.arg(key).arg("at_ms").arg(at).arg("unsettled").arg(due_not_enqueued + i64::from(next >= 0));
    command.arg("due_not_enqueued").arg(due_not_enqueued).arg("next_due_ms").arg(next).arg("oldest_due_ms").arg(-1);
    command.arg("accepted_total").arg(accepted).arg("attempts_total").arg(attempts).arg("retried_total").arg(retried);
    command.arg("attempt_ms_total").arg(attempt_ms);
    command.query_async(&mut connection).await
}
