//! The settings of a TLS client.

use rustls::{ClientConfig, RootCertStore};

use crate::bundle::CaBundle;

/// Settings of a client that verifies the server's certificate and host name with the CAs of `ca`, or else with the
/// roots of the system. Without any usable root, every handshake fails with an error that [`crate::explain`] explains.
pub fn client_config(ca: Option<&CaBundle>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => roots.add_parsable_certificates(ca.certificates()),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}
