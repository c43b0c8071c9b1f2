//! A private Redis server.

use std::path::PathBuf;

use anyhow::Context;
use rustix::process::Signal;
use tokio::net::UnixStream;

use super::process::{self, ServerProcess};

const INSTALL: &str = "Redis is not installed: on Debian, run `apt-get install redis-server`";

/// How to start Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    directory: PathBuf,
    settings: Vec<(String, String)>,
}

impl RedisConfig {
    /// Keeps data, socket and log in `directory`, which [`Redis::start`] creates if it does not exist.
    pub fn in_dir(directory: PathBuf) -> Self {
        Self { directory, settings: Vec::new() }
    }

    /// Adds a setting of redis.conf.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running Redis server.
pub struct Redis {
    server: ServerProcess,
    socket: PathBuf,
    version: String,
}

impl Redis {
    /// Starts a server with an append-only file and `noeviction`, as in production, and waits until it accepts
    /// connections.
    ///
    /// # Errors
    /// If neither Redis nor Valkey is installed, or the server does not start within 30 s; the error has the end of its
    /// log.
    pub async fn start(config: RedisConfig) -> anyhow::Result<Self> {
        let RedisConfig { directory, settings } = config;
        let program =
            process::find("redis-server", &[]).or_else(|| process::find("valkey-server", &[])).context(INSTALL)?;
        process::server_dir(&directory)?;
        let socket = directory.join("redis.sock");
        let mut redis = process::command(&program, "TERM");
        redis.args(["--port", "0", "--unixsocketperm", "700", "--daemonize", "no", "--save", ""]);
        redis.args(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
        redis.arg("--dir").arg(&directory).arg("--unixsocket").arg(&socket);
        for (name, value) in &settings {
            redis.arg(format!("--{name}")).arg(value);
        }
        let mut server = ServerProcess::start("Redis", redis, &directory.join("server.log"))?;
        server.wait_until(async || UnixStream::connect(&socket).await.is_ok()).await?;
        let version = process::version(&program).await?;
        Ok(Self { server, socket, version })
    }

    /// The server's version, such as `7.0.15`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The server's process id, or `None` if it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Stops the server after it has written its append-only file.
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop(Signal::TERM).await
    }

    /// Kills the server with SIGKILL, as in a crash.
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.server.stop(Signal::KILL).await
    }
}
