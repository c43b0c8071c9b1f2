//! A private PostgreSQL and Redis, and commands that use them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse::datastores::{DataDir, Postgres, PostgresConfig, Redis, RedisConfig};
use rustix::process::Signal;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tokio::process::Command;

use crate::client::SECRET;
use crate::host::{binary, send_signal};
use crate::ledger::check_ledger;
use crate::wait::eventually;

/// Private PostgreSQL and Redis of one test.
pub struct TestEnv {
    /// Data folder of both servers and of the test's files. It is removed with this value.
    pub data: DataDir,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// Binary of the processes that are started next: the one under test, unless a test sets another one.
    pub program: PathBuf,
    /// URL of PostgreSQL.
    pub database_url: String,
    /// URL of Redis.
    pub redis_url: String,
    postgres_config: PostgresConfig,
    redis_config: RedisConfig,
    /// Connection pool for the test's own queries.
    pub db: PgPool,
}

impl TestEnv {
    /// Starts PostgreSQL and Redis and applies the migrations.
    ///
    /// # Errors
    /// If a server does not start or the migrations fail.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_redis_setting("appendonly", "yes").await
    }

    /// Like [`start`](Self::start), with one more Redis setting.
    ///
    /// # Errors
    /// If a server does not start or the migrations fail.
    pub async fn with_redis_setting(name: &str, value: &str) -> anyhow::Result<Self> {
        let env = Self::with_servers(|postgres| postgres, |redis| redis.with_setting(name, value)).await?;
        env.migrate().await?;
        Ok(env)
    }

    /// Starts PostgreSQL and Redis and leaves the database empty, for tests in which another process migrates it.
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn unmigrated() -> anyhow::Result<Self> {
        Self::with_servers(|postgres| postgres, |redis| redis).await
    }

    /// Like [`unmigrated`](Self::unmigrated), with other server settings.
    ///
    /// # Errors
    /// If a server does not start.
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
            program: binary(),
            database_url,
            redis_url,
            postgres_config,
            redis_config,
            db,
        })
    }

    /// Applies the migrations.
    ///
    /// # Errors
    /// If they fail; the error has the output of `pulse migrate`.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        let (code, output) = pulse_output(self, &["migrate"]).await?;
        anyhow::ensure!(code == 0, "pulse migrate: {output}");
        Ok(())
    }

    /// Kills Redis and deletes its data folder.
    ///
    /// # Errors
    /// If Redis does not run or its data cannot be deleted.
    pub async fn kill_and_wipe_redis(&mut self) -> anyhow::Result<()> {
        self.redis.take().context("Redis runs")?.kill().await?;
        std::fs::remove_dir_all(self.data.path().join("redis"))?;
        Ok(())
    }

    /// Sends a signal to Redis.
    ///
    /// # Errors
    /// If Redis does not run.
    pub fn signal_redis(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.redis.as_ref().and_then(Redis::pid), signal)
    }

    /// Starts Redis again.
    ///
    /// # Errors
    /// If Redis does not start.
    pub async fn start_redis(&mut self) -> anyhow::Result<()> {
        self.redis = Some(Redis::start(self.redis_config.clone()).await?);
        Ok(())
    }

    /// Stops PostgreSQL in immediate mode, as after a crash: the next start runs recovery.
    ///
    /// # Errors
    /// If PostgreSQL does not run or does not stop.
    pub async fn crash_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres.take().context("PostgreSQL runs")?.stop_immediate().await
    }

    /// Stops all processes of PostgreSQL where they are, until the returned value is dropped: connections stay open, and
    /// nothing answers.
    ///
    /// # Errors
    /// If PostgreSQL does not run.
    pub fn freeze_postgres(&self) -> anyhow::Result<Frozen> {
        let server = std::fs::read_to_string(self.data.path().join("postgres/data/postmaster.pid"))?;
        let server: u32 = server.lines().next().context("a process ID")?.parse()?;
        let frozen = Frozen(std::iter::once(server).chain(children(server)?).collect());
        for pid in &frozen.0 {
            // A child may have ended meanwhile.
            let _ = send_signal(Some(*pid), Signal::STOP);
        }
        Ok(frozen)
    }

    /// Starts PostgreSQL again.
    ///
    /// # Errors
    /// If PostgreSQL does not start.
    pub async fn start_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres = Some(Postgres::start(self.postgres_config.clone()).await?);
        Ok(())
    }

    /// Runs a query and returns the `bigint` in its first row and column.
    ///
    /// # Errors
    /// If the query fails or returns no `bigint`.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await?;
        Ok(row.try_get(0)?)
    }

    /// Waits until no unsettled task is left.
    ///
    /// # Errors
    /// If an unsettled task is left after `timeout`.
    pub async fn wait_until_settled(&self, timeout: Duration) -> anyhow::Result<()> {
        let settled = async || Ok(self.number("SELECT count(*) FROM tasks").await? == 0);
        eventually("every task is settled", timeout, settled).await
    }

    /// Path of the file `name` in the test's data folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// Checks the ledger of a load run with [`check_ledger`] and returns the number of accepted events.
    ///
    /// # Errors
    /// As [`check_ledger`].
    pub async fn check_ledger(&self, name: &str) -> anyhow::Result<usize> {
        check_ledger(&self.db, &self.file(name)).await
    }
}

/// Stopped processes, which continue when this is dropped.
pub struct Frozen(Vec<u32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = send_signal(Some(*pid), Signal::CONT);
        }
    }
}

/// The processes that this one has started.
fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let parent_of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, in parentheses, may contain spaces.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let names = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.filter(|pid| parent_of(*pid) == Some(parent)).collect())
}

/// Command of the binary under test, with the environment variables that every role needs.
pub fn pulse(env: &TestEnv, args: &[&str]) -> Command {
    let mut command = Command::new(&env.program);
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    command.env("PULSE_LOG_FORMAT", "json");
    for (variable, url, file) in [
        ("PULSE_DATABASE_URL", &env.database_url, "--database-url-file"),
        ("PULSE_REDIS_URL", &env.redis_url, "--redis-url-file"),
    ] {
        if !args.contains(&file) {
            command.env(variable, url);
        }
    }
    // A role takes the HMAC secret, or other keys.
    let has_keys = ["--jwt-public-key-file", "--jwt-secret-file", "--jwks-url"].iter().any(|flag| args.contains(flag));
    if !has_keys {
        command.env("PULSE_JWT_SECRET", SECRET);
    }
    command
}

/// Runs a `pulse` command to completion. Returns its exit code (-1 after a signal) and stdout followed by stderr.
///
/// # Errors
/// If the binary cannot be started, or runs for longer than two minutes.
pub async fn pulse_output(env: &TestEnv, args: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = tokio::time::timeout(Duration::from_secs(120), pulse(env, args).output()).await;
    let output =
        output.with_context(|| format!("pulse {args:?} did not end"))?.context("failed to start the binary")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}
