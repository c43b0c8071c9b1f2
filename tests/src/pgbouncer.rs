//! A private PgBouncer in front of a test's PostgreSQL.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Signal, getuid};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::env::TestEnv;
use crate::host::{free_port, send_signal};
use crate::wait::eventually;

const START_TIMEOUT: Duration = Duration::from_secs(20);

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
        let mut command = Command::new("setpriv");
        if getuid().is_root() {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.args(["--pdeathsig", "KILL", "--", "pgbouncer"]).arg(&config);
        command.env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin").kill_on_drop(true);
        let log = std::fs::File::create(env.file("pgbouncer.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let bouncer = Self { child, config, sockets, port };
        let listens = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        let started = eventually("PgBouncer listens", START_TIMEOUT, listens).await;
        started.with_context(|| {
            let log = std::fs::read_to_string(env.file("pgbouncer.log")).unwrap_or_default();
            format!("on Debian, run `apt-get install pgbouncer`: {log}")
        })?;
        Ok(bouncer)
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
