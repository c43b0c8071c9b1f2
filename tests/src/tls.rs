//! Servers that accept TCP connections only with TLS. Their unix sockets accept connections without it.

use std::path::{Path, PathBuf};

use rustix::process::getuid;

use crate::env::TestEnv;
use crate::host::free_port;
use crate::pki::Authority;

/// User ID that the servers run as if the tests run as root.
const UNPRIVILEGED_UID: u32 = 65534;

/// PostgreSQL and Redis of one test, with a certificate for `localhost`.
pub struct TlsServers {
    /// The servers. Its URLs are those of the unix sockets.
    pub env: TestEnv,
    /// CA certificate of both servers, as PEM.
    pub ca: String,
    /// Path of the file with [`ca`](Self::ca).
    pub ca_file: String,
    postgres_port: u16,
    redis_port: u16,
    authority: Authority,
    certificates: tempfile::TempDir,
}

impl TlsServers {
    /// Starts PostgreSQL and Redis and leaves the database empty.
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(false).await
    }

    /// Like [`start`](Self::start), with servers that ask clients for a certificate: see [`client_files`](Self::client_files).
    ///
    /// # Errors
    /// If a server does not start.
    pub async fn with_client_certificates() -> anyhow::Result<Self> {
        Self::start_with(true).await
    }

    /// Writes the certificate of a client and its key; returns their paths.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn client_files(&self) -> anyhow::Result<(String, String)> {
        let (pair, folder) = (self.authority.client("pulse", None)?, self.certificates.path());
        Ok((write(folder, "client.crt", &pair.certificate)?, write(folder, "client.key", &pair.key)?))
    }

    async fn start_with(client_certificates: bool) -> anyhow::Result<Self> {
        let certificates = tempfile::Builder::new().prefix("pulse-tls-").tempdir_in("/tmp")?;
        let folder = certificates.path();
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let authority = Authority::new()?;
        let ca_file = write(folder, "ca.crt", &authority.pem())?;
        let (certificate, key) = issue(&authority, "localhost", folder)?;
        let option = if client_certificates { " clientcert=verify-ca" } else { "" };
        let hosts = format!("local all all trust\nhostssl all all 127.0.0.1/32 trust{option}\n");
        let hosts = write(folder, "pg_hba.conf", &hosts)?;
        let redis_asks = if client_certificates { "yes" } else { "no" };
        let (postgres_port, redis_port) = (free_port()?, free_port()?);
        let env = TestEnv::with_servers(
            |postgres| {
                let postgres = postgres.with_setting("ssl=on").with_setting(&format!("hba_file={hosts}"));
                let postgres = postgres.with_setting(&format!("ssl_cert_file={certificate}"));
                let postgres = postgres.with_setting(&format!("ssl_key_file={key}"));
                let postgres = postgres.with_setting(&format!("ssl_ca_file={ca_file}"));
                postgres.with_port(postgres_port)
            },
            |redis| {
                let redis = redis.with_setting("tls-port", &redis_port.to_string()).with_setting("bind", "127.0.0.1");
                let redis = redis.with_setting("tls-cert-file", &certificate).with_setting("tls-key-file", &key);
                redis.with_setting("tls-ca-cert-file", &ca_file).with_setting("tls-auth-clients", redis_asks)
            },
        )
        .await?;
        Ok(Self { env, ca: authority.pem(), ca_file, postgres_port, redis_port, authority, certificates })
    }

    /// Replaces PostgreSQL's certificate with one of the same CA for the host name `name`, and reloads the server.
    ///
    /// # Errors
    /// If the certificate cannot be written or the reload fails.
    pub async fn replace_postgres_certificate(&self, name: &str) -> anyhow::Result<()> {
        issue(&self.authority, name, self.certificates.path())?;
        sqlx::query("SELECT pg_reload_conf()").execute(&self.env.db).await?;
        Ok(())
    }

    /// URL of PostgreSQL over TCP with this host name. `query` is empty or begins with `?`.
    pub fn database_url(&self, host: &str, query: &str) -> String {
        format!("postgres://pulse:canary@{host}:{}/pulse{query}", self.postgres_port)
    }

    /// URL of Redis over TLS with this host name.
    pub fn redis_url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.redis_port)
    }
}

/// Certificate of a CA that signed no server certificate, as PEM.
///
/// # Errors
/// If the certificate cannot be generated.
pub fn unrelated_ca() -> anyhow::Result<String> {
    Ok(Authority::new()?.pem())
}

/// Writes a server certificate and its key; returns their paths.
fn issue(authority: &Authority, name: &str, folder: &Path) -> anyhow::Result<(String, String)> {
    let pair = authority.server(&[name])?;
    Ok((write(folder, "server.crt", &pair.certificate)?, write(folder, "server.key", &pair.key)?))
}

/// Writes a file that the servers can read. PostgreSQL refuses a key that other users may read.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text)?;
    if name.ends_with(".key") {
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    if getuid().is_root() {
        std::os::unix::fs::chown(&path, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID))?;
    }
    Ok(path.display().to_string())
}
