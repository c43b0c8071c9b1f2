//! The certificate of a client, for servers that ask for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::client::ClientCertificate;

/// Certificate chain and key of a client in two PEM files, which each new connection reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    certificate: PathBuf,
    key: PathBuf,
}

/// Reason why certificate and key of a client cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read, or is no PEM of what it should be.
    #[error("{of} cannot be used: {reason}")]
    Pem {
        /// Path of the file, or `certificate` or `key`.
        of: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is not that of the certificate.
    #[error("certificate and key of the client cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

impl ClientIdentity {
    /// Checks the files.
    ///
    /// # Errors
    /// [`IdentityError`] if a file cannot be read or used.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, IdentityError> {
        let identity = Self { certificate, key };
        identity.read()?;
        Ok(identity)
    }

    /// Path of the certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Path of the key.
    pub fn key(&self) -> &Path {
        &self.key
    }

    fn read(&self) -> Result<CertifiedKey, IdentityError> {
        let name = |path: &Path| path.display().to_string();
        let read = |path: &Path| {
            fs::read(path).map_err(|error| IdentityError::Pem { of: name(path), reason: error.to_string() })
        };
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        certified_key((&certificate, &name(&self.certificate)), (&key, &name(&self.key)))
    }
}

/// A certificate chain and its key that do not change, in PEM.
///
/// # Errors
/// [`IdentityError`] if they cannot be used.
pub fn fixed_identity(certificate: &[u8], key: &[u8]) -> Result<ClientCertificate, IdentityError> {
    let pair = certified_key((certificate, "certificate"), (key, "key"))?;
    Ok(Arc::new(SingleCertAndKey::from(pair)))
}

fn certified_key(
    (certificate, certificate_name): (&[u8], &str),
    (key, key_name): (&[u8], &str),
) -> Result<CertifiedKey, IdentityError> {
    let error = |of: &str, reason: &str| IdentityError::Pem { of: of.to_owned(), reason: reason.to_owned() };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain =
        chain.ok_or_else(|| error(certificate_name, "it must be PEM, with lines -----BEGIN CERTIFICATE-----"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| error(key_name, "it must be PEM without a password, with lines -----BEGIN PRIVATE KEY-----"))?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // The server then refuses the connection and says that a certificate is missing.
        self.read().ok().map(Arc::new)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_needs_a_certificate_with_its_own_key() {
        let folder = std::env::temp_dir().join(format!("pulse-identity-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("generated");
        let (one, two) = (pair("a"), pair("b"));
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text).expect("written");
            folder.join(name)
        };
        let (certificate, key) = (write("a.crt", one.cert.pem()), write("a.key", one.signing_key.serialize_pem()));
        let other = write("b.key", two.signing_key.serialize_pem());
        assert!(ClientIdentity::new(certificate.clone(), key.clone()).is_ok());
        for (certificate, key, expected) in [
            (folder.join("missing"), key.clone(), "missing cannot be used: No such file"),
            (key.clone(), key, "it must be PEM, with lines -----BEGIN CERTIFICATE-----"),
            (certificate.clone(), certificate.clone(), "it must be PEM without a password"),
            (certificate, other, "cannot be used together"),
        ] {
            let error = ClientIdentity::new(certificate, key).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::remove_dir_all(folder).expect("removed");
    }
}
