//! `--require-tls`: which connections of this process have to be encrypted.

use std::sync::OnceLock;

use anyhow::bail;
use http::Uri;
use pulse_tls::Encryption;

/// Set once, from the flag: it is a property of the process, as the crypto provider is.
static IS_REQUIRED: OnceLock<bool> = OnceLock::new();

pub(crate) fn require(is_required: bool) {
    let _ = IS_REQUIRED.set(is_required);
}

/// Refuses a connection to `server` that is not encrypted and verified, if the flag asks for that. Sockets and addresses
/// of this machine are allowed.
pub(crate) fn check(server: &str, encryption: Encryption, fix: &str) -> anyhow::Result<()> {
    let is_protected = match encryption {
        Encryption::Plain | Encryption::Unverified => false,
        Encryption::UnixSocket | Encryption::PlainLocal | Encryption::VerifiedCa | Encryption::Verified => true,
    };
    if IS_REQUIRED.get() == Some(&true) && !is_protected {
        bail!("--require-tls refuses the connection to {server} ({encryption}): {fix}");
    }
    Ok(())
}

/// Encryption of the connections to this URL of an HTTP server.
pub(crate) fn of_url(url: &str) -> Encryption {
    let uri: Uri = url.parse().unwrap_or_default();
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), _) => Encryption::Verified,
        (_, Some(host)) => Encryption::plain(host),
        (_, None) => Encryption::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_protected_by_https_or_on_this_machine() {
        for (url, encryption) in [
            ("https://collector.example:4318", Encryption::Verified),
            ("http://localhost:4318", Encryption::PlainLocal),
            ("http://[::1]:4318/", Encryption::PlainLocal),
            ("http://collector:4318", Encryption::Plain),
            ("collector", Encryption::Plain),
            ("", Encryption::Plain),
        ] {
            assert_eq!(of_url(url), encryption, "{url}");
        }
    }
}
