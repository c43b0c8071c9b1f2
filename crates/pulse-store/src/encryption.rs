//! How the connections to PostgreSQL are encrypted.

use pulse_tls::Encryption;
use sqlx::postgres::PgSslMode;

use crate::connection::Store;
use crate::error::StoreError;

impl Store {
    /// Encryption of the connections, as the settings ask for it.
    pub fn configured_encryption(&self) -> Encryption {
        let options = self.options();
        if options.get_socket().is_some() {
            return Encryption::UnixSocket;
        }
        match options.get_ssl_mode() {
            PgSslMode::VerifyFull => Encryption::Verified,
            PgSslMode::VerifyCa => Encryption::VerifiedCa,
            PgSslMode::Require => Encryption::Unverified,
            // The server decides, or a machine between.
            PgSslMode::Prefer | PgSslMode::Allow | PgSslMode::Disable => Encryption::plain(options.get_host()),
        }
    }

    /// Opens a connection and reports its encryption.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn encryption(&self) -> Result<Encryption, StoreError> {
        let options = self.options();
        if options.get_socket().is_some() {
            return Ok(Encryption::UnixSocket);
        }
        let encrypted = sqlx::query_scalar!(r#"SELECT ssl AS "ssl!" FROM pg_stat_ssl WHERE pid = pg_backend_pid()"#)
            .fetch_one(&self.pool)
            .await?;
        Ok(match options.get_ssl_mode() {
            _ if !encrypted => Encryption::plain(options.get_host()),
            PgSslMode::VerifyFull => Encryption::Verified,
            PgSslMode::VerifyCa => Encryption::VerifiedCa,
            _ => Encryption::Unverified,
        })
    }
}
