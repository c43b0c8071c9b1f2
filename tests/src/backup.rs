//! Copies of a running PostgreSQL.

use std::path::{Path, PathBuf};

use pulse::datastores::{Postgres, PostgresConfig};
use rustix::process::getuid;
use tokio::process::Command;

use crate::env::TestEnv;
use crate::host::run_through;
use crate::python::run;

/// The user of the servers, if the tests run as root.
const SERVER_USER: u32 = 65_534;

/// A base backup, and the write-ahead log since, which PostgreSQL archives into the folder `wal` of its test.
pub struct Backup {
    folder: PathBuf,
    wal: PathBuf,
}

impl Backup {
    /// Settings of PostgreSQL with which it archives its write-ahead log.
    pub const SETTINGS: [&str; 2] =
        ["archive_mode=on", "archive_command=cp %p ../../wal/%f.new && mv ../../wal/%f.new ../../wal/%f"];

    /// Copies the PostgreSQL of `env`, which listens on `port`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub async fn take(env: &TestEnv, port: u16) -> anyhow::Result<Self> {
        let backup = Self { folder: env.file("backup"), wal: env.file("wal") };
        for folder in [&backup.folder, &backup.wal] {
            server_folder(folder)?;
        }
        base_backup(port, &backup.folder, &[]).await?;
        Ok(backup)
    }

    /// Starts a copy in `folder` on `port`, as of the restore point `point`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restore(&self, folder: PathBuf, port: u16, point: &str) -> anyhow::Result<Postgres> {
        run(Command::new("cp").arg("-aT").args([&self.folder, &folder])).await?;
        let signal = folder.join("data/recovery.signal");
        std::fs::write(&signal, "")?;
        give_to_server(&signal)?;
        let config = PostgresConfig::in_dir(folder)
            .with_port(port)
            .with_setting(&format!("restore_command=cp {}/%f %p", self.wal.display()))
            .with_setting(&format!("recovery_target_name={point}"))
            .with_setting("recovery_target_action=promote");
        Postgres::start(config).await
    }
}

/// Copies the server that listens on `port` into `folder`/data, as the user of the servers.
pub(crate) async fn base_backup(port: u16, folder: &Path, args: &[&str]) -> anyhow::Result<()> {
    let mut backup = Command::new(newest_program("pg_basebackup")?);
    backup.args(["--host=127.0.0.1", &format!("--port={port}"), "--username=pulse", "--checkpoint=fast", "--no-sync"]);
    backup.args(args).arg("--pgdata").arg(folder.join("data"));
    if getuid().is_root() {
        let mut unprivileged = Command::new("setpriv");
        let user = SERVER_USER;
        unprivileged.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--"]);
        backup = run_through(unprivileged, &backup);
    }
    run(&mut backup).await.map(drop)
}

/// Creates a folder of the user of the servers.
pub(crate) fn server_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path)?;
    give_to_server(path)
}

fn give_to_server(path: &Path) -> anyhow::Result<()> {
    if getuid().is_root() {
        std::os::unix::fs::chown(path, Some(SERVER_USER), Some(SERVER_USER))?;
    }
    Ok(())
}

/// The program of the newest PostgreSQL that is installed.
fn newest_program(name: &str) -> anyhow::Result<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for version in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        found.push(version.path().join("bin").join(name));
    }
    found.retain(|program| program.is_file());
    found.sort();
    Ok(found.pop().unwrap_or_else(|| PathBuf::from(name)))
}
