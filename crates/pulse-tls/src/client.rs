//! The settings of a TLS client.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::{ClientConfig, RootCertStore};

use crate::bundle::CaBundle;

/// What a client shows to servers that ask for a certificate.
pub type ClientCertificate = Arc<dyn ResolvesClientCert>;

/// Settings of a client that verifies the server's certificate and host name with the CAs of `ca`, or else with the
/// roots of the system. Without any usable root, every handshake fails with an error that [`crate::explain`] explains.
///
/// The client shows `identity` to servers that ask for a certificate.
pub fn client_config(ca: Option<&CaBundle>, identity: Option<ClientCertificate>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => roots.add_parsable_certificates(ca.certificates()),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(identity),
    }
}
