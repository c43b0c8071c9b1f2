//! A client that opens its connections itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pulse_tests::{Pair, token};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Settings of a client that trusts this CA, as PEM.
pub(crate) fn config(
    ca: &str,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
    identity: Option<&Pair>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Pair { certificate, key }) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

pub(crate) async fn connect(address: &str, config: Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let handshake = TlsConnector::from(config).connect(ServerName::try_from("localhost")?, stream);
    Ok(tokio::time::timeout(TIMEOUT, handshake).await.context("no handshake within 20 s")??)
}

/// An open connection of either version of HTTP.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) -> anyhow::Result<Self> {
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    /// Sends a request of `ada`; returns status and body.
    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let request = |host: bool| {
            let uri = if host { path.to_owned() } else { format!("https://localhost{path}") };
            let builder = Request::builder().method(method).uri(uri).header("content-type", "application/json");
            let builder = builder.header("authorization", format!("Bearer {}", token("ada", None)));
            let builder = if host { builder.header("host", "localhost") } else { builder };
            builder.body(Full::new(Bytes::from(body.to_owned())))
        };
        let exchange = async {
            let response = match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request(true)?).await?
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request(false)?).await?
                }
            };
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.context("no response within 20 s")?
    }
}
