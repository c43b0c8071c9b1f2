//! The servers that a URL of PostgreSQL names, and how to connect to them.

use std::str::FromStr;
use std::sync::Arc;

use pulse_tls::{CaBundle, ClientIdentity};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::ConfigError;
use crate::tls;

/// Maximum number of servers of a URL: all are asked at the same time.
const MAX_SERVERS: usize = 16;

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

/// The options of each server of a URL.
pub(crate) fn parse(config: &StoreConfig, url: &str) -> Result<Vec<Arc<PgConnectOptions>>, ConfigError> {
    let each = url_of_each(url)?;
    if each.len() > MAX_SERVERS {
        return Err(ConfigError("a URL has at most 16 hosts".into()));
    }
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
            Some(("host", hosts)) if hosts.contains(',') && !hosts.starts_with('/') => {
                return Err(ConfigError("write several hosts like postgres://USER@HOST,HOST/DATABASE".into()));
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
        for refused in ["postgres://one,two/pulse?target_session_attrs=standby", "postgres:///pulse?host=one,two"] {
            assert!(url_of_each(refused).is_err(), "{refused}");
        }
    }
}
