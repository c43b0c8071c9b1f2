//! Servers that let nobody in without TLS, unless by their sockets.

use std::path::{Path, PathBuf};

use rustix::process::getuid;

use crate::TestEnv;
use crate::pki::Authority;
use crate::process::free_port;

/// Whom servers run as where tests are root.
const NOBODY: u32 = 65534;

/// A test's PostgreSQL and Redis, with certificates for `localhost`.
pub struct TlsServers {
    /// The servers; its URLs are those of the sockets.
    pub world: TestEnv,
    /// The CA of both, as PEM.
    pub ca: String,
    /// The file that it is in.
    pub ca_file: String,
    postgres_port: u16,
    redis_port: u16,
    authority: Authority,
    certificates: tempfile::TempDir,
}

impl TlsServers {
    /// Starts both, and leaves the database empty.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let certificates = tempfile::Builder::new().prefix("pulse-tls-").tempdir_in("/tmp")?;
        let folder = certificates.path();
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let authority = Authority::new()?;
        let ca_file = write(folder, "ca.crt", &authority.pem())?;
        let (certificate, key) = issue(&authority, "localhost", folder)?;
        let hosts = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        let hosts = write(folder, "pg_hba.conf", hosts)?;
        let (postgres_port, redis_port) = (free_port()?, free_port()?);
        let world = TestEnv::with_servers(
            |postgres| {
                let postgres = postgres.with_setting("ssl=on").with_setting(&format!("hba_file={hosts}"));
                let postgres = postgres.with_setting(&format!("ssl_cert_file={certificate}"));
                let postgres = postgres.with_setting(&format!("ssl_key_file={key}"));
                postgres.with_port(postgres_port)
            },
            |redis| {
                let redis = redis.with_setting("tls-port", &redis_port.to_string()).with_setting("bind", "127.0.0.1");
                let redis = redis.with_setting("tls-cert-file", &certificate).with_setting("tls-key-file", &key);
                redis.with_setting("tls-ca-cert-file", &ca_file).with_setting("tls-auth-clients", "no")
            },
        )
        .await?;
        Ok(Self { world, ca: authority.pem(), ca_file, postgres_port, redis_port, authority, certificates })
    }

    /// Gives PostgreSQL a new certificate of the same CA, for another name.
    ///
    /// # Errors
    /// If it does not take it.
    pub async fn rename_postgres(&self, name: &str) -> anyhow::Result<()> {
        issue(&self.authority, name, self.certificates.path())?;
        sqlx::query("SELECT pg_reload_conf()").execute(&self.world.db).await?;
        Ok(())
    }

    /// Where PostgreSQL is, by this name; `query` may be empty.
    pub fn database_url(&self, host: &str, query: &str) -> String {
        format!("postgres://pulse:canary@{host}:{}/pulse{query}", self.postgres_port)
    }

    /// Where Redis is, by this name.
    pub fn redis_url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.redis_port)
    }
}

/// The certificate of a CA that signed nothing.
///
/// # Errors
/// If it cannot be made.
pub fn ca_of_nobody() -> anyhow::Result<String> {
    Ok(Authority::new()?.pem())
}

/// Writes certificate and key; returns where they are.
fn issue(authority: &Authority, name: &str, folder: &Path) -> anyhow::Result<(String, String)> {
    let pair = authority.server(&[name])?;
    Ok((write(folder, "server.crt", &pair.certificate)?, write(folder, "server.key", &pair.key)?))
}

/// Keys are believed only if nobody else may read them.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text)?;
    if name.ends_with(".key") {
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    if getuid().is_root() {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(path.display().to_string())
}
