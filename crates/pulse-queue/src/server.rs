//! The Redis server of a URL: its address, and how to open a stream to it.

use std::io;
use std::sync::Arc;

use pulse_tls::{CaBundle, ClientCertificate, Encryption};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::error::QueueError;

/// A stream to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The server of a URL. Cheap to clone; holds no connection.
#[derive(Clone)]
pub(crate) struct Server {
    info: ConnectionInfo,
    /// The name to look up in place of the URL's host, which TLS still verifies.
    alias: Option<String>,
    tls: Option<Arc<ClientConfig>>,
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
    ) -> Result<Self, QueueError> {
        let info = url.into_connection_info().map_err(QueueError::Config)?;
        let tls = match (info.addr(), ca) {
            (ConnectionAddr::TcpTls { insecure: true, .. }, _) => {
                return Err(QueueError::Tls(
                    "#insecure is not supported: give the certificate of the server's CA as CA file",
                ));
            }
            (ConnectionAddr::TcpTls { .. }, ca) => Some(Arc::new(pulse_tls::client_config(ca, identity))),
            (_, Some(_)) => {
                return Err(QueueError::Tls(
                    "a CA is given, but the URL does not ask for TLS: write rediss://, or leave the CA out",
                ));
            }
            (_, None) if identity.is_some() => {
                return Err(QueueError::Tls(
                    "a certificate is given, but the URL does not ask for TLS: write rediss://, or leave it out",
                ));
            }
            (_, None) => None,
        };
        Ok(Self { info, alias: None, tls })
    }

    /// Looks up `alias` in place of the URL's host.
    pub(crate) fn with_alias(self, alias: Option<String>) -> Self {
        Self { alias, ..self }
    }

    /// User, password and database.
    pub(crate) fn login(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }

    /// Encryption of the connections, as the URL asks for it.
    pub(crate) fn encryption(&self) -> Encryption {
        match self.info.addr() {
            ConnectionAddr::TcpTls { .. } => Encryption::Verified,
            ConnectionAddr::Tcp(host, _) => Encryption::plain(host),
            _ => Encryption::UnixSocket,
        }
    }

    /// Opens a stream. Has no time limit.
    ///
    /// # Errors
    /// [`QueueError::NameNotFound`], or [`QueueError::Unavailable`] if the server cannot be reached or the handshake
    /// fails.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, QueueError> {
        let name = |host: &str| self.alias.clone().unwrap_or_else(|| host.to_owned());
        Ok(match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => Box::new(connect_tcp(&name(host), *port).await?),
            ConnectionAddr::TcpTls { host, port, .. } => {
                let tcp = connect_tcp(&name(host), *port).await?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| QueueError::Tls("its host is not a name that a certificate can have"))?;
                let config = self.tls.clone().ok_or(QueueError::Tls("it has no TLS settings"))?;
                Box::new(TlsConnector::from(config).connect(name, tcp).await.map_err(unavailable)?)
            }
            ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(unavailable)?),
            _ => return Err(QueueError::Tls("its scheme is not supported")),
        })
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
