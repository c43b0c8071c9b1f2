//! A private Redis server.

use std::path::PathBuf;

use anyhow::Context;
use rustix::process::Signal;
use tokio::net::UnixStream;

use super::process::{self, ServerProcess};

const INSTALL: &str = "Redis was not found: install it, on Debian with `apt-get install redis-server`";

/// How to run Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    folder: PathBuf,
    settings: Vec<(String, String)>,
}

impl RedisConfig {
    /// Data, socket and log go into `folder`, which is made on first use.
    pub fn in_dir(folder: PathBuf) -> Self {
        Self { folder, settings: Vec::new() }
    }

    /// Adds a setting, as in redis.conf.
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
    /// Starts a server with an append-only file and `noeviction`, as in production; returns once it answers.
    ///
    /// # Errors
    /// If there is no binary, or the server does not start: with its last words.
    pub async fn start(config: RedisConfig) -> anyhow::Result<Self> {
        let RedisConfig { folder, settings } = config;
        let program =
            process::find("redis-server", &[]).or_else(|| process::find("valkey-server", &[])).context(INSTALL)?;
        process::server_folder(&folder)?;
        let socket = folder.join("redis.sock");
        let mut redis = process::command(&program, "TERM");
        redis.args(["--port", "0", "--unixsocketperm", "700", "--daemonize", "no", "--save", ""]);
        redis.args(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
        redis.arg("--dir").arg(&folder).arg("--unixsocket").arg(&socket);
        for (name, value) in &settings {
            redis.arg(format!("--{name}")).arg(value);
        }
        let mut server = ServerProcess::start("Redis", redis, &folder.join("server.log"))?;
        server.wait_until(async || UnixStream::connect(&socket).await.is_ok()).await?;
        let version = process::version(&program).await?;
        Ok(Self { server, socket, version })
    }

    /// Such as `7.0.15`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The server's process.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Writes everything down, and ends.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop(Signal::TERM).await
    }

    /// Ends at once.
    ///
    /// # Errors
    /// If it does not.
    pub async fn kill(self) -> anyhow::Result<()> {
        self.server.stop(Signal::KILL).await
    }
}
