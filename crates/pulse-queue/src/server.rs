//! The Redis of a URL: which server has the keys now, and how to open a stream to it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pulse_tls::{CaBundle, ClientCertificate, Encryption};
use redis::RedisConnectionInfo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::error::QueueError;
use crate::hosts::Hosts;
use crate::url::{Address, RedisUrl, Topology};

/// A stream to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The Redis of a URL. Cheap to clone; holds no connection.
#[derive(Clone)]
pub(crate) struct Server {
    url: Arc<RedisUrl>,
    hosts: Hosts,
    tls: Option<Arc<ClientConfig>>,
    /// The primary that a Sentinel, or the node that a Cluster has named last.
    named: Arc<Mutex<Option<Address>>>,
}

impl Server {
    /// Checks a URL, whose scheme decides about TLS, the CA to trust instead of the system's roots, and the certificate for
    /// a server that asks for one.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`] if the URL or the CA cannot be used.
    pub(crate) fn new(
        url: &str,
        ca: Option<&CaBundle>,
        identity: Option<ClientCertificate>,
        hosts: Hosts,
    ) -> Result<Self, QueueError> {
        let url = Arc::new(RedisUrl::parse(url)?);
        if !url.is_tls && ca.is_some() {
            return Err(QueueError::Tls(
                "a CA is given, but the URL does not ask for TLS: write rediss://, or leave the CA out",
            ));
        }
        if !url.is_tls && identity.is_some() {
            return Err(QueueError::Tls(
                "a certificate is given, but the URL does not ask for TLS: write rediss://, or leave it out",
            ));
        }
        let tls = url.is_tls.then(|| Arc::new(pulse_tls::client_config(ca, identity)));
        Ok(Self { url, hosts, tls, named: Arc::default() })
    }

    /// The URL.
    pub(crate) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Whether the URL is that of a Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.url.topology, Topology::Cluster)
    }

    /// User, password and database of the server with the keys.
    pub(crate) fn login(&self) -> &RedisConnectionInfo {
        &self.url.login
    }

    /// Encryption of the connections, as the URL asks for it.
    pub(crate) fn encryption(&self) -> Encryption {
        match (&self.url.topology, self.url.addresses.first()) {
            _ if self.url.is_tls => Encryption::Verified,
            (Topology::Single, Some(Address::Tcp { host, .. })) => Encryption::plain(host),
            (Topology::Single, _) => Encryption::UnixSocket,
            // A Sentinel of this machine may name a server of another one.
            (Topology::Sentinel { .. } | Topology::Cluster, _) => Encryption::Plain,
        }
    }

    /// The server with the keys, if it is known: that of the URL, or the one that was named last.
    pub(crate) fn known(&self) -> Option<Address> {
        match self.url.topology {
            Topology::Single => self.url.addresses.first().cloned(),
            Topology::Sentinel { .. } | Topology::Cluster => self.named().clone(),
        }
    }

    /// Checks that an address may be connected to, which a Sentinel or a node has named.
    ///
    /// # Errors
    /// [`QueueError::HostNotAllowed`] if it may not.
    pub(crate) async fn check(&self, address: &Address) -> Result<(), QueueError> {
        self.hosts.check(address, &self.url).await
    }

    /// Keeps the address of the server with the keys.
    pub(crate) fn remember(&self, address: Address) {
        *self.named() = Some(address);
    }

    /// Has the next connection ask for the server with the keys again.
    pub(crate) fn forget(&self) {
        *self.named() = None;
    }

    fn named(&self) -> MutexGuard<'_, Option<Address>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream. Has no time limit.
    ///
    /// # Errors
    /// [`QueueError::NameNotFound`], or [`QueueError::Unavailable`] if the server cannot be reached or the handshake
    /// fails.
    pub(crate) async fn connect(&self, address: &Address) -> Result<Box<dyn Stream>, QueueError> {
        let (host, port) = match address {
            Address::Tcp { host, port } => (host, *port),
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(unavailable)?)),
        };
        let tcp = connect_tcp(&self.hosts.name(host), port).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(host.clone())
            .map_err(|_| QueueError::Tls("its host is not a name that a certificate can have"))?;
        Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(unavailable)?))
    }
}

/// Connects to the address that answers first: one that does not answer must not delay the others.
async fn connect_tcp(name: &str, port: u16) -> Result<TcpStream, QueueError> {
    let addresses = lookup_host((name, port)).await.map_err(|_| QueueError::NameNotFound)?;
    let mut attempts: JoinSet<io::Result<TcpStream>> = addresses.map(TcpStream::connect).collect();
    let mut last = QueueError::NameNotFound;
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(unavailable)?;
                return Ok(stream);
            }
            Err(error) => last = unavailable(error),
        }
    }
    Err(last)
}

fn unavailable(error: io::Error) -> QueueError {
    QueueError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinel_of_this_machine_does_not_make_a_connection_local() -> Result<(), QueueError> {
        for (url, expected) in [
            ("redis://localhost", Encryption::PlainLocal),
            ("redis+sentinel://localhost/main", Encryption::Plain),
            ("redis+cluster://localhost", Encryption::Plain),
            ("rediss+sentinel://localhost/main", Encryption::Verified),
        ] {
            assert_eq!(Server::new(url, None, None, Hosts::default())?.encryption(), expected, "{url}");
        }
        Ok(())
    }
}
