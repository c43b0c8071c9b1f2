//! The Redis of an instance, as the operator reaches it: from another namespace than the pods, on behalf of the author
//! of the Secret.

use pulse_queue::{AllowedHosts, Endpoints, Fault, Hosts, SnapshotReader};
use pulse_reconcile::scaling::SampleError;
use pulse_tls::{CaBundle, fixed_identity};

/// Identity of a Redis: URL, trusted CA and certificate, and what else decides about the server behind them. The same URL
/// with another CA, or with a short host name in another namespace, is another server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    /// URL; it may contain a password, so it is never logged.
    pub url: String,
    /// CA certificates as PEM, not validated yet; `None` for the system's CAs.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key for a server that asks for one, as PEM, not validated yet.
    pub certificate: Option<[Vec<u8>; 2]>,
    /// Namespace of the Services that short host names are; `None` if there can be none.
    namespace: Option<String>,
    /// The instance `<namespace>/<name>`, if each may be on another node.
    instance: Option<String>,
}

impl RedisServer {
    /// The server of a URL in a Secret of an instance `<namespace>/<name>`. A host without a dot is a Service of that
    /// namespace: the pods of the instance find it there, the operator only by its longer name.
    pub fn new(url: &str, ca: Option<Vec<u8>>, certificate: Option<[Vec<u8>; 2]>, instance: &str) -> Self {
        let url = url.trim().to_owned();
        let hosts = in_namespace_of(instance);
        let found = Endpoints::of(&url);
        let may_be_short =
            |found: &Endpoints| found.name_others || found.hosts.iter().any(|host| hosts.name(host) != *host);
        let may_be_short = found.as_ref().is_ok_and(may_be_short);
        let is_cluster = found.is_ok_and(|found| found.is_cluster);
        let namespace = hosts.namespace.filter(|_| may_be_short);
        Self { url, ca, certificate, namespace, instance: is_cluster.then(|| instance.to_owned()) }
    }

    /// The names that the operator looks up, or the addresses that it connects to. Empty if the URL cannot be used.
    pub fn looked_up(&self) -> Vec<String> {
        let hosts = self.hosts(&AllowedHosts::default());
        Endpoints::of(&self.url).map_or(Vec::new(), |found| found.hosts.iter().map(|host| hosts.name(host)).collect())
    }

    fn hosts(&self, allowed: &AllowedHosts) -> Hosts {
        Hosts { namespace: self.namespace.clone(), allowed: allowed.clone() }
    }

    /// A reader for the queues of this server, if `allowed` has its hosts.
    pub(super) fn reader(&self, allowed: &AllowedHosts) -> Result<SnapshotReader, SampleError> {
        let looked_up = self.looked_up();
        // Also for unix sockets, which would be those of the operator's pod.
        if looked_up.is_empty() {
            return Err(SampleError::UrlNotSupported);
        }
        if !looked_up.iter().all(|host| allowed.contains(host)) {
            return Err(SampleError::HostNotAllowed);
        }
        let ca = self.ca.clone().map(CaBundle::from_pem).transpose().map_err(|_| SampleError::TlsFailed)?;
        let identity = self.certificate.as_ref().map(|[certificate, key]| fixed_identity(certificate, key));
        let identity = identity.transpose().map_err(|_| SampleError::TlsFailed)?;
        let instance = self.instance.as_deref().unwrap_or_default();
        SnapshotReader::new(&self.url, ca.as_ref(), identity, self.hosts(allowed), instance)
            .map_err(|error| sample_error(error.fault()))
    }
}

fn in_namespace_of(instance: &str) -> Hosts {
    let namespace = instance.split_once('/').map(|(namespace, _)| namespace.to_owned());
    Hosts { namespace, allowed: AllowedHosts::default() }
}

/// Why the queue could not be read.
pub(super) fn sample_error(fault: Fault) -> SampleError {
    match fault {
        Fault::Url => SampleError::UrlNotSupported,
        Fault::NameNotFound => SampleError::HostNotFound,
        Fault::HostNotAllowed => SampleError::HostNotAllowed,
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

    fn of(url: &str, instance: &str) -> RedisServer {
        RedisServer::new(url, None, None, instance)
    }

    #[test]
    fn short_host_is_a_service_of_the_namespace_of_the_object() {
        for (url, expected) in [
            ("redis://main-redis:6379/0", vec!["main-redis.shop.svc"]),
            ("rediss://:p%40ss@main-redis", vec!["main-redis.shop.svc"]),
            (" redis://user:a@b:c@valkey?x=1\n", vec!["valkey.shop.svc"]),
            ("redis://main-redis.other:6379", vec!["main-redis.other"]),
            ("redis://localhost:6379", vec!["localhost"]),
            ("redis://10.0.0.1:6379", vec!["10.0.0.1"]),
            ("redis://:secret@[fd00::5]:6379/2", vec!["fd00::5"]),
            ("redis+sentinel://one,two.other:1/main", vec!["one.shop.svc", "two.other"]),
            ("rediss+cluster://:p@nodes", vec!["nodes.shop.svc"]),
        ] {
            assert_eq!(of(url, "shop/main").looked_up(), expected, "{url}");
        }
        for url in ["unix:///run/redis.sock", "redis+unix:///run/redis.sock", "http://main-redis", "redis://", ""] {
            assert!(of(url, "shop/main").looked_up().is_empty(), "{url}");
            let reader = of(url, "shop/main").reader(&AllowedHosts::default());
            assert_eq!(reader.err(), Some(SampleError::UrlNotSupported), "{url}");
        }
    }

    #[test]
    fn instances_share_a_connection_if_they_are_on_the_same_server() {
        let is_shared = |url: &str, one: &str, other: &str| of(url, one) == of(url, other);
        assert!(is_shared("redis://redis:6379", "shop/a", "shop/b"));
        assert!(!is_shared("redis://redis:6379", "shop/a", "bank/a"), "a short name");
        assert!(is_shared("redis://redis.data.svc:6379", "shop/a", "bank/a"));
        assert!(!is_shared("redis+sentinel://redis.data.svc/main", "shop/a", "bank/a"), "it may name a short host");
        assert!(!is_shared("redis+cluster://redis.data.svc", "shop/a", "shop/b"), "another node may have it");
    }

    #[test]
    fn every_host_of_a_url_has_to_be_allowed() {
        let allowed = AllowedHosts::new(vec!["*.svc".into()]);
        for (url, expected) in [
            ("redis://169.254.169.254:80", Some(SampleError::HostNotAllowed)),
            ("redis+sentinel://main-redis,169.254.169.254:80/main", Some(SampleError::HostNotAllowed)),
            ("redis://main-redis", None),
        ] {
            assert_eq!(of(url, "shop/main").reader(&allowed).err(), expected, "{url}");
        }
    }
}
