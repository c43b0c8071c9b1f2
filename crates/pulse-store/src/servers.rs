//! The servers of the URL, and which of them takes writes.
//!
//! With one server nothing is looked for. With several, one more connection per process asks the primary each second
//! whether it still takes writes. If it does not answer, all servers are asked, and the one that takes writes is the next
//! primary. PostgreSQL cannot become a standby without a restart, so no old connection stays on a former primary.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pulse_tls::{CaBundle, ClientIdentity};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, PgPool, Row};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::ConfigError;
use crate::tls;

/// Time between two looks at the primary, and at the file with the URL.
const PERIOD: Duration = Duration::from_secs(1);
/// Time limit for a look.
const LIMIT: Duration = Duration::from_secs(2);

/// Reads the URL again; `None` if it cannot be read now.
pub type UrlReader = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Connection settings.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://…`, with one host or several. Contains a password: never log it.
    pub url: String,
    /// Reads the URL again each second, so that new connections use a changed password.
    pub url_again: Option<UrlReader>,
    /// CA bundle to trust in addition to the system's roots. It implies `sslmode=verify-full`, unless the URL says
    /// `verify-ca`.
    pub ca: Option<CaBundle>,
    /// Certificate for a server that asks for one.
    pub identity: Option<ClientIdentity>,
    /// Maximum connections of the pool, without the dedicated ones.
    pub max_connections: u32,
    /// `application_name` in `pg_stat_activity`.
    pub application_name: String,
}

/// How to connect to the server that takes writes. Cheap to clone; the last clone ends the search for it.
#[derive(Clone)]
pub(crate) struct Servers {
    /// `None` while no server takes writes.
    primary: watch::Receiver<Option<Arc<PgConnectOptions>>>,
    /// Those of the first server.
    first: Arc<PgConnectOptions>,
    are_several: bool,
    _tasks: Arc<JoinSet<()>>,
}

impl Servers {
    /// Checks the URL, and begins to look for the primary if there are several servers.
    ///
    /// # Errors
    /// [`ConfigError`] if the URL or the CA bundle is unusable.
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, ConfigError> {
        let servers = parse(config, &config.url)?;
        let first = servers.first().cloned().ok_or_else(|| ConfigError("the URL has no host".into()))?;
        let is_single = servers.len() == 1;
        let (sender, primary) = watch::channel(is_single.then(|| first.clone()));
        let mut tasks = JoinSet::new();
        if !is_single || config.url_again.is_some() {
            // Without a runtime nothing connects either.
            if let Ok(runtime) = Handle::try_current() {
                tasks.spawn_on(follow(config.clone(), servers, sender), &runtime);
            }
        }
        Ok(Self { primary, first, are_several: !is_single, _tasks: Arc::new(tasks) })
    }

    /// Whether one of several servers is the primary.
    pub(crate) fn are_several(&self) -> bool {
        self.are_several
    }

    /// The primary, or the first server while none is known.
    pub(crate) fn known(&self) -> Arc<PgConnectOptions> {
        self.primary.borrow().clone().unwrap_or_else(|| self.first.clone())
    }

    /// The primary. Waits until there is one: the caller has a time limit.
    pub(crate) async fn primary(&self) -> Arc<PgConnectOptions> {
        let mut primary = self.primary.clone();
        match primary.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| self.first.clone()),
            Err(_) => self.first.clone(),
        }
    }

    /// Has the pool open its next connections to the primary. The returned tasks end when they are dropped.
    pub(crate) fn keep_pools_on_primary(&self, pools: [PgPool; 2]) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Ok(runtime) = Handle::try_current() {
            let mut primary = self.primary.clone();
            let follow = async move {
                while primary.changed().await.is_ok() {
                    let Some(options) = primary.borrow_and_update().clone() else { continue };
                    pools.iter().for_each(|pool| pool.set_connect_options(PgConnectOptions::clone(&options)));
                }
            };
            tasks.spawn_on(follow, &runtime);
        }
        tasks
    }
}

