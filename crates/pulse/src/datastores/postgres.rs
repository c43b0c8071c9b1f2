//! A private PostgreSQL server.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{self, ServerProcess};

const USER: &str = "pulse";
const DEFAULT_PORT: u16 = 5432;
/// The path of a unix socket has at most 107 bytes, including the file name that PostgreSQL adds.
const MAX_SOCKET_DIR_BYTES: usize = 85;
const INSTALL: &str =
    "the server programs of PostgreSQL are not installed: on Debian, run `apt-get install postgresql`";

/// How to start PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    directory: PathBuf,
    settings: Vec<String>,
    variables: Vec<String>,
    port: Option<u16>,
}

impl PostgresConfig {
    /// Keeps data, socket and log in `directory`, which [`Postgres::start`] creates if it does not exist.
    pub fn in_dir(directory: PathBuf) -> Self {
        Self { directory, settings: Vec::new(), variables: Vec::new(), port: None }
    }

    /// Adds a setting of postgresql.conf, written `name=value`.
    #[must_use]
    pub fn with_setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Sets an environment variable of the server's processes.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
    }

    /// Also listens on this port of 127.0.0.1.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        let listening = self.with_setting("listen_addresses=127.0.0.1").with_setting(&format!("port={port}"));
        Self { port: Some(port), ..listening }
    }
}

/// A running PostgreSQL server.
pub struct Postgres {
    server: ServerProcess,
    sockets: PathBuf,
    port: Option<u16>,
    version: String,
    _short: Option<TempDir>,
}

impl Postgres {
    /// Starts a server and waits until it accepts connections. A new server gets a database `pulse`.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or the server does not start within 30 s; the error has the end of its log.
    pub async fn start(config: PostgresConfig) -> anyhow::Result<Self> {
        let PostgresConfig { directory, settings, variables, port } = config;
        // The socket's file name contains the port.
        let number = port.unwrap_or(DEFAULT_PORT).to_string();
        let programs = programs().context(INSTALL)?;
        process::server_dir(&directory)?;
        let (sockets, short) = socket_dir(&directory)?;
        let data = directory.join("data");
        let is_new = !data.join("PG_VERSION").exists();
        if is_new {
            let mut initdb = process::command(&programs.join("initdb"), "KILL");
            initdb.args([
                "--no-sync",
                "--no-instructions",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--username",
                USER,
            ]);
            initdb.arg("--pgdata").arg(&data);
            process::run(initdb, "initdb")
                .await
                .context("cannot initialise PostgreSQL: uid 65534 must be able to enter the data directory")?;
        }
        // SIGQUIT ends all PostgreSQL processes at once. The next start recovers from the write-ahead log.
        // `env` keeps the variables from the program that runs it as another user.
        let mut postgres = process::command(Path::new("env"), "QUIT");
        postgres.args(variables).arg(programs.join("postgres")).arg("-D").arg(&data).arg("-k").arg(&sockets);
        let defaults = [
            "listen_addresses=",
            "max_connections=200",
            "shared_buffers=256MB",
            "max_wal_size=4GB",
            // Segments are files of the data directory, not of /dev/shm, where a killed server would leave them.
            "dynamic_shared_memory_type=mmap",
        ];
        for setting in defaults.into_iter().chain(settings.iter().map(String::as_str)) {
            postgres.arg("-c").arg(setting);
        }
        let mut server = ServerProcess::start("PostgreSQL", postgres, &directory.join("server.log"))?;
        let ready = process::find("pg_isready", std::slice::from_ref(&programs)).context(INSTALL)?;
        server
            .wait_until(async || {
                let mut probe = tokio::process::Command::new(&ready);
                probe.arg("-q").arg("-h").arg(&sockets).arg("-U").arg(USER).args(["-d", "postgres", "-p", &number]);
                process::run(probe, "pg_isready").await.is_ok()
            })
            .await?;
        if is_new {
            let mut createdb = tokio::process::Command::new(programs.join("createdb"));
            createdb.arg("-h").arg(&sockets).args(["-U", USER, "-p", &number, USER]);
            process::run(createdb, "createdb").await?;
        }
        let version = process::version(&programs.join("postgres")).await?;
        Ok(Self { server, sockets, port, version, _short: short })
    }

    /// The server's version, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("postgres://{USER}@localhost{port}/{database}?host={}", self.sockets.display())
    }

    /// Stops the server with a fast shutdown: it disconnects all sessions and writes a checkpoint.
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub async fn stop_fast(self) -> anyhow::Result<()> {
        self.server.stop(Signal::INT).await
    }

    /// Stops the server with an immediate shutdown. The next start recovers as after a crash.
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub async fn stop_immediate(self) -> anyhow::Result<()> {
        self.server.stop(Signal::QUIT).await
    }
}

/// Returns the directory for the socket: the server's directory, or a temporary one if that path is too long.
fn socket_dir(directory: &Path) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if directory.as_os_str().len() <= MAX_SOCKET_DIR_BYTES {
        return Ok((directory.to_owned(), None));
    }
    let short = tempfile::Builder::new().prefix("pulse-").tempdir_in("/tmp")?;
    super::data_dir::set_mode(short.path(), 0o711)?;
    let sockets = short.path().join("s");
    process::server_dir(&sockets)?;
    Ok((sockets, Some(short)))
}

/// Returns the directory with the server programs: the highest version if several are installed.
fn programs() -> anyhow::Result<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        directories.extend(entries.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file()));
    }
    let version = |directory: &PathBuf| {
        let name = directory.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.and_then(|name| name.trim_start_matches("postgresql@").parse::<u32>().ok()).unwrap_or(0)
    };
    directories.sort_by_key(version);
    directories.reverse();
    let Some(initdb) = process::find("initdb", &directories) else { bail!("there is no `initdb` on the PATH") };
    Ok(initdb.parent().unwrap_or(Path::new("/")).to_owned())
}
