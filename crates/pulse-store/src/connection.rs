//! Connections: a pool for reads, a small one for probes and users, and *dedicated connections* for the statements of
//! the hot path.
//!
//! A dedicated connection saves the pool's check-in and check-out, a round trip each. It reconnects by itself.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse_core::defaults::PROBE_CONNECTIONS;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres};
use tokio::task::JoinSet;

use crate::error::{ConfigError, StoreError};
use crate::pooler::PoolerCheck;
use crate::primary::takes_writes;
use crate::server_url::StoreConfig;
use crate::servers::Servers;

/// Time limit for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a connection for a probe, which itself has 2 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for an answer, kept by the client because a frozen or unreachable server sends no error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Settings of pooled connections. The server keeps the time limits, in ms: the most precise error comes first, because
/// the connection survives it and the outcome is known. List filters are optional parameters, so only a custom plan can
/// use the index and prune partitions. Without scans and sorts of tables, a statement with a LIMIT costs as much as its
/// limit, also before PostgreSQL has statistics of a table that grew quickly, and a search by a Bloom filter, of which
/// PostgreSQL does not know how selective it is, reads no whole history.
const READS: &[(&str, &str)] = &[
    ("lock_timeout", "2000"),
    ("statement_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "10000"),
    ("jit", "off"),
    ("plan_cache_mode", "force_custom_plan"),
    ("enable_seqscan", "off"),
    ("enable_sort", "off"),
];
/// Settings of dedicated connections. The hot statements find rows by key. Their plan is made once and must not scan,
/// even if the statistics still say that a table is empty. Measured on PostgreSQL 15.
const DEDICATED: &[(&str, &str)] = &dedicated("2000");
/// Settings of dedicated connections on which no statement waits long for one locked row.
const IMPATIENT: &[(&str, &str)] = &dedicated("20");

const fn dedicated(lock_timeout: &'static str) -> [(&'static str, &'static str); 8] {
    [
        ("lock_timeout", lock_timeout),
        ("statement_timeout", "5000"),
        ("idle_in_transaction_session_timeout", "10000"),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]
}

/// A connection that was idle for longer is pinged before use: the server may have restarted, and a statement that
/// fails must not be sent again.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);
/// Time limit for that ping of a pooled connection, so that a pool of connections to a dead server is left at once.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Numbers of connections of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// That run a statement.
    pub busy: u32,
    /// That wait for one.
    pub idle: u32,
    /// That the pool may open.
    pub max: u32,
}

/// A handle on PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    /// For probes, look-ups of users and heartbeats, which must not wait for reads that a client can make slow.
    pub(crate) probes: PgPool,
    pub(crate) reads: Session,
    pub(crate) dedicated: Session,
    pooler: Arc<PoolerCheck>,
    /// Keep the pools on the primary.
    _followers: Arc<JoinSet<()>>,
}

impl Store {
    /// Checks the settings; the first statement connects.
    ///
    /// # Errors
    /// [`ConfigError`] if the URL or the CA bundle is unusable. An unreachable server is not an error here.
    pub fn connect_lazy(config: &StoreConfig) -> Result<Self, ConfigError> {
        let servers = Servers::new(config)?;
        let reads = Session { servers: servers.clone(), settings: READS };
        let dedicated = Session { servers, settings: DEDICATED };
        let (pool, probes, followers) = pools(&reads, config.max_connections);
        Ok(Self { pool, probes, reads, dedicated, pooler: Arc::default(), _followers: followers })
    }

    /// A handle with a pool for itself, which neither waits for the connections of this one nor keeps them from others.
    #[must_use]
    pub fn separate(&self, max_connections: u32) -> Self {
        let (pool, probes, followers) = pools(&self.reads, max_connections);
        Self { pool, probes, _followers: followers, ..self.clone() }
    }

    /// The use of the pool for reads.
    #[must_use]
    pub fn pool_use(&self) -> PoolUse {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        PoolUse { busy: self.pool.size().saturating_sub(idle), idle, max: self.pool.options().get_max_connections() }
    }

    /// Number of connections of each process that follow the primary: one, if the URL has several hosts.
    #[must_use]
    pub fn connections_to_follow(&self) -> u32 {
        u32::from(self.dedicated.servers.all().len() > 1)
    }

    /// Those of the primary, or of the first server while none is known.
    pub(crate) fn options(&self) -> Arc<PgConnectOptions> {
        self.dedicated.servers.known()
    }

    /// A new dedicated connection, not connected yet.
    pub(crate) fn dedicated_connection(&self) -> DedicatedConnection {
        DedicatedConnection { session: self.dedicated.clone(), open: None }
    }

    /// A dedicated connection on which the others in a statement do not wait for one locked row.
    pub(crate) fn impatient_connection(&self) -> DedicatedConnection {
        let session = Session { settings: IMPATIENT, ..self.dedicated.clone() };
        DedicatedConnection { session, open: None }
    }

