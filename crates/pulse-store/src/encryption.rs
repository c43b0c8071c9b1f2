//! How the connections to PostgreSQL are encrypted.

use pulse_tls::Encryption;
use sqlx::postgres::PgSslMode;

use crate::connection::Store;
use crate::error::StoreError;
use crate::tls::weakest;

impl Store {
    /// The weakest encryption of the connections, as the settings ask for it.
    pub fn configured_encryption(&self) -> Encryption {
        weakest(self.dedicated.servers.all()).0
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
