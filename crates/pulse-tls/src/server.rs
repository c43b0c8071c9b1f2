//! The settings of a TLS server.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::bundle::CaBundle;

/// Protocols that a server offers in the handshake, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reason why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// There is no certificate, or one that cannot be parsed.
    #[error(
        "the certificate cannot be used: it must be PEM, with lines -----BEGIN CERTIFICATE-----, that of the server first"
    )]
    Certificate,
    /// There is no key, or one that cannot be parsed.
    #[error("the key cannot be used: it must be PEM without a password, with lines -----BEGIN PRIVATE KEY-----")]
    Key,
    /// The key is not that of the certificate, or its type is not supported.
    #[error("certificate and key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
    /// The CA of the clients cannot be used.
    #[error("the CA of the clients cannot be used: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
}

/// Settings of a server of HTTP with this certificate chain and key, both in PEM. With `client_ca`, clients need a
/// certificate that it signed. TLS 1.2 and 1.3 only.
///
/// # Errors
/// [`ServerTlsError`] if certificate, key or CA cannot be used.
pub fn server_config(
    certificate: &[u8],
    key: &[u8],
    client_ca: Option<&CaBundle>,
) -> Result<ServerConfig, ServerTlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(ServerTlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServerTlsError::Key)?;
    let builder = ServerConfig::builder();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(ca.certificates());
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_config_needs_a_certificate_with_its_own_key() {
        crate::install_provider();
        let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("generated");
        let (one, two) = (pair("a"), pair("b"));
        let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let ca = CaBundle::from_pem(certificate.clone().into_bytes()).expect("a CA");
        let config = |certificate: &str, key: &str| {
            server_config(certificate.as_bytes(), key.as_bytes(), Some(&ca)).map_err(|error| error.to_string())
        };
        assert_eq!(config(&certificate, &key).map(|config| config.alpn_protocols.len()), Ok(2));
        for (certificate, key, expected) in [
            ("", &key, "the certificate cannot be used"),
            (&key, &key, "the certificate cannot be used"),
            (&certificate, &String::new(), "the key cannot be used"),
            (&certificate, &certificate, "the key cannot be used"),
            (&certificate, &two.signing_key.serialize_pem(), "cannot be used together"),
        ] {
            let error = config(certificate, key).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