/// Follows the primary, and the file with the URL.
async fn follow(
    config: StoreConfig,
    mut servers: Vec<Arc<PgConnectOptions>>,
    primary: watch::Sender<Option<Arc<PgConnectOptions>>>,
) {
    let mut url = config.url.clone();
    let mut connection: Option<PgConnection> = None;
    loop {
        if let Some(changed) = config.url_again.as_ref().and_then(|read| read()).filter(|read| *read != url) {
            url = changed;
            match parse(&config, &url) {
                Ok(parsed) => {
                    tracing::info!("the URL of PostgreSQL has changed: new connections use it");
                    servers = parsed;
                    connection = None;
                }
                Err(error) => {
                    tracing::error!(%error, "the changed URL of PostgreSQL cannot be used: the former one stays")
                }
            }
        }
        if let [only] = servers.as_slice() {
            primary.send_if_modified(|known| is_new(known, Some(only)));
        } else if !still_takes_writes(connection.as_mut()).await {
            let found = find(&servers).await;
            primary.send_if_modified(|known| is_new(known, found.as_ref().map(|(options, _)| options)));
            connection = found.map(|(_, connection)| connection);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Stores the primary, and returns whether it is another one.
fn is_new(known: &mut Option<Arc<PgConnectOptions>>, found: Option<&Arc<PgConnectOptions>>) -> bool {
    let is_same = match (&known, found) {
        (Some(known), Some(found)) => Arc::ptr_eq(known, found),
        (None, None) => true,
        _ => false,
    };
    if !is_same {
        match found {
            Some(options) => {
                tracing::info!(host = options.get_host(), port = options.get_port(), "PostgreSQL takes writes here")
            }
            None => tracing::warn!("no PostgreSQL of the URL takes writes"),
        }
        *known = found.cloned();
    }
    !is_same
}

async fn still_takes_writes(connection: Option<&mut PgConnection>) -> bool {
    let Some(connection) = connection else { return false };
    tokio::time::timeout(LIMIT, takes_writes(connection)).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// The server that takes writes, and a connection to it. One that is down does not delay the others.
async fn find(servers: &[Arc<PgConnectOptions>]) -> Option<(Arc<PgConnectOptions>, PgConnection)> {
    let mut attempts = JoinSet::new();
    for options in servers {
        let options = options.clone();
        attempts.spawn(async move {
            let look = async {
                let mut connection = options.connect().await.ok()?;
                takes_writes(&mut connection).await.unwrap_or(false).then_some(connection)
            };
            let connection = tokio::time::timeout(LIMIT, look).await.ok().flatten()?;
            Some((options, connection))
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        if let Ok(Some(found)) = attempt {
            return Some(found);
        }
    }
    None
}

/// Whether the server takes writes: a standby does not, and neither does one that is read-only by a setting.
pub(crate) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let read_only = "SELECT current_setting('transaction_read_only')";
    Ok(sqlx::raw_sql(read_only).fetch_one(connection).await?.try_get::<String, _>(0)? == "off")
}

/// The options of each server of a URL.
fn parse(config: &StoreConfig, url: &str) -> Result<Vec<Arc<PgConnectOptions>>, ConfigError> {
    let each = url_of_each(url)?;
    each.iter().map(|url| options(config, url).map(Arc::new)).collect()
}

fn options(config: &StoreConfig, url: &str) -> Result<PgConnectOptions, ConfigError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| ConfigError(format!("expected postgres://USER@HOST/DATABASE: {error}")))?;
    let options = tls::secure(options, url, config.ca.as_ref())?;
    Ok(tls::with_identity(options, config.identity.as_ref())?
        .application_name(&config.application_name)
        // PgBouncer refuses this startup parameter. PostgreSQL's default is exact.
        .extra_float_digits(None)
        .disable_statement_logging())
}

/// Splits `postgres://USER@HOST,HOST/…` as libpq does, and removes `target_session_attrs`: all roles write.
fn url_of_each(url: &str) -> Result<Vec<String>, ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(vec![url.to_owned()]) };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut parameters = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("target_session_attrs", "read-write" | "primary" | "any")) => {}
            Some(("target_session_attrs", _)) => {
                return Err(ConfigError("all roles write: leave target_session_attrs out, or say read-write".into()));
            }
            _ => parameters.push(parameter),
        }
    }
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    Ok(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}{query}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_with_several_hosts_is_one_for_each() {
        for (url, expected) in [
            ("postgres://a@db/pulse", vec!["postgres://a@db/pulse"]),
            (
                "postgres://a:b@c@one:1,two/pulse?sslmode=require&target_session_attrs=read-write",
                vec!["postgres://a:b@c@one:1/pulse?sslmode=require", "postgres://a:b@c@two/pulse?sslmode=require"],
            ),
            ("postgres://[::1]:5,two?target_session_attrs=any", vec!["postgres://[::1]:5", "postgres://two"]),
            ("postgres://a@localhost/pulse?host=/run/pg,x", vec!["postgres://a@localhost/pulse?host=/run/pg,x"]),
        ] {
            assert_eq!(url_of_each(url).expect(url), expected);
        }
        assert!(url_of_each("postgres://one,two/pulse?target_session_attrs=standby").is_err());
    }
}
