//! Which of several servers takes writes.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, Row};
use tokio::task::JoinSet;

/// Time limit for a look.
const LIMIT: Duration = Duration::from_secs(2);
/// Time for others to say that they take writes too.
const OTHERS: Duration = Duration::from_millis(200);

/// What a search for the primary has found.
pub(crate) type Found = Result<(Arc<PgConnectOptions>, PgConnection), String>;

/// Whether the server of a connection still takes writes, and says so in time.
pub(crate) async fn still_takes_writes(connection: Option<&mut PgConnection>) -> bool {
    let Some(connection) = connection else { return false };
    tokio::time::timeout(LIMIT, takes_writes(connection)).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// The server that takes writes, and a connection to it. One that is down does not delay the others. Of two, such as a former
/// primary that was started again, the one that was promoted last.
///
/// # Errors
/// Why none is, for each server.
pub(crate) async fn find(servers: &[Arc<PgConnectOptions>]) -> Found {
    let mut attempts = JoinSet::new();
    for options in servers {
        let options = options.clone();
        attempts.spawn(async move {
            let look = async {
                let mut connection = options.connect().await?;
                let timeline = timeline(&mut connection).await?;
                Ok::<_, sqlx::Error>((timeline, connection))
            };
            let place = format!("{}:{}", options.get_host(), options.get_port());
            match tokio::time::timeout(LIMIT, look).await {
                Ok(Ok((Some(timeline), connection))) => Ok((timeline, (options, connection))),
                Ok(Ok((None, _))) => Err(format!("{place} is read-only")),
                Ok(Err(error)) => Err(format!("{place}: {error}")),
                Err(_) => Err(format!("{place} does not answer")),
            }
        });
    }
    let mut best: Option<(String, (Arc<PgConnectOptions>, PgConnection))> = None;
    let mut errors = Vec::new();
    let mut limit = LIMIT * 2;
    while let Ok(Some(attempt)) = tokio::time::timeout(limit, attempts.join_next()).await {
        match attempt {
            Ok(Ok((timeline, found))) => {
                if best.is_some() {
                    tracing::error!("two servers of the URL take writes: stop the former primary");
                }
                if best.as_ref().is_none_or(|(known, _)| *known < timeline) {
                    best = Some((timeline, found));
                }
                limit = OTHERS;
            }
            Ok(Err(error)) => errors.push(error),
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors.sort();
    best.map(|(_, found)| found).ok_or_else(|| errors.join("; "))
}

/// The timeline of a server that takes writes: each promotion begins another one. `None` for a standby, and for a server that
/// is read-only by a setting.
async fn timeline(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let statement = "SELECT CASE WHEN current_setting('transaction_read_only') = 'off'
                                 THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";
    sqlx::raw_sql(statement).fetch_one(connection).await?.try_get(0)
}

/// Whether the server takes writes: a standby does not, and neither does one that is read-only by a setting.
pub(crate) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(timeline(connection).await?.is_some())
}
