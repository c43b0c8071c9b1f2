//! The Redis of an instance, as the operator reaches it: from another namespace than the pods, on behalf of the author
//! of the Secret.

use std::net::IpAddr;

use pulse_queue::{Fault, SnapshotReader};
use pulse_reconcile::scaling::SampleError;
use pulse_tls::{CaBundle, fixed_identity};

/// Identity of a Redis server: the name that is looked up, URL, trusted CA and certificate. The same URL with
/// another CA, or with a
/// short host name in another namespace, is another server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    /// URL; it may contain a password, so it is never logged.
    pub url: String,
    /// CA certificates as PEM, not validated yet; `None` for the system's CAs.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key for a server that asks for one, as PEM, not validated yet.
    pub certificate: Option<[Vec<u8>; 2]>,
    /// Name that is looked up in place of a short host name.
    pub alias: Option<String>,
}

impl RedisServer {
    /// The server of a URL in a Secret of `namespace`. A host without a dot is a Service of that namespace: the pods of
    /// the instance find it there, the operator only by its longer name.
    pub fn new(url: &str, ca: Option<Vec<u8>>, certificate: Option<[Vec<u8>; 2]>, namespace: &str) -> Self {
        let url = url.trim().to_owned();
        let alias = host(&url).filter(|host| is_short(host)).map(|host| format!("{host}.{namespace}.svc"));
        Self { url, ca, certificate, alias }
    }

    /// The name that the operator looks up, or the address that it connects to. `None` if the URL has no host.
    pub fn looked_up(&self) -> Option<&str> {
        self.alias.as_deref().or_else(|| host(&self.url))
    }

    /// A reader for the queues of this server, if `allowed` has its host.
    pub(super) fn reader(&self, allowed: &AllowedHosts) -> Result<SnapshotReader, SampleError> {
        // Also for unix sockets, which would be those of the operator's pod.
        let host = self.looked_up().ok_or(SampleError::UrlNotSupported)?;
        if !allowed.contains(host) {
            return Err(SampleError::HostNotAllowed);
        }
        let ca = self.ca.clone().map(CaBundle::from_pem).transpose().map_err(|_| SampleError::TlsFailed)?;
        let identity = self.certificate.as_ref().map(|[certificate, key]| fixed_identity(certificate, key));
        let identity = identity.transpose().map_err(|_| SampleError::TlsFailed)?;
        let alias = self.alias.clone();
        SnapshotReader::new(&self.url, ca.as_ref(), identity, alias).map_err(|error| sample_error(error.fault()))
    }
}

/// The host of a `redis://` or `rediss://` URL, without brackets.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host_and_port.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host_and_port.rsplit_once(':').map_or(host_and_port, |(host, _)| host),
    };
    Some(host).filter(|host| !host.is_empty())
}

fn is_short(host: &str) -> bool {
    !host.contains('.') && host != "localhost" && host.parse::<IpAddr>().is_err()
}

/// The hosts that the operator may connect to; none listed allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// The hosts of a list of names and addresses. `*.svc` stands for every name that ends with `.svc`.
    pub fn new(hosts: Vec<String>) -> Self {
        Self(hosts.into_iter().map(|host| normal(&host)).collect())
    }

    /// Whether the operator may connect to `host`.
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

/// Why the queue could not be read.
pub(super) fn sample_error(fault: Fault) -> SampleError {
    match fault {
        Fault::Url => SampleError::UrlNotSupported,
        Fault::NameNotFound => SampleError::HostNotFound,
        Fault::Connection => SampleError::ConnectionFailed,
        Fault::Auth => SampleError::AuthFailed,
        Fault::Tls => SampleError::TlsFailed,
        Fault::WrongType => SampleError::WrongType,
        Fault::AnswerTooLong => SampleError::AnswerTooLong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_up(url: &str) -> Option<String> {
        RedisServer::new(url, None, None, "shop").looked_up().map(str::to_owned)
    }

    #[test]
    fn short_host_is_a_service_of_the_namespace_of_the_object() {
        for (url, expected) in [
            ("redis://main-redis:6379/0", "main-redis.shop.svc"),
            ("rediss://:p%40ss@main-redis", "main-redis.shop.svc"),
            (" redis://user:a@b:c@valkey?x=1\n", "valkey.shop.svc"),
            ("redis://main-redis.other:6379", "main-redis.other"),
            ("redis://main-redis.other.svc.cluster.local", "main-redis.other.svc.cluster.local"),
            ("redis://localhost:6379", "localhost"),
            ("redis://10.0.0.1:6379", "10.0.0.1"),
            ("redis://[::1]:6379", "::1"),
            ("redis://:secret@[fd00::5]:6379/2", "fd00::5"),
        ] {
            assert_eq!(looked_up(url).as_deref(), Some(expected), "{url}");
        }
        for url in ["unix:///run/redis.sock", "redis+unix:///run/redis.sock", "http://main-redis", "redis://", ""] {
            assert_eq!(looked_up(url), None, "{url}");
            let reader = RedisServer::new(url, None, None, "shop").reader(&AllowedHosts::default());
            assert_eq!(reader.err(), Some(SampleError::UrlNotSupported), "{url}");
        }
    }

    #[test]
    fn same_short_name_in_two_namespaces_is_two_servers() {
        let of = |namespace| RedisServer::new("redis://redis:6379", None, None, namespace);
        assert!(of("one") != of("two"));
        let full = |namespace| RedisServer::new("redis://redis.data.svc:6379", None, None, namespace);
        assert!(full("one") == full("two"), "they share one connection");
    }

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
        let refused = RedisServer::new("redis://169.254.169.254:80", None, None, "shop").reader(&allowed);
        assert_eq!(refused.err(), Some(SampleError::HostNotAllowed));
        assert!(
            RedisServer::new("redis://main-redis", None, None, "shop").reader(&allowed).is_ok(),
            "by its longer name"
        );
        let every = AllowedHosts::new(vec!["*".into()]);
        assert!(!every.contains("a.svc"), "a wildcard needs a suffix");
    }
}
