//! Files with the certificate of a listener.

use std::path::PathBuf;

use pulse_tests::Authority;

pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let certificates = Self { authority: Authority::new()?, folder: tempfile::tempdir()? };
        certificates.write("ca.crt", &certificates.authority.pem())?;
        certificates.renew()?;
        Ok(certificates)
    }

    /// Issues another certificate; returns it as DER. The files change one after the other.
    pub(crate) fn renew(&self) -> anyhow::Result<Vec<u8>> {
        use tokio_rustls::rustls::pki_types::CertificateDer;
        use tokio_rustls::rustls::pki_types::pem::PemObject;
        let pair = self.authority.server(&["localhost", "127.0.0.1"])?;
        self.write("tls.crt", &pair.certificate)?;
        self.write("tls.key", &pair.key)?;
        Ok(CertificateDer::from_pem_slice(pair.certificate.as_bytes())?.to_vec())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The flags of a role that listens with TLS.
    pub(crate) fn flags(&self) -> Vec<String> {
        ["--tls-cert".into(), self.text_path("tls.crt"), "--tls-key".into(), self.text_path("tls.key")].into()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        std::fs::write(self.path("next"), content)?;
        Ok(std::fs::rename(self.path("next"), self.path(name))?)
    }
}
