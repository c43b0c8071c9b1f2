//! The hosts of Redis as another namespace sees them, and those that may be connected to.

use std::net::{IpAddr, SocketAddr};

use tokio::net::lookup_host;

use crate::error::QueueError;
use crate::url::{Address, RedisUrl, Topology};

/// The hosts that may be connected to; none listed allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// The hosts of a list of names and addresses. `*.svc` stands for every name that ends with `.svc`.
    pub fn new(hosts: Vec<String>) -> Self {
        Self(hosts.into_iter().map(|host| normal(&host)).collect())
    }

    /// Whether `host` is allowed.
    pub fn contains(&self, host: &str) -> bool {
        let host = normal(host);
        let allows = |allowed: &String| match allowed.strip_prefix('*') {
            Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
            None => host == *allowed,
        };
        self.0.is_empty() || self.0.iter().any(allows)
    }
}

/// In lower case and without the dot at the end, with which a name is the same.
fn normal(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// How hosts are looked up, and which of them may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Namespace of the Services that a host without a dot names; `None` looks hosts up as they are.
    pub namespace: Option<String>,
    /// The hosts that may be connected to, by the name that is looked up.
    pub allowed: AllowedHosts,
}

impl Hosts {
    /// The name to look up in place of `host`, which TLS still verifies.
    pub fn name(&self, host: &str) -> String {
        match &self.namespace {
            Some(namespace) if is_short(host) => format!("{host}.{namespace}.svc"),
            _ => host.to_owned(),
        }
    }

    /// Checks an address that a Sentinel or a node has named. It is also allowed if an allowed host of the URL has it, such as a
    /// headless Service that has the addresses of all pods.
    ///
    /// # Errors
    /// [`QueueError::HostNotAllowed`] if it is not.
    pub(crate) async fn check(&self, named: &Address, url: &RedisUrl) -> Result<(), QueueError> {
        let Some(host) = named.host().map(|host| self.name(host)) else { return Err(QueueError::HostNotAllowed) };
        if self.allowed.contains(&host) {
            return Ok(());
        }
        let ip: IpAddr = host.parse().map_err(|_| QueueError::HostNotAllowed)?;
        for host in url.addresses.iter().filter_map(Address::host) {
            let addresses = lookup_host((self.name(host), 0)).await.into_iter().flatten();
            if addresses.map(|address: SocketAddr| address.ip()).any(|address| address == ip) {
                return Ok(());
            }
        }
        Err(QueueError::HostNotAllowed)
    }
}

fn is_short(host: &str) -> bool {
    !host.contains('.') && host != "localhost" && host.parse::<IpAddr>().is_err()
}

/// What a URL of Redis names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The hosts, without ports; none for a unix socket.
    pub hosts: Vec<String>,
    /// Whether they are Sentinels or nodes of a Cluster, which name other hosts.
    pub name_others: bool,
    /// Whether they are nodes of a Cluster, in which each instance may be on another node.
    pub is_cluster: bool,
}

impl Endpoints {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`] if the URL cannot be used.
    pub fn of(url: &str) -> Result<Self, QueueError> {
        let RedisUrl { topology, addresses, .. } = RedisUrl::parse(url)?;
        let hosts = addresses.iter().filter_map(Address::host).map(str::to_owned).collect();
        let (is_single, is_cluster) = (matches!(topology, Topology::Single), matches!(topology, Topology::Cluster));
        Ok(Self { hosts, name_others: !is_single, is_cluster })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_allowed() {
        let allowed = AllowedHosts::new(vec!["*.svc".into(), "Cache.Example.com.".into(), "10.0.0.1".into()]);
        for host in ["main-redis.shop.svc", "cache.example.com", "CACHE.example.com.", "10.0.0.1"] {
            assert!(allowed.contains(host), "{host}");
        }
        for host in ["svc", ".svc", "main-redis.shop.svc.example.com", "xcache.example.com", "10.0.0.2", "localhost"] {
            assert!(!allowed.contains(host), "{host}");
        }
        assert!(AllowedHosts::default().contains("anything"), "no list allows all");
        let every = AllowedHosts::new(vec!["*".into()]);
        assert!(!every.contains("a.svc"), "a wildcard needs a suffix");
    }

    #[tokio::test]
    async fn address_named_by_a_sentinel_has_to_be_listed_or_one_of_the_url() -> Result<(), QueueError> {
        let hosts = Hosts { namespace: None, allowed: AllowedHosts::new(vec!["localhost".into(), "10.0.0.1".into()]) };
        let url = RedisUrl::parse("redis+sentinel://localhost/main")?;
        let checked = async |host: &str| hosts.check(&Address::Tcp { host: host.into(), port: 1 }, &url).await.is_ok();
        assert!(checked("10.0.0.1").await && checked("127.0.0.1").await, "listed; an address of localhost");
        assert!(!checked("169.254.169.254").await && !checked("example.com").await);
        Ok(())
    }
}
