//! A private PgBouncer in front of a test's PostgreSQL.

use std::path::PathBuf;

use anyhow::Context;
use rustix::process::{Signal, getuid};
use tokio::process::Child;

use crate::daemon;
use crate::env::TestEnv;
use crate::host::{free_port, send_signal};

/// A running PgBouncer with the settings of its package. It is killed when this is dropped.
pub struct PgBouncer {
    child: Child,
    config: PathBuf,
    sockets: String,
    port: u16,
}

impl PgBouncer {
    /// Starts PgBouncer with this `pool_mode`, and waits until it accepts connections.
    ///
    /// # Errors
    /// If it is not installed, or does not start within 20 s.
    pub async fn start(env: &TestEnv, pool_mode: &str) -> anyhow::Result<Self> {
        let config = env.file("pgbouncer.ini");
        let (_, sockets) = env.database_url.split_once("?host=").context("PostgreSQL listens on a unix socket")?;
        let (port, sockets) = (free_port()?, sockets.to_owned());
        write_config(&config, &sockets, port, pool_mode)?;
        // PgBouncer refuses to run as root, and the socket's folder belongs to uid 65534 then.
        let unprivileged = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let privileges: &[&str] = if getuid().is_root() { &unprivileged } else { &[] };
        let child = daemon::start(env, "pgbouncer", privileges, &[&config.display().to_string()], port).await?;
        Ok(Self { child, config, sockets, port })
    }

    /// URL of the database through PgBouncer.
    pub fn url(&self) -> String {
        format!("postgres://pulse@127.0.0.1:{}/pulse", self.port)
    }

    /// Changes `pool_mode` while clients are connected.
    ///
    /// # Errors
    /// If the configuration cannot be written, or PgBouncer has ended.
    pub fn set_pool_mode(&self, pool_mode: &str) -> anyhow::Result<()> {
        write_config(&self.config, &self.sockets, self.port, pool_mode)?;
        send_signal(self.child.id(), Signal::HUP)
    }
}

fn write_config(path: &PathBuf, sockets: &str, port: u16, pool_mode: &str) -> anyhow::Result<()> {
    let config = format!(
        "[databases]\npulse = host={sockets} port=5432 user=pulse\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         default_pool_size = 50\npool_mode = {pool_mode}\n"
    );
    std::fs::write(path, config).with_context(|| format!("cannot write {}", path.display()))
}
