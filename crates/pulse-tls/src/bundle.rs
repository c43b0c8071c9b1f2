//! Certificates of authorities that a server's certificate is checked against.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// One or more certificates of authorities, as PEM that was checked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CaBundle(Vec<u8>);

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file cannot be read.
    #[error("the CA file {} cannot be read: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing of use in it.
    #[error("there is no certificate in it: it must be PEM, with lines -----BEGIN CERTIFICATE-----")]
    Empty,
    /// One of its certificates is damaged.
    #[error("certificate {number} in it cannot be read: {why}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// What the parser says.
        why: String,
    },
    /// One of the above, in a file.
    #[error("the CA file {} cannot be used: {source}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<CaError>,
    },
}

impl CaBundle {
    /// Checks `pem`.
    ///
    /// # Errors
    /// [`CaError::Empty`] or [`CaError::Certificate`].
    pub fn from_pem(pem: Vec<u8>) -> Result<Self, CaError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
            let broken = |why: String| CaError::Certificate { number: index + 1, why };
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            roots.add(certificate).map_err(|error| broken(error.to_string()))?;
        }
        if roots.is_empty() { Err(CaError::Empty) } else { Ok(Self(pem)) }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`CaError`], with the file's name.
    pub fn read(path: &Path) -> Result<Self, CaError> {
        let pem = std::fs::read(path).map_err(|source| CaError::File { path: path.to_owned(), source })?;
        Self::from_pem(pem).map_err(|error| CaError::Content { path: path.to_owned(), source: Box::new(error) })
    }

    /// The certificates.
    pub fn pem(&self) -> &[u8] {
        &self.0
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
    fn several_certificates_and_comments_are_a_bundle() {
        let pem = format!("# ours\n{}\n{}", certificate(), certificate());
        assert!(CaBundle::from_pem(pem.into_bytes()).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, why) in [
            (String::new(), "no certificate"),
            ("not PEM at all".into(), "-----BEGIN CERTIFICATE-----"),
            ("-----BEGIN CERTIFICATE-----\nAAAA".into(), "certificate 1"),
            (certificate() + damaged, "certificate 2"),
        ] {
            let error = CaBundle::from_pem(pem.into_bytes()).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = CaBundle::read(Path::new("/nowhere/ca.crt")).expect_err("no file").to_string();
        assert!(error.contains("/nowhere/ca.crt") && error.contains("No such file"), "{error}");
    }
}
