//! The harness: a private PostgreSQL and Redis per test, and the real binary in as many processes as a test wants.
//!
//! Nothing is mocked. Tests wait for conditions, with a deadline, and never for time.

mod client;
pub mod cluster;
mod kubelet;
mod load;
pub mod operator;
mod process;
mod python;
pub mod queue;
pub mod snapshot;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use pulse::datastores::{DataDir, Postgres, PostgresConfig, Redis, RedisConfig};
use rustix::process::Signal;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tokio::time::Instant;

pub use client::{Answer, Client, token};
pub use load::{load, report};
pub use process::{Process, binary, pulse, pulse_output, send_signal};
pub use python::{python_tool, python_with, repository, run};

/// The secret of every test's tokens.
pub const SECRET: &str = "a-secret-for-tests-of-32-bytes-or-more";

/// A test's PostgreSQL and Redis.
pub struct World {
    /// Holds everything that the test writes.
    pub data: DataDir,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// Where PostgreSQL is.
    pub database_url: String,
    /// Where Redis is.
    pub redis_url: String,
    redis_config: RedisConfig,
    /// For looking at the database.
    pub db: PgPool,
}

impl World {
    /// Starts both, and migrates.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_redis_setting("appendonly", "yes").await
    }

    /// The same, with one more setting for Redis.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn with_redis_setting(name: &str, value: &str) -> anyhow::Result<Self> {
        let world = Self::servers(name, value).await?;
        let (code, output) = pulse_output(&world, &["migrate"]).await?;
        anyhow::ensure!(code == 0, "pulse migrate: {output}");
        Ok(world)
    }

    /// Starts both, and leaves the database empty: for somebody else to migrate.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn unmigrated() -> anyhow::Result<Self> {
        Self::servers("appendonly", "yes").await
    }

    async fn servers(name: &str, value: &str) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let redis_config = RedisConfig::in_dir(data.path().join("redis")).with_setting(name, value);
        let postgres = Postgres::start(PostgresConfig::in_dir(data.path().join("postgres"))).await?;
        let redis = Redis::start(redis_config.clone()).await?;
        let database_url = postgres.url("pulse");
        let redis_url = redis.url();
        let db = PgPoolOptions::new().max_connections(3).connect_lazy(&database_url)?;
        Ok(Self { data, postgres: Some(postgres), redis: Some(redis), database_url, redis_url, redis_config, db })
    }

    /// Ends Redis at once and deletes all that it kept.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn lose_redis(&mut self) -> anyhow::Result<()> {
        self.redis.take().context("Redis runs")?.kill().await?;
        std::fs::remove_dir_all(self.data.path().join("redis"))?;
        Ok(())
    }

    /// Sends Redis a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal_redis(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.redis.as_ref().and_then(Redis::pid), signal)
    }

    /// Starts Redis again.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_redis(&mut self) -> anyhow::Result<()> {
        self.redis = Some(Redis::start(self.redis_config.clone()).await?);
        Ok(())
    }

    /// Ends PostgreSQL as a crash does.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn crash_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres.take().context("PostgreSQL runs")?.stop_immediate().await
    }

    /// Starts PostgreSQL again.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres = Some(Postgres::start(PostgresConfig::in_dir(self.data.path().join("postgres"))).await?);
        Ok(())
    }

    /// The one number that `sql` selects.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await?;
        Ok(row.try_get(0)?)
    }

    /// Waits until nothing is owed any more.
    ///
    /// # Errors
    /// If something still is after `patience`.
    pub async fn settled(&self, patience: Duration) -> anyhow::Result<()> {
        eventually("nothing is owed", patience, async || Ok(self.number("SELECT count(*) FROM tasks").await? == 0))
            .await
    }

    /// A file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// Checks the ledger of a load run: each promised event is stored once, and processed exactly once or buried.
    ///
    /// # Errors
    /// What was broken. Returns how many events were promised.
    pub async fn check_ledger(&self, name: &str) -> anyhow::Result<usize> {
        let text = std::fs::read_to_string(self.file(name))?;
        let mut promised: Vec<i64> = Vec::new();
        for line in text.lines() {
            let answer: Value = serde_json::from_str(line)?;
            promised.extend(answer["event_id"].as_i64());
            promised.extend(answer["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_i64));
        }
        let total = promised.len();
        promised.sort_unstable();
        promised.dedup();
        anyhow::ensure!(promised.len() == total, "an event id was promised twice");
        let row = sqlx::query(
            "SELECT count(*), count(DISTINCT promised.id), count(*) FILTER (WHERE events.id IS NULL),
                    count(*) FILTER (WHERE NOT events.processed AND events.processing_error IS NULL)
             FROM unnest($1::bigint[]) AS promised (id) LEFT JOIN events ON events.id = promised.id",
        )
        .bind(&promised)
        .fetch_one(&self.db)
        .await?;
        let [rows, distinct, missing, open]: [i64; 4] =
            [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
        anyhow::ensure!(rows == distinct, "{} events are stored twice", rows - distinct);
        anyhow::ensure!(missing == 0, "{missing} of {total} promised events are not stored");
        anyhow::ensure!(open == 0, "{open} of {total} promised events are neither processed nor buried");
        let twice = "SELECT count(*) FROM (SELECT id FROM task_history GROUP BY id HAVING count(*) > 1) AS twice";
        anyhow::ensure!(self.number(twice).await? == 0, "a task was settled twice");
        Ok(total)
    }
}

/// Waits until `condition` holds; errors count as "not yet", and the last one is told.
///
/// # Errors
/// If it does not within `patience`.
pub async fn eventually(
    what: &str,
    patience: Duration,
    condition: impl AsyncFn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let state = condition().await;
        match state {
            Ok(true) => return Ok(()),
            _ if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(25)).await,
            Ok(false) => bail!("not within {} s: {what}", patience.as_secs_f64()),
            Err(error) => return Err(error.context(format!("not within {} s: {what}", patience.as_secs_f64()))),
        }
    }
}
