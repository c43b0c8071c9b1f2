//! How we connect: a pool for reads, and *connections*, one long-lived connection each, for the hot statements.
//!
//! A connection spares the hot path the pool's check-in and check-out, each a round trip; it reconnects by itself.

use std::str::FromStr;
use std::time::{Duration, Instant};

use pulse_tls::CaBundle;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::error::{ConfigError, StoreError};
use crate::tls;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait for an answer, client side: a server that is frozen or cut off sends no error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// A connection that was not used for longer is asked whether it is still there, before anything is sent that must not be
/// sent twice: the server may have restarted.
const RESTED: Duration = Duration::from_secs(1);

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://…`; holds a password, so it is never logged.
    pub url: String,
    /// Whom to believe beside the system's roots. With it, the server's certificate and name are checked, unless the
    /// URL says `sslmode=verify-ca`.
    pub ca: Option<CaBundle>,
    /// The most connections of the pool; connections come on top.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

/// PostgreSQL, the truth. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    dedicated_options: PgConnectOptions,
}

impl Store {
    /// Prepares to connect; the first statement does.
    ///
    /// # Errors
    /// [`ConfigError`]. An absent server is not an error here.
    pub fn connect_lazy(config: &StoreConfig) -> Result<Self, ConfigError> {
        let options = PgConnectOptions::from_str(&config.url)
            .map_err(|error| ConfigError(format!("expected postgres://USER@HOST/DATABASE: {error}")))?;
        let options = tls::secure(options, &config.url, config.ca.as_ref())?
            .application_name(&config.application_name)
            .disable_statement_logging()
            .options([
                ("statement_timeout", "5s"),
                ("lock_timeout", "2s"),
                ("idle_in_transaction_session_timeout", "10s"),
                ("jit", "off"),
            ]);
        // Filters are optional parameters: only a plan for the given ones can use the index and prune partitions.
        let reads = options.clone().options([("plan_cache_mode", "force_custom_plan")]);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .test_before_acquire(true)
            .connect_lazy_with(reads);
        // The hot statements look rows up by key in partitions whose statistics lag behind: one plan, made once,
        // and never a scan, whatever the planner believes of a table that was empty a minute ago.
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

    /// A connection of its own for hot statements.
    pub(crate) fn connection(&self) -> DedicatedConnection {
        DedicatedConnection { options: self.dedicated_options.clone(), connection: None }
    }

    /// Whether PostgreSQL answers.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Closes the pool and waits for its connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// One long-lived connection.
pub(crate) struct DedicatedConnection {
    options: PgConnectOptions,
    /// And when it was last used.
    connection: Option<(PgConnection, Instant)>,
}

impl DedicatedConnection {
    /// Runs `work` on the connection, connecting first if need be. A connection that may be broken is dropped,
    /// which makes PostgreSQL roll back what it held.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Taken out, so that a dropped future drops the connection in the middle of whatever it was doing.
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

    /// The connection, if it is still there.
    async fn take(&mut self) -> Option<PgConnection> {
        let (mut connection, used) = self.connection.take()?;
        if used.elapsed() > RESTED {
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
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}
