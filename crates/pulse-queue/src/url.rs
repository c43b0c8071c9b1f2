//! The URL of Redis: one server, the Sentinels that know the primary, or nodes of a Cluster.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use crate::error::QueueError;

const SENTINEL_PORT: u16 = 26_379;
/// Maximum number of hosts of a URL: each is asked at the same time.
const MAX_HOSTS: usize = 16;

/// Where a Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// The name or the IP address; `None` for a socket.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(formatter),
        }
    }
}

/// What the addresses of the URL are.
#[derive(Clone)]
pub(crate) enum Topology {
    /// The server itself.
    Single,
    /// Sentinels, which know the address of the primary with this name.
    Sentinel { primary: String, login: RedisConnectionInfo },
    /// Nodes of a Cluster. All keys of an instance are in one slot, so that one node has them.
    Cluster,
}

/// A URL of Redis, whose parts were checked.
#[derive(Clone)]
pub(crate) struct RedisUrl {
    pub(crate) topology: Topology,
    /// The addresses in the URL, at least one.
    pub(crate) addresses: Vec<Address>,
    /// User, password and database.
    pub(crate) login: RedisConnectionInfo,
    pub(crate) is_tls: bool,
}

impl RedisUrl {
    /// Parses `redis://`, `rediss://` and `unix://` with one server, and `redis+sentinel://` and `redis+cluster://`, or
    /// `rediss+…`, with several hosts, separated by commas.
    ///
    /// # Errors
    /// [`QueueError::Config`] if the URL is not one of these, [`QueueError::Tls`] if it asks for TLS without verification.
    pub(crate) fn parse(url: &str) -> Result<Self, QueueError> {
        let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme.split_once('+')?, rest)));
        match parts {
            Some(((base @ ("redis" | "rediss"), "sentinel"), rest)) => Self::sentinel(base, rest),
            Some(((base @ ("redis" | "rediss"), "cluster"), rest)) => Self::cluster(base, rest),
            _ => Self::single(url),
        }
    }

    fn single(url: &str) -> Result<Self, QueueError> {
        let info = url.into_connection_info().map_err(QueueError::Config)?;
        let (address, is_tls) = address(&info)?;
        Ok(Self { topology: Topology::Single, addresses: vec![address], login: info.redis_settings().clone(), is_tls })
    }

    fn sentinel(base: &str, rest: &str) -> Result<Self, QueueError> {
        let Several { user, hosts, path, query } = Several::of(rest);
        let (primary, database) = path.split_once('/').unwrap_or((path, "0"));
        if primary.is_empty() {
            return Err(invalid("a URL of Sentinels needs the name of the primary: redis+sentinel://HOST,…/NAME"));
        }
        let (mut name, mut password) = ("", None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sentinel_username", value)) => name = value,
                Some(("sentinel_password", value)) => password = Some(value),
                _ => return Err(invalid("the parameters are sentinel_username and sentinel_password")),
            }
        }
        let several = parse_each(base, user, &hosts, database, SENTINEL_PORT)?;
        // The library decodes both parts.
        let login = match password {
            Some(password) => format!("{base}://{name}:{password}@sentinel"),
            None => format!("{base}://sentinel"),
        };
        let login = login.into_connection_info().map_err(QueueError::Config)?.redis_settings().clone();
        Ok(Self { topology: Topology::Sentinel { primary: primary.to_owned(), login }, ..several })
    }

    fn cluster(base: &str, rest: &str) -> Result<Self, QueueError> {
        let Several { user, hosts, path, query } = Several::of(rest);
        if !matches!(path, "" | "0") || !query.is_empty() {
            return Err(invalid("a Cluster has only database 0, and its URL no parameters"));
        }
        Ok(Self { topology: Topology::Cluster, ..parse_each(base, user, &hosts, "0", 6379)? })
    }
}

/// The parts of `[USER@]HOST[,HOST…][/PATH][?QUERY]`.
struct Several<'a> {
    /// With its `@`, or empty.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Several<'a> {
    fn of(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let at = rest.rfind('@').map_or(0, |at| at + 1);
        let (user, rest) = rest.split_at(at);
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        Self { user, hosts: hosts.split(',').collect(), path: path.trim_end_matches('/'), query }
    }
}

