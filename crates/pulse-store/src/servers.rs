//! The servers of the URL, and which of them takes writes.
//!
//! With one server nothing is looked for. With several, one more connection per process asks the primary each second
//! whether it still takes writes. If it does not answer, all servers are asked, and the one that takes writes is the next
//! primary. Connections to a former primary are closed before their next use: it may still answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::ConfigError;
use crate::primary::{Found, find, still_takes_writes};
use crate::server_url::{StoreConfig, parse};
use crate::tls::weakest;

/// Time between two looks at the primary, and at the file with the URL.
const PERIOD: Duration = Duration::from_secs(1);

/// A server that takes writes.
#[derive(Clone)]
struct Primary {
    options: Arc<PgConnectOptions>,
    since: Instant,
    is_one_of_several: bool,
}

/// How to connect to the server that takes writes. Cheap to clone; the last clone ends the search for it.
#[derive(Clone)]
pub(crate) struct Servers {
    /// The last one that was found; `None` before the first one.
    primary: watch::Receiver<Option<Primary>>,
    all: Arc<Vec<Arc<PgConnectOptions>>>,
    may_change: bool,
    _tasks: Arc<JoinSet<()>>,
}

impl Servers {
    /// Checks the URL, and begins to look for the primary if there are several servers.
    ///
    /// # Errors
    /// [`ConfigError`] if the URL or the CA bundle is unusable.
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, ConfigError> {
        let servers = parse(config, &config.url)?;
        let only = match servers.as_slice() {
            [only] => Some(Primary { options: only.clone(), since: Instant::now(), is_one_of_several: false }),
            _ => None,
        };
        let may_change = only.is_none() || config.url_again.is_some();
        let (sender, primary) = watch::channel(only);
        let mut tasks = JoinSet::new();
        // Without a runtime nothing connects either.
        if may_change && let Ok(runtime) = Handle::try_current() {
            tasks.spawn_on(follow(config.clone(), servers.clone(), sender), &runtime);
        }
        Ok(Self { primary, all: Arc::new(servers), may_change, _tasks: Arc::new(tasks) })
    }

    /// The servers of the URL.
    pub(crate) fn all(&self) -> &[Arc<PgConnectOptions>] {
        &self.all
    }

    /// Whether the URL has several servers now, of which one is the primary.
    pub(crate) fn are_several(&self) -> bool {
        self.primary.borrow().as_ref().is_none_or(|primary| primary.is_one_of_several)
    }

    /// The primary. Waits until there is one: the caller has a time limit.
    pub(crate) async fn primary(&self) -> Arc<PgConnectOptions> {
        let mut primary = self.primary.clone();
        let found = primary.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.map_or_else(|| self.nowhere(), |found| found.options)
    }

    /// The primary, or the first server while none is known.
    pub(crate) fn known(&self) -> Arc<PgConnectOptions> {
        let known = self.primary.borrow().as_ref().map(|primary| primary.options.clone());
        known.or_else(|| self.all.first().cloned()).unwrap_or_default()
    }

    /// Whether a connection with these options leads to the primary.
    pub(crate) fn is_primary(&self, options: &Arc<PgConnectOptions>) -> bool {
        self.primary.borrow().as_ref().is_some_and(|primary| Arc::ptr_eq(&primary.options, options))
    }

    /// Whether a connection of this age leads to the primary. One that is older than the present primary leads to a former
    /// one, which may still answer.
    pub(crate) fn is_present(&self, age: Duration) -> bool {
        !self.may_change || self.primary.borrow().as_ref().is_some_and(|primary| age <= primary.since.elapsed())
    }

    /// The options for a pool that begins. While no primary is known, it waits as for a server that starts.
    pub(crate) fn for_pool(&self) -> PgConnectOptions {
        let known = self.primary.borrow().as_ref().map(|primary| primary.options.clone());
        PgConnectOptions::clone(&known.unwrap_or_else(|| self.nowhere()))
    }

