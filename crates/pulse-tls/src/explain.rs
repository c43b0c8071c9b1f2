//! What a failed handshake means, and what to do about it.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error as TlsError};

/// Says what to do, if a handshake is what failed. Drivers wrap that error in errors of their own.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let tls = find(error)?;
    Some(match tls {
        TlsError::InvalidCertificate(why) => certificate(why),
        TlsError::InvalidMessage(_) => {
            "it does not speak TLS on this port: use its TLS port, or turn TLS on in the server".into()
        }
        other => format!("the TLS handshake failed: {other}"),
    })
}

fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a CA that is trusted here: give the certificate of its CA as CA file"
                .into()
        }
        // Its text has the expected name and those in the certificate.
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name: connect by a name that is in it ({why})")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("its certificate has expired: renew it ({why})")
        }
        other => format!("its certificate is refused: {other}"),
    }
}

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    // Neither of these names what it wraps as its source.
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
    fn a_handshake_is_found_however_it_is_wrapped() {
        let tls = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls);
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(wrapped);
        let told = explain(&shared).expect("it is a handshake");
        assert!(told.contains("not signed by a CA that is trusted here"), "{told}");
        assert_eq!(explain(&io::Error::from(io::ErrorKind::TimedOut)), None);
    }
}
