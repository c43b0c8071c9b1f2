//! A private PostgreSQL server.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{self, ServerProcess};

const USER: &str = "pulse";
const DEFAULT_PORT: u16 = 5432;
/// A socket's whole path has to fit into 107 bytes.
const LONGEST_SOCKET_FOLDER: usize = 85;
const INSTALL: &str =
    "PostgreSQL's server programs were not found: install them, on Debian with `apt-get install postgresql`";

/// How to run PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    folder: PathBuf,
    settings: Vec<String>,
    port: Option<u16>,
}

impl PostgresConfig {
    /// Data, socket and log go into `folder`, which is made on first use.
    pub fn in_dir(folder: PathBuf) -> Self {
        Self { folder, settings: Vec::new(), port: None }
    }

    /// Adds a setting, `name=value`.
    #[must_use]
    pub fn with_setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Listens on this port of 127.0.0.1 too.
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
    /// Starts a server, and returns once it answers. A new one has the database `pulse`.
    ///
    /// # Errors
    /// If there are no binaries, or the server does not start: with its last words.
    pub async fn start(config: PostgresConfig) -> anyhow::Result<Self> {
        let PostgresConfig { folder, settings, port } = config;
        // Sockets are named after the port.
        let number = port.unwrap_or(DEFAULT_PORT).to_string();
        let programs = programs().context(INSTALL)?;
        process::server_folder(&folder)?;
        let (sockets, short) = socket_folder(&folder)?;
        let data = folder.join("data");
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
                .context("if nobody may not enter the folder, use one outside of a home")?;
        }
        // SIGQUIT ends PostgreSQL and all of its processes at once; the log brings everything back.
        let mut postgres = process::command(&programs.join("postgres"), "QUIT");
        postgres.arg("-D").arg(&data).arg("-k").arg(&sockets);
        let ours = ["listen_addresses=", "max_connections=200", "shared_buffers=256MB", "max_wal_size=4GB"];
        for setting in ours.into_iter().chain(settings.iter().map(String::as_str)) {
            postgres.arg("-c").arg(setting);
        }
        let mut server = ServerProcess::start("PostgreSQL", postgres, &folder.join("server.log"))?;
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

    /// Such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where to connect.
    pub fn url(&self, database: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("postgres://{USER}@localhost{port}/{database}?host={}", self.sockets.display())
    }

    /// Ends all sessions, writes everything down, and ends.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stop_fast(self) -> anyhow::Result<()> {
        self.server.stop(Signal::INT).await
    }

    /// Ends at once, as after a crash.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stop_immediate(self) -> anyhow::Result<()> {
        self.server.stop(Signal::QUIT).await
    }
}

/// A folder for the socket: the server's own, unless its name is too long.
fn socket_folder(folder: &Path) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if folder.as_os_str().len() <= LONGEST_SOCKET_FOLDER {
        return Ok((folder.to_owned(), None));
    }
    let short = tempfile::Builder::new().prefix("pulse-").tempdir_in("/tmp")?;
    super::data_dir::set_mode(short.path(), 0o711)?;
    let sockets = short.path().join("s");
    process::server_folder(&sockets)?;
    Ok((sockets, Some(short)))
}

/// The folder with the server programs: of the highest version where a system keeps several.
fn programs() -> anyhow::Result<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file()));
    }
    let number = |folder: &PathBuf| {
        let name = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.and_then(|name| name.trim_start_matches("postgresql@").parse::<u32>().ok()).unwrap_or(0)
    };
    folders.sort_by_key(number);
    folders.reverse();
    let Some(initdb) = process::find("initdb", &folders) else { bail!("no `initdb` on the PATH") };
    Ok(initdb.parent().unwrap_or(Path::new("/")).to_owned())
}
