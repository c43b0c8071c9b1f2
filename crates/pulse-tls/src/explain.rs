//! Advice for failed TLS handshakes.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error as TlsError};

/// Returns what is wrong and what to do, if `error` is or wraps a failed TLS handshake. The drivers of PostgreSQL and
/// Redis wrap it in their own errors.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let tls = find(error)?;
    Some(match tls {
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::InvalidMessage(_) => {
            "it does not speak TLS on this port: use its TLS port, or turn TLS on in the server".into()
        }
        other => format!("the TLS handshake failed: {other}"),
    })
}

/// Whether `error` is or wraps a handshake in which the certificate of the server was refused. The server speaks TLS then.
pub fn is_certificate_refused(error: &(dyn Error + 'static)) -> bool {
    matches!(find(error), Some(TlsError::InvalidCertificate(_)))
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a CA that is trusted here: give the certificate of its CA as CA file"
                .into()
        }
        // The error's text has the expected name and the names in the certificate.
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name: connect by a name that is in it ({error})")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired: renew it ({error})")
        }
        other => format!("its certificate is refused: {other}"),
    }
}

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    // Neither of these returns the wrapped error as its source.
    if let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return find(wrapped);
    }
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return find(shared.as_ref());
    }
    find(error.source()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_finds_a_wrapped_handshake_error() {
        let tls = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls);
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(wrapped);
        let advice = explain(&shared).expect("a handshake error");
        assert!(advice.contains("not signed by a CA that is trusted here"), "{advice}");
        assert!(is_certificate_refused(&shared));
        assert!(!is_certificate_refused(&io::Error::other(TlsError::DecryptError)));
        assert_eq!(explain(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
