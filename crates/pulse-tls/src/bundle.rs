//! CA certificates that a server's certificate is verified with.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// One or more CA certificates, as PEM that was parsed without an error.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CaBundle(Vec<u8>);

/// Reason why a CA bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file cannot be read.
    #[error("the CA file {} cannot be read: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the read.
        #[source]
        source: std::io::Error,
    },
    /// The bundle has no certificate.
    #[error("there is no certificate in it: it must be PEM, with lines -----BEGIN CERTIFICATE-----")]
    Empty,
    /// One of the certificates cannot be parsed.
    #[error("certificate {number} in it cannot be parsed: {reason}")]
    Certificate {
        /// Position in the bundle, counted from 1.
        number: usize,
        /// Message of the parser.
        reason: String,
    },
    /// The file was read, but its content cannot be used.
    #[error("the CA file {} cannot be used: {source}", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
        /// Error of the content.
        #[source]
        source: Box<CaError>,
    },
}

impl CaBundle {
    /// Parses `pem`.
    ///
    /// # Errors
    /// [`CaError::Empty`] if it has no certificate, [`CaError::Certificate`] if one of them cannot be parsed.
    pub fn from_pem(pem: Vec<u8>) -> Result<Self, CaError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
            let invalid = |reason: String| CaError::Certificate { number: index + 1, reason };
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.is_empty() { Err(CaError::Empty) } else { Ok(Self(pem)) }
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`CaError::File`] if it cannot be read, [`CaError::Content`] if its content cannot be used.
    pub fn read(path: &Path) -> Result<Self, CaError> {
        let pem = std::fs::read(path).map_err(|source| CaError::File { path: path.to_owned(), source })?;
        Self::from_pem(pem).map_err(|error| CaError::Content { path: path.to_owned(), source: Box::new(error) })
    }

    /// The certificates, in PEM.
    pub fn pem(&self) -> &[u8] {
        &self.0
    }

    /// The certificates. All of them were parsed when the bundle was made.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(&self.0).filter_map(Result::ok)
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CaBundle({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["a".to_owned()]).expect("generated").cert.pem()
    }

    #[test]
    fn bundle_accepts_several_certificates_and_comments() {
        let pem = format!("# CAs\n{}\n{}", certificate(), certificate());
        assert!(CaBundle::from_pem(pem.into_bytes()).is_ok());
    }

    #[test]
    fn bundle_error_names_the_problem() {
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, expected) in [
            (String::new(), "no certificate"),
            ("not PEM at all".into(), "-----BEGIN CERTIFICATE-----"),
            ("-----BEGIN CERTIFICATE-----\nAAAA".into(), "certificate 1"),
            (certificate() + damaged, "certificate 2"),
        ] {
            let error = CaBundle::from_pem(pem.into_bytes()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = CaBundle::read(Path::new("/nowhere/ca.crt")).expect_err("no file").to_string();
        assert!(error.contains("/nowhere/ca.crt") && error.contains("No such file"), "{error}");
    }
}
