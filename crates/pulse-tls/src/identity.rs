//! The certificate of a client, for servers that ask for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Certificate chain and key of a client in two PEM files, which each new connection reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    certificate: PathBuf,
    key: PathBuf,
}

/// Reason why certificate and key of a client cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read, or is no PEM of what it should have.
    #[error("{} cannot be used: {reason}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
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
        let file = |path: &Path, reason: String| IdentityError::File { path: path.to_owned(), reason };
        let read = |path: &Path| fs::read(path).map_err(|error| file(path, error.to_string()));
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
            file(&self.certificate, "it must be PEM, with lines -----BEGIN CERTIFICATE-----".to_owned())
        })?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|_| {
            file(&self.key, "it must be PEM without a password, with lines -----BEGIN PRIVATE KEY-----".to_owned())
        })?;
        Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
    }
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
