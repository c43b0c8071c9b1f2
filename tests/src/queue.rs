//! A private Redis that holds what a test puts into a queue, and a stand-in for the scheduler that says the rest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pulse::datastores::{DataDir, Redis, RedisConfig};
use redis::{Client, FromRedisValue};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::eventually;
use crate::process::send_signal;

const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);

/// What the scheduler would read from PostgreSQL.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    /// Nothing is said any more.
    pub silent: bool,
    /// Tasks that are due and not in the stream.
    pub due_not_enqueued: i64,
    /// When the next retry falls due.
    pub next_due: Option<SystemTime>,
    /// Tasks ever accepted.
    pub accepted: i64,
    /// Tasks ever settled.
    pub settled: i64,
}

/// The queue of one ingest. Redis ends when it is dropped.
pub struct TestQueue {
    redis: Option<Redis>,
    config: RedisConfig,
    client: Client,
    /// Where it is.
    pub url: String,
    tasks_key: String,
    said: Arc<Mutex<Said>>,
    _scheduler: JoinSet<()>,
    _data: DataDir,
}

impl TestQueue {
    /// Starts Redis, and the scheduler's stand-in, for an ingest called `<namespace>/<name>`.
    ///
    /// # Errors
    /// If Redis does not start.
    pub async fn start(ingest: &str) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let config = RedisConfig::in_dir(data.path().join("redis"));
        let redis = Redis::start(config.clone()).await?;
        let url = redis.url();
        let client = Client::open(url.as_str())?;
        let said = Arc::new(Mutex::new(Said::default()));
        let mut scheduler = JoinSet::new();
        scheduler.spawn(publish(client.clone(), format!("pulse:{{{ingest}}}:gauges"), said.clone()));
        Ok(Self {
            redis: Some(redis),
            config,
            client,
            url,
            tasks_key: format!("pulse:{{{ingest}}}:tasks"),
            said,
            _scheduler: scheduler,
            _data: data,
        })
    }

    /// What the scheduler says from now on.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds tasks to the stream.
    ///
    /// # Errors
    /// If Redis does not take them.
    pub async fn add(&self, tasks: usize) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        for task in 0..tasks {
            pipeline.cmd("XADD").arg(&self.tasks_key).arg("*").arg("task_id").arg(task).ignore();
        }
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        Ok(pipeline.query_async(&mut connection).await?)
    }

    /// Removes all tasks from the stream.
    ///
    /// # Errors
    /// If Redis does not.
    pub async fn drain(&self) -> anyhow::Result<()> {
        self.command(&["XTRIM", &self.tasks_key, "MAXLEN", "0"]).await
    }

    /// Puts something else where the stream should be.
    ///
    /// # Errors
    /// If Redis does not.
    pub async fn spoil(&self) -> anyhow::Result<()> {
        self.command(&["SET", &self.tasks_key, "something else"]).await
    }

    /// Runs a command.
    ///
    /// # Errors
    /// If Redis refuses it.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        self.command_at(&self.client, words).await
    }

    /// The same, with a password.
    ///
    /// # Errors
    /// If Redis refuses it.
    pub async fn command_as(&self, password: &str, words: &[&str]) -> anyhow::Result<()> {
        let client = Client::open(format!("{}?pass={password}", self.url.replace("unix://", "redis+unix://")))?;
        self.command_at(&client, words).await
    }

    async fn command_at<T: FromRedisValue>(&self, client: &Client, words: &[&str]) -> anyhow::Result<T> {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        Ok(command.query_async(&mut connection).await?)
    }

    /// Waits until the queue was looked at so many times more.
    ///
    /// # Errors
    /// If it was not, within a minute.
    pub async fn looked_at(&self, times: u64) -> anyhow::Result<()> {
        let before = self.looks().await?;
        let looked = async || Ok(self.looks().await? >= before + times);
        eventually("the queue is looked at", Duration::from_secs(60), looked).await
    }

    async fn looks(&self) -> anyhow::Result<u64> {
        let text: String = self.command(&["INFO", "commandstats"]).await?;
        let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_xlen:calls="));
        Ok(calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0))
    }

    /// Ends Redis at once.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.redis.take().context("Redis runs")?.kill().await
    }

    /// Starts Redis again, with what it had.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.redis = Some(Redis::start(self.config.clone()).await?);
        Ok(())
    }

    /// Sends Redis a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.redis.as_ref().and_then(Redis::pid), signal)
    }
}

async fn publish(client: Client, key: String, said: Arc<Mutex<Said>>) {
    loop {
        let said = *said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.silent {
            // A Redis that is away is what the test wants.
            let _ = tokio::time::timeout(PATIENCE, publish_once(&client, &key, said)).await;
        }
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}

async fn publish_once(client: &Client, key: &str, said: Said) -> redis::RedisResult<()> {
    let Said { silent: _, due_not_enqueued, next_due, accepted, settled } = said;
    let now = SystemTime::now();
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let at = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis);
    let next = next_due.map_or(-1, |due| due.duration_since(now).map_or(0, millis));
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd("HSET");
    command.arg(key).arg("at_ms").arg(at).arg("unsettled").arg(due_not_enqueued + i64::from(next >= 0));
    command.arg("due_not_enqueued").arg(due_not_enqueued).arg("next_due_ms").arg(next).arg("oldest_age_ms").arg(0);
    command.arg("accepted_total").arg(accepted).arg("settled_total").arg(settled).arg("busy_worker_ms").arg(0);
    command.query_async(&mut connection).await
}
