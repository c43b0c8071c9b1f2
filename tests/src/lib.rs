//! The harness: a private PostgreSQL and Redis per test, and the real binary in as many processes as a test wants.
//!
//! Nothing is mocked. Tests wait for conditions, with a deadline, and never for time.

mod cargo;
mod client;
pub mod cluster;
mod kubelet;
mod ledger;
mod load;
pub mod operator;
mod pki;
mod process;
mod python;
pub mod queue;
pub mod snapshot;
pub mod tiltfile;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use pulse::datastores::{DataDir, Postgres, PostgresConfig, Redis, RedisConfig};
use rustix::process::Signal;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tokio::time::Instant;

pub use cargo::{forget_cargo, target_of_copy};
pub use client::{Answer, Client, token};
pub use ledger::check_ledger;
pub use load::{load, report};
pub use process::{Process, binary, free_port, pulse, pulse_output, send_signal};
pub use python::{python_tool, python_with, repository, run};
pub use tls::{TlsServers, ca_of_nobody};

/// The secret of every test's tokens.
pub const SECRET: &str = "a-secret-for-tests-of-32-bytes-or-more";

/// A test's PostgreSQL and Redis.
pub struct TestEnv {
    /// Holds everything that the test writes.
    pub data: DataDir,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// Where PostgreSQL is.
    pub database_url: String,
    /// Where Redis is.
    pub redis_url: String,
    postgres_config: PostgresConfig,
    redis_config: RedisConfig,
    /// For looking at the database.
    pub db: PgPool,
}

impl TestEnv {
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
        let world = Self::with_servers(|postgres| postgres, |redis| redis.with_setting(name, value)).await?;
        let (code, output) = pulse_output(&world, &["migrate"]).await?;
        anyhow::ensure!(code == 0, "pulse migrate: {output}");
        Ok(world)
    }

    /// Starts both, and leaves the database empty: for somebody else to migrate.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn unmigrated() -> anyhow::Result<Self> {
        Self::with_servers(|postgres| postgres, |redis| redis).await
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn with_servers(
        postgres: impl FnOnce(PostgresConfig) -> PostgresConfig,
        redis: impl FnOnce(RedisConfig) -> RedisConfig,
    ) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let postgres_config = postgres(PostgresConfig::in_dir(data.path().join("postgres")));
        let redis_config = redis(RedisConfig::in_dir(data.path().join("redis")));
        let postgres = Postgres::start(postgres_config.clone()).await?;
        let redis = Redis::start(redis_config.clone()).await?;
        let database_url = postgres.url("pulse");
        let redis_url = redis.url();
        let db = PgPoolOptions::new().max_connections(3).connect_lazy(&database_url)?;
        Ok(Self {
            data,
            postgres: Some(postgres),
            redis: Some(redis),
            database_url,
            redis_url,
            postgres_config,
            redis_config,
            db,
        })
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
        self.postgres = Some(Postgres::start(self.postgres_config.clone()).await?);
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

    /// Checks the ledger of a load run, as [`check_ledger`] does.
    ///
    /// # Errors
    /// What was broken. Returns how many events were promised.
    pub async fn check_ledger(&self, name: &str) -> anyhow::Result<usize> {
        check_ledger(&self.db, &self.file(name)).await
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
