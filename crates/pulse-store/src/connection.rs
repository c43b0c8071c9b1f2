//! Connections: a pool for reads, and *dedicated connections* for the statements of the hot path.
//!
//! A dedicated connection saves the pool's check-in and check-out, a round trip each. It reconnects by itself.

use std::str::FromStr;
use std::time::{Duration, Instant};

use pulse_tls::CaBundle;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::error::{ConfigError, StoreError};
use crate::tls;

/// Time limit for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a row lock, kept by the server.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a row lock where the others in the statement must not wait for one locked row.
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(20);
/// Time limit for a statement, kept by the server.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for an answer, kept by the client because a frozen or unreachable server sends no error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

// The most precise error comes first: the connection survives it, and the outcome is known.
const _: () = assert!(LOCK_TIMEOUT.as_millis() < STATEMENT_TIMEOUT.as_millis());
const _: () = assert!(STATEMENT_TIMEOUT.as_millis() < ANSWER_TIMEOUT.as_millis());

/// A connection that was idle for longer is pinged before use: the server may have restarted, and a statement that
/// fails must not be sent again.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Connection settings.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://…`. Contains a password: never log it.
    pub url: String,
    /// CA bundle to trust in addition to the system's roots. It implies `sslmode=verify-full`, unless the URL says
    /// `verify-ca`.
    pub ca: Option<CaBundle>,
    /// Maximum connections of the pool, without the dedicated ones.
    pub max_connections: u32,
    /// `application_name` in `pg_stat_activity`.
    pub application_name: String,
}

/// A handle on PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    dedicated_options: PgConnectOptions,
}

impl Store {
    /// Checks the settings; the first statement connects.
    ///
    /// # Errors
    /// [`ConfigError`] if the URL or the CA bundle is unusable. An unreachable server is not an error here.
    pub fn connect_lazy(config: &StoreConfig) -> Result<Self, ConfigError> {
        let options = PgConnectOptions::from_str(&config.url)
            .map_err(|error| ConfigError(format!("expected postgres://USER@HOST/DATABASE: {error}")))?;
        let options = tls::secure(options, &config.url, config.ca.as_ref())?
            .application_name(&config.application_name)
            .disable_statement_logging()
            .options([
                ("statement_timeout", milliseconds(STATEMENT_TIMEOUT)),
                ("lock_timeout", milliseconds(LOCK_TIMEOUT)),
            ])
            .options([("idle_in_transaction_session_timeout", "10s"), ("jit", "off")]);
        // List filters are optional parameters: only a custom plan can use the index and prune partitions.
        let reads = options.clone().options([("plan_cache_mode", "force_custom_plan")]);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .test_before_acquire(true)
            .connect_lazy_with(reads);
        // The hot statements find rows by key. Their plan is made once and must not scan, even if the statistics still
        // say that a table is empty. Measured on PostgreSQL 15.
        let dedicated_options = options.options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ]);
        Ok(Self { pool, dedicated_options })
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.dedicated_options
    }

    /// A new dedicated connection, not connected yet.
    pub(crate) fn dedicated_connection(&self) -> DedicatedConnection {
        DedicatedConnection { options: self.dedicated_options.clone(), connection: None }
    }

    /// A dedicated connection whose statements wait for a row lock only for [`SHORT_LOCK_TIMEOUT`].
    pub(crate) fn impatient_connection(&self) -> DedicatedConnection {
        let options = self.dedicated_options.clone().options([("lock_timeout", milliseconds(SHORT_LOCK_TIMEOUT))]);
        DedicatedConnection { options, connection: None }
    }

    /// Runs `SELECT 1`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Closes the pool and waits for its connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A time limit as a setting of PostgreSQL.
fn milliseconds(limit: Duration) -> String {
    format!("{}ms", limit.as_millis())
}

/// One long-lived connection, used by one owner.
pub(crate) struct DedicatedConnection {
    options: PgConnectOptions,
    /// With the time of its last use.
    connection: Option<(PgConnection, Instant)>,
}

impl DedicatedConnection {
    /// Runs `work` on the connection, and connects first if necessary. Drops the connection if it may be broken, so
    /// that PostgreSQL rolls its transaction back.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Taken out, so that dropping this future also drops the connection, which may be in a transaction.
        let mut connection = match self.take().await {
            Some(connection) => connection,
            None => connect(&self.options).await?,
        };
        let result = within(ANSWER_TIMEOUT, work(&mut connection)).await;
        if !result.as_ref().is_err_and(StoreError::breaks_connection) {
            self.connection = Some((connection, Instant::now()));
        }
        result
    }

    /// The open connection, if the server still answers on it.
    async fn take(&mut self) -> Option<PgConnection> {
        let (mut connection, used) = self.connection.take()?;
        if used.elapsed() > PING_AFTER_IDLE {
            within(CONNECT_TIMEOUT, async { Ok(connection.ping().await?) }).await.ok()?;
        }
        Some(connection)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    within(CONNECT_TIMEOUT, async { Ok(PgConnection::connect_with(options).await?) }).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut(limit)),
    }
}