    /// A connection for a probe, a look-up of a user, or a heartbeat.
    pub(crate) async fn probe_connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.verify_sessions().await?;
        match self.probes.acquire().await {
            // The pool does not say why it could not connect.
            Err(sqlx::Error::PoolTimedOut) => {
                within(PROBE_TIMEOUT / 2, self.reads.open()).await?;
                Err(sqlx::Error::PoolTimedOut.into())
            }
            acquired => Ok(acquired?),
        }
    }

    /// See [`PoolerCheck::verify`].
    pub(crate) async fn verify_sessions(&self) -> Result<(), StoreError> {
        self.pooler.verify(&self.dedicated.servers, PROBE_TIMEOUT).await
    }

    /// Closes the pools and waits for their connections.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.probes.close());
    }
}

/// The pool for reads, and that for probes. No connection is open yet.
fn pools(reads: &Session, max_connections: u32) -> (PgPool, PgPool, Arc<JoinSet<()>>) {
    let pool = PgPoolOptions::new().max_connections(max_connections).acquire_timeout(CONNECT_TIMEOUT);
    let probes = PgPoolOptions::new().max_connections(PROBE_CONNECTIONS).acquire_timeout(PROBE_TIMEOUT);
    let (pool, probes) = (reads.pool(pool), reads.pool(probes));
    let followers = reads.servers.keep_pools_on_primary([pool.clone(), probes.clone()]);
    (pool, probes, Arc::new(followers))
}

/// How to connect, and what to set then. Settings are statements and not startup parameters, because PgBouncer refuses
/// unknown parameters, or drops them silently.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) servers: Servers,
    /// Names and values as in `pg_settings`.
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

impl Session {
    async fn open(&self) -> Result<PgConnection, StoreError> {
        let server = self.servers.primary().await;
        self.open_on(&server).await
    }

    async fn open_on(&self, server: &PgConnectOptions) -> Result<PgConnection, StoreError> {
        let mut connection = server.connect().await?;
        apply(&mut connection, self.settings).await?;
        Ok(connection)
    }

    fn pool(&self, options: PgPoolOptions) -> PgPool {
        let settings = self.settings;
        let (of_new, servers) = (self.servers.clone(), self.servers.clone());
        options
            .after_connect(move |connection, _| {
                let are_several = of_new.are_several();
                Box::pin(async move {
                    if are_several && !takes_writes(connection).await? {
                        return Err(sqlx::Error::Protocol("this PostgreSQL takes no writes".into()));
                    }
                    apply(connection, settings).await
                })
            })
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                // An error closes the connection without a word to a server that may be dead.
                let is_present = servers.is_present(meta.age);
                Box::pin(async move {
                    if !is_present {
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                    }
                    if meta.idle_for > PING_AFTER_IDLE {
                        let pinged = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                        pinged.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(self.servers.for_pool())
    }
}

/// What a new connection does first. The function is missing before the migrations, and roles that read only may not call it.
/// The time limits are longer than those of the settings, which replace them: another connection may do it.
const SKIP_LOST_IDS: &str = "SET lock_timeout = '1500'; SET statement_timeout = '1500';
    DO $$ BEGIN
        PERFORM skip_lost_ids();
    EXCEPTION WHEN undefined_function THEN NULL;
              WHEN insufficient_privilege THEN
        IF has_table_privilege('events', 'INSERT') THEN RAISE; END IF;
    END $$;";

async fn apply(connection: &mut PgConnection, settings: &[(&str, &str)]) -> Result<(), sqlx::Error> {
    let settings = settings.iter().map(|(name, value)| format!("SET {name} = '{value}';"));
    // Safe: all names and values are constants.
    let statements: String = std::iter::once(SKIP_LOST_IDS.to_owned()).chain(settings).collect();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

struct Dedicated {
    connection: PgConnection,
    server: Arc<PgConnectOptions>,
    used: Instant,
}

/// One long-lived connection, used by one owner.
pub(crate) struct DedicatedConnection {
    session: Session,
    open: Option<Dedicated>,
}

impl DedicatedConnection {
    /// Runs `work` on the connection, and connects first if necessary. Drops the connection if it may be broken, so
    /// that PostgreSQL rolls its transaction back.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // Taken out, so that dropping this future also drops the connection, which may be in a transaction.
        let (mut connection, server) = match self.take().await {
            Some(open) => open,
            None => within(CONNECT_TIMEOUT, self.connect()).await?,
        };
        let result = within(ANSWER_TIMEOUT, work(&mut connection)).await;
        if !result.as_ref().is_err_and(StoreError::breaks_connection) {
            self.open = Some(Dedicated { connection, server, used: Instant::now() });
        }
        result
    }

    async fn connect(&self) -> Result<(PgConnection, Arc<PgConnectOptions>), StoreError> {
        let server = self.session.servers.primary().await;
        Ok((self.session.open_on(&server).await?, server))
    }

    /// The open connection, if its server is still the primary and answers on it.
    async fn take(&mut self) -> Option<(PgConnection, Arc<PgConnectOptions>)> {
        let Dedicated { mut connection, server, used } = self.open.take()?;
        if !self.session.servers.is_primary(&server) {
            return None;
        }
        if used.elapsed() > PING_AFTER_IDLE {
            within(CONNECT_TIMEOUT, async { Ok(connection.ping().await?) }).await.ok()?;
        }
        Some((connection, server))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut(limit)),
    }
}
