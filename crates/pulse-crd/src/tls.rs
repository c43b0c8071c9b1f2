//! Certificates of listeners and of clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{SecretKey, ca_secret, with_ca_key};

/// Reference to a Secret with a certificate and its key, as cert-manager creates it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CertificateSecret {
    /// Name of a Secret with the keys `tls.crt` and `tls.key`, in PEM, such as one of the type `kubernetes.io/tls`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl CertificateSecret {
    /// Key of the certificate in the Secret.
    pub const CERTIFICATE: &str = "tls.crt";
    /// Key of the private key in the Secret.
    pub const KEY: &str = "tls.key";

    /// The keys of the Secret that must exist.
    pub fn keys(&self) -> [SecretKey; 2] {
        [Self::CERTIFICATE, Self::KEY].map(|key| SecretKey { name: self.name.clone(), key: key.to_owned() })
    }
}

/// TLS of the ports of a role, those for clients and for probes and metrics. A renewed certificate is used within about two
/// minutes, without a restart.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerTlsSpec {
    /// Secret with the certificate.
    pub secret_ref: CertificateSecret,
    /// Secret key with the CA of client certificates, in PEM. Clients then need a certificate that it signed, in addition
    /// to their token; probes and metrics do not. The key defaults to `ca.crt`.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub client_ca_secret_ref: Option<SecretKey>,
}
