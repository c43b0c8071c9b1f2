//! A PostgreSQL with a streaming standby, both with a port of 127.0.0.1.

use std::time::Duration;

use pulse::datastores::{Postgres, PostgresConfig};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::backup::{base_backup, server_folder};
use crate::env::TestEnv;
use crate::host::free_port;
use crate::wait::eventually;

/// A standby of a test's PostgreSQL. It ends when this is dropped.
pub struct Standby {
    postgres: Postgres,
    /// URL with both servers, the primary first.
    pub urls: String,
}

impl Standby {
    /// Starts PostgreSQL and Redis, and applies the migrations. PostgreSQL listens on a port, and `setting` is one more of
    /// its settings, `name=value`.
    ///
    /// # Errors
    /// If a server does not start or the migrations fail.
    pub async fn primary(setting: &str) -> anyhow::Result<(TestEnv, u16)> {
        let port = free_port()?;
        let env = TestEnv::with_servers(|config| config.with_port(port).with_setting(setting), |redis| redis).await?;
        env.migrate().await?;
        Ok((env, port))
    }

    /// Copies the PostgreSQL of `env`, which listens on `port`, and starts the copy as its standby with the name `name`.
    ///
    /// # Errors
    /// If it cannot be copied, or the standby does not start.
    pub async fn start(env: &TestEnv, port: u16, name: &str) -> anyhow::Result<Self> {
        let folder = env.file(name);
        server_folder(&folder)?;
        let own = free_port()?;
        let dbname = format!("--dbname=application_name={name}");
        base_backup(port, &folder, &["--write-recovery-conf", &dbname]).await?;
        let postgres = Postgres::start(PostgresConfig::in_dir(folder).with_port(own)).await?;
        let urls = format!("postgres://pulse@127.0.0.1:{port},127.0.0.1:{own}/pulse?target_session_attrs=read-write");
        Ok(Self { postgres, urls })
    }

    /// URL of the standby alone, over its socket.
    pub fn url(&self) -> String {
        self.postgres.url("pulse")
    }

    /// Makes it the primary.
    ///
    /// # Errors
    /// If it cannot be promoted.
    pub async fn promote(&self) -> anyhow::Result<()> {
        self.run("SELECT pg_promote()").await
    }

    /// Has it receive nothing more, as behind a network that fails.
    ///
    /// # Errors
    /// If it still receives after 20 s.
    pub async fn cut_off(&self) -> anyhow::Result<()> {
        self.run("ALTER SYSTEM SET primary_conninfo = ''").await?;
        self.run("SELECT pg_reload_conf()").await?;
        let options: PgConnectOptions = self.url().parse()?;
        let mut connection = options.connect().await?;
        eventually("it receives nothing", Duration::from_secs(20), async || {
            let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
            let receivers: i64 = sqlx::query_scalar(receivers).fetch_one(&mut connection).await?;
            Ok(receivers == 0)
        })
        .await
    }

    async fn run(&self, statement: &'static str) -> anyhow::Result<()> {
        let options: PgConnectOptions = self.url().parse()?;
        let mut connection = options.connect().await?;
        sqlx::raw_sql(statement).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}