    /// Options that lead nowhere: no program can listen on port 0. A pool tries a refused connection again, with the options
    /// that it has then, until its time limit ends; it would not leave a host that does not answer.
    fn nowhere(&self) -> Arc<PgConnectOptions> {
        let options = PgConnectOptions::clone(&self.known());
        Arc::new(options.host("127.0.0.1").port(0))
    }

    /// Has the pools open their next connections to the primary. The returned tasks end when they are dropped.
    pub(crate) fn keep_pools_on_primary(&self, pools: [PgPool; 2]) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if self.may_change
            && let Ok(runtime) = Handle::try_current()
        {
            let servers = self.clone();
            let follow = async move {
                let mut primary = servers.primary.clone();
                // It may have been found before this task began.
                primary.mark_changed();
                while primary.changed().await.is_ok() {
                    pools.iter().for_each(|pool| pool.set_connect_options(servers.for_pool()));
                }
            };
            tasks.spawn_on(follow, &runtime);
        }
        tasks
    }
}

/// Follows the primary, and the file with the URL.
async fn follow(config: StoreConfig, mut servers: Vec<Arc<PgConnectOptions>>, primary: watch::Sender<Option<Primary>>) {
    let (mut url, mut refused) = (config.url.clone(), None);
    let mut connection: Option<PgConnection> = None;
    let mut last_error = String::new();
    loop {
        let read = config.url_again.as_ref().and_then(|read| read());
        if let Some(changed) = read.filter(|read| *read != url && refused.as_ref() != Some(read)) {
            match change(&config, &servers, &changed) {
                Ok(parsed) => {
                    tracing::info!("the URL of PostgreSQL has changed: all connections use it");
                    (servers, url, refused, connection) = (parsed, changed, None, None);
                }
                Err(error) => {
                    tracing::error!(%error, "the changed URL of PostgreSQL cannot be used: the former one stays");
                    refused = Some(changed);
                }
            }
        }
        if let [only] = servers.as_slice() {
            publish(&primary, only, false);
        } else if !still_takes_writes(connection.as_mut()).await {
            let found: Found = find(&servers).await;
            let error = found.as_ref().err().cloned().unwrap_or_default();
            if !error.is_empty() && error != last_error {
                tracing::warn!(error, "no PostgreSQL of the URL takes writes");
            }
            last_error = error;
            connection = found.ok().map(|(options, connection)| {
                publish(&primary, &options, true);
                connection
            });
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The servers of a changed URL.
fn change(
    config: &StoreConfig,
    former: &[Arc<PgConnectOptions>],
    url: &str,
) -> Result<Vec<Arc<PgConnectOptions>>, ConfigError> {
    let changed = parse(config, url)?;
    if weakest(&changed).is_weaker_than(weakest(former)) {
        return Err(ConfigError("it asks for less encryption than the one at the start: restart for that".into()));
    }
    Ok(changed)
}

/// Publishes the primary, if it is another one.
fn publish(primary: &watch::Sender<Option<Primary>>, options: &Arc<PgConnectOptions>, is_one_of_several: bool) {
    primary.send_if_modified(|known| {
        let is_same = known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.options, options));
        if !is_same {
            tracing::info!(host = options.get_host(), port = options.get_port(), "PostgreSQL takes writes here");
            *known = Some(Primary { options: options.clone(), since: Instant::now(), is_one_of_several });
        }
        !is_same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_url_with_less_encryption_is_refused() -> Result<(), ConfigError> {
        let url = "postgres://a@db-1/pulse?sslmode=verify-full".to_owned();
        let application_name = "test".to_owned();
        let config =
            StoreConfig { url, url_again: None, ca: None, identity: None, max_connections: 1, application_name };
        let former = parse(&config, &config.url)?;
        let changed = |url: &str| change(&config, &former, url).map(|servers| servers.len());
        assert_eq!(changed("postgres://b@db-2,db-3/pulse?sslmode=verify-full").ok(), Some(2));
        for weaker in ["postgres://a@db-1/pulse", "postgres://a@localhost,db-2/pulse?sslmode=require"] {
            assert!(changed(weaker).is_err_and(|error| error.to_string().contains("less encryption")), "{weaker}");
        }
        Ok(())
    }
}
