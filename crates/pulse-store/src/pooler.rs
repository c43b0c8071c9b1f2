//! Recognizes a pooler that does not keep sessions, such as PgBouncer in transaction mode.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use tokio::sync::Mutex;

use crate::error::StoreError;
use crate::servers::Servers;

/// How often the backends of two connections are compared, because other clients of a pooler may interfere.
const COMPARISONS: usize = 5;

/// Checks once that a connection keeps its session. A pooler in transaction mode gives each transaction any session:
/// settings, prepared statements and advisory locks would be lost or shared.
#[derive(Default)]
pub(crate) struct PoolerCheck(Mutex<Option<Outcome>>);

/// The outcome of the last check, which ended at this time.
struct Outcome {
    at: Instant,
    result: Result<(), StoreError>,
}

impl PoolerCheck {
    /// Checks, unless a check has passed already, and connects to the primary for it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the remedy, or if PostgreSQL does not answer within `limit`.
    pub(crate) async fn verify(&self, servers: &Servers, limit: Duration) -> Result<(), StoreError> {
        let asked = Instant::now();
        // One check at a time, because two of them could lend each other's backends and see nothing wrong. Who waited
        // for a check takes its outcome.
        let mut last = self.0.lock().await;
        match &*last {
            Some(Outcome { at, result }) if result.is_ok() || *at >= asked => return result.clone(),
            _ => {}
        }
        let compared = tokio::time::timeout(limit, compare_backends(servers)).await;
        let result = compared.unwrap_or(Err(StoreError::TimedOut(limit)));
        *last = Some(Outcome { at: Instant::now(), result: result.clone() });
        result
    }
}

/// The result of a query. sqlx panics at a row with fewer values than its statement has columns: that is the answer to
/// another statement, which only a pooler in transaction mode gives.
///
/// # Errors
/// [`StoreError::Unavailable`] with the remedy instead of the panic.
pub(crate) async fn whole_rows<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    let result = AssertUnwindSafe(query).catch_unwind().await;
    Ok(result.map_err(|_| StoreError::transaction_pooler())??)
}

/// Two connections to PostgreSQL never have the same backend, and a connection keeps its backend. A pooler in transaction
/// mode lends the backend that became idle last, unless another client was faster.
async fn compare_backends(servers: &Servers) -> Result<(), StoreError> {
    let primary = servers.primary().await;
    let (mut first, mut second) = (primary.connect().await?, primary.connect().await?);
    let expected = backend_pid(&mut first).await?;
    let mut keeps_session = true;
    for _ in 0..COMPARISONS {
        sqlx::raw_sql("BEGIN").execute(&mut second).await?;
        keeps_session &= backend_pid(&mut second).await? != expected;
        keeps_session &= backend_pid(&mut first).await? == expected;
        sqlx::raw_sql("COMMIT").execute(&mut second).await?;
    }
    let _ = tokio::join!(first.close(), second.close());
    if keeps_session { Ok(()) } else { Err(StoreError::transaction_pooler()) }
}

async fn backend_pid(connection: &mut PgConnection) -> Result<i32, StoreError> {
    Ok(sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)?)
}