fn parse_each(base: &str, user: &str, hosts: &[&str], database: &str, port: u16) -> Result<RedisUrl, QueueError> {
    if hosts.len() > MAX_HOSTS {
        return Err(invalid("a URL has at most 16 hosts"));
    }
    let mut found: Option<RedisUrl> = None;
    for host in hosts {
        let has_port = host.rsplit_once(']').map_or(*host, |(_, after)| after).contains(':');
        let port = if has_port { String::new() } else { format!(":{port}") };
        let one = RedisUrl::single(&format!("{base}://{user}{host}{port}/{database}"))?;
        match &mut found {
            Some(found) => found.addresses.extend(one.addresses),
            None => found = Some(one),
        }
    }
    found.ok_or_else(|| invalid("there is no host"))
}

/// The address of a parsed URL, and whether it is that of a TLS port.
fn address(info: &ConnectionInfo) -> Result<(Address, bool), QueueError> {
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err(QueueError::Tls("#insecure is not supported: give the certificate of the server's CA as CA file"))
        }
        ConnectionAddr::TcpTls { host, port, .. } => Ok((Address::Tcp { host: host.clone(), port: *port }, true)),
        ConnectionAddr::Tcp(host, port) => Ok((Address::Tcp { host: host.clone(), port: *port }, false)),
        ConnectionAddr::Unix(path) => Ok((Address::Unix(path.clone()), false)),
        _ => Err(QueueError::Tls("its scheme is not supported")),
    }
}

fn invalid(reason: &'static str) -> QueueError {
    QueueError::Config(RedisError::from((ErrorKind::InvalidClientConfig, reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> Vec<String> {
        RedisUrl::parse(url).map(|url| url.addresses.iter().map(Address::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn url_names_one_server_sentinels_or_nodes_of_a_cluster() {
        for (url, expected) in [
            ("redis://a", vec!["a:6379"]),
            ("rediss://u:p%40@a:1/2", vec!["a:1"]),
            ("unix:///run/redis.sock", vec!["/run/redis.sock"]),
            ("redis+sentinel://a,b:1,[::1]/main", vec!["a:26379", "b:1", "[::1]:26379"]),
            ("rediss+sentinel://u:p@h@a,b/main/3?sentinel_password=s%20s", vec!["a:26379", "b:26379"]),
            ("redis+cluster://u:p@a,b:7000", vec!["a:6379", "b:7000"]),
            ("redis+cluster://a/0", vec!["a:6379"]),
        ] {
            assert_eq!(addresses(url), expected, "{url}");
        }
        for url in [
            "redis://",
            "http://a",
            "redis+sentinel://a,b",
            "redis+sentinel:///main",
            "redis+sentinel://a/main?password=x",
            "redis+cluster://a/1",
            "redis+cluster://",
            "redis+other://a",
            "rediss+cluster://a#insecure",
        ] {
            assert!(RedisUrl::parse(url).is_err(), "{url}");
        }
        let hosts = |count: usize| format!("redis+cluster://{}", vec!["a"; count].join(","));
        assert!(RedisUrl::parse(&hosts(16)).is_ok() && RedisUrl::parse(&hosts(17)).is_err(), "at most 16 hosts");
    }

    #[test]
    fn sentinels_and_servers_have_separate_passwords() -> Result<(), QueueError> {
        let url = "redis+sentinel://app:p%40ss@a/main/3?sentinel_username=watch&sentinel_password=s%20s";
        let RedisUrl { topology, login, .. } = RedisUrl::parse(url)?;
        assert_eq!((login.username(), login.password(), login.db()), (Some("app"), Some("p@ss"), 3));
        let Topology::Sentinel { primary, login } = topology else { panic!("not a URL of Sentinels") };
        assert_eq!((primary.as_str(), login.username(), login.password()), ("main", Some("watch"), Some("s s")));
        Ok(())
    }
}
