//! TLS of the listeners, with certificates that are read again when they change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pulse_tls::{CaBundle, CaError, ServerTlsError};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::server::TlsStream;

use crate::reread;

/// The files of a listener's certificate, all in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate of the server, with intermediate ones behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// CA that has to sign the certificates of clients; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the read.
        #[source]
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{} cannot be used: {source}", path.display())]
    Content {
        /// Path of the certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ServerTlsError,
    },
    /// The CA of the clients cannot be used.
    #[error("the CA file of clients cannot be used: {0}")]
    ClientCa(#[from] CaError),
}

/// TLS of a listener. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(watch::Receiver<Arc<rustls::ServerConfig>>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Reads the files, and again whenever one of them changes. New connections get the new certificate, and open ones stay
    /// open. A change that cannot be used is logged, and the last certificate stays.
    ///
    /// # Errors
    /// If the files cannot be used now.
    pub fn start(files: TlsFiles) -> Result<Self, TlsFilesError> {
        let paths: Vec<PathBuf> =
            [&files.certificate, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        let read =
            |path: &PathBuf| reread::read(path).map_err(|source| TlsFilesError::File { path: path.clone(), source });
        let contents = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let (sender, receiver) = watch::channel(Arc::new(config(&files, &contents)?));
        tokio::spawn(async move {
            let changed = |contents: &[Vec<u8>]| match config(&files, contents) {
                Ok(config) => {
                    sender.send_replace(Arc::new(config));
                    tracing::info!("the certificate of the listener has changed");
                }
                // Certificate and key may change one after the other.
                Err(error) => tracing::warn!(%error, "the certificate of the listener has changed: the last one stays"),
            };
            reread::on_change(paths, contents, sender.closed(), changed).await;
        });
        Ok(Self(receiver))
    }

    /// Does the handshake of a new connection.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.0.borrow().clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn config(files: &TlsFiles, contents: &[Vec<u8>]) -> Result<rustls::ServerConfig, TlsFilesError> {
    let client_ca = contents.get(2).map(|pem| CaBundle::from_pem(pem.clone())).transpose()?;
    let [certificate, key] = [0, 1].map(|at| contents.get(at).map(Vec::as_slice).unwrap_or_default());
    pulse_tls::server_config(certificate, key, client_ca.as_ref())
        .map_err(|source| TlsFilesError::Content { path: files.certificate.clone(), source })
}
