//! TLS of connections to PostgreSQL, and which certificates they trust.
//!
//! The URL decides as in libpq (`sslmode`, `sslrootcert`), with one more rule: a CA implies that the server is verified.
//! libpq does not verify it if `sslmode` is absent.

use std::path::Path;
use std::sync::Arc;

use pulse_tls::{CaBundle, ClientIdentity, Encryption};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::error::ConfigError;

/// Applies the TLS settings of `url` and the CA to `options`.
pub(crate) fn secure(
    options: PgConnectOptions,
    url: &str,
    ca: Option<&CaBundle>,
) -> Result<PgConnectOptions, ConfigError> {
    let refuse = |why: &str| Err(ConfigError(why.to_owned()));
    let named = parameter(url, &["sslrootcert", "ssl-root-cert", "ssl-ca"]);
    let of_url = match (ca, named.as_deref()) {
        (Some(_), _) | (None, None | Some("system")) => None,
        (None, Some(path)) => {
            Some(CaBundle::read(Path::new(path)).map_err(|error| ConfigError(format!("sslrootcert: {error}")))?)
        }
    };
    if options.get_socket().is_some() {
        // As in libpq. Otherwise each connection would ask for TLS first.
        return match ca.or(of_url.as_ref()) {
            Some(_) => refuse("a unix socket has no TLS: leave out the CA"),
            None => Ok(options.ssl_mode(PgSslMode::Disable)),
        };
    }
    let mode = options.get_ssl_mode();
    let Some(ca) = ca.or(of_url.as_ref()) else {
        return match (named, mode) {
            (_, PgSslMode::VerifyCa) => refuse(
                "sslmode=verify-ca checks no name, and any server has a certificate of some public CA: give the \
                 certificate of yours as CA file, or say sslmode=verify-full",
            ),
            // Only the system's certificates.
            (Some(_), _) => Ok(options.ssl_root_cert_from_pem(Vec::new()).ssl_mode(PgSslMode::VerifyFull)),
            (None, _) => Ok(options),
        };
    };
    let mode = match mode {
        PgSslMode::Disable | PgSslMode::Allow => {
            return refuse("the URL says sslmode=disable or allow, and a CA is given: leave one of them out");
        }
        PgSslMode::VerifyCa => mode,
        PgSslMode::Prefer | PgSslMode::Require | PgSslMode::VerifyFull => PgSslMode::VerifyFull,
    };
    Ok(options.ssl_root_cert_from_pem(ca.pem().to_vec()).ssl_mode(mode))
}

/// Adds the certificate for a server that asks for one. Each new connection reads the files.
pub(crate) fn with_identity(
    options: PgConnectOptions,
    identity: Option<&ClientIdentity>,
) -> Result<PgConnectOptions, ConfigError> {
    let Some(identity) = identity else { return Ok(options) };
    if options.get_socket().is_some() || matches!(options.get_ssl_mode(), PgSslMode::Disable) {
        return Err(ConfigError(
            "a certificate is given, but the URL does not ask for TLS: leave one of them out".into(),
        ));
    }
    Ok(options.ssl_client_cert(identity.certificate()).ssl_client_key(identity.key()))
}

/// An encryption, which can be compared.
pub(crate) struct Strength(pub(crate) Encryption);

impl Strength {
    pub(crate) fn is_weaker_than(&self, other: Self) -> bool {
        self.rank() < other.rank()
    }

    fn rank(&self) -> u8 {
        match self.0 {
            Encryption::Plain => 0,
            Encryption::Unverified => 1,
            Encryption::VerifiedCa => 2,
            Encryption::PlainLocal | Encryption::UnixSocket | Encryption::Verified => 3,
        }
    }
}

/// The weakest encryption that the settings of these servers ask for: each may become the primary.
pub(crate) fn weakest(servers: &[Arc<PgConnectOptions>]) -> Strength {
    let all = servers.iter().map(|options| Strength(configured(options)));
    all.min_by_key(Strength::rank).unwrap_or(Strength(Encryption::Plain))
}

fn configured(options: &PgConnectOptions) -> Encryption {
    if options.get_socket().is_some() {
        return Encryption::UnixSocket;
    }
    match options.get_ssl_mode() {
        PgSslMode::VerifyFull => Encryption::Verified,
        PgSslMode::VerifyCa => Encryption::VerifiedCa,
        PgSslMode::Require => Encryption::Unverified,
        // The server decides, or a machine between.
        PgSslMode::Prefer | PgSslMode::Allow | PgSslMode::Disable => Encryption::plain(options.get_host()),
    }
}

fn parameter(url: &str, names: &[&str]) -> Option<String> {
    let query = url.split_once('?')?.1;
    let found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| names.contains(&name.as_ref()));
    found.last().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn ca() -> CaBundle {
        let pem = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("generated").cert.pem();
        CaBundle::from_pem(pem.into_bytes()).expect("valid")
    }

    fn mode(query: &str, ca: Option<&CaBundle>) -> Result<PgSslMode, String> {
        let url = format!("postgres://a:secret@db.example/pulse{query}");
        let options = PgConnectOptions::from_str(&url).map_err(|error| error.to_string())?;
        secure(options, &url, ca).map(|options| options.get_ssl_mode()).map_err(|error| error.to_string())
    }

    #[test]
    fn url_without_ca_follows_libpq() {
        for (query, expected) in [
            ("", PgSslMode::Prefer),
            ("?sslmode=disable", PgSslMode::Disable),
            ("?sslmode=require", PgSslMode::Require),
            ("?sslmode=verify-full", PgSslMode::VerifyFull),
            ("?sslrootcert=system", PgSslMode::VerifyFull),
            ("?host=/run/postgresql&sslmode=require", PgSslMode::Disable),
        ] {
            assert!(
                matches!(mode(query, None), Ok(mode) if std::mem::discriminant(&mode) == std::mem::discriminant(&expected)),
                "{query}"
            );
        }
    }

    #[test]
    fn ca_implies_verify_full_unless_url_says_verify_ca() {
        for query in ["", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-full"] {
            assert!(matches!(mode(query, Some(&ca())), Ok(PgSslMode::VerifyFull)), "{query}");
        }
        assert!(matches!(mode("?sslmode=verify-ca", Some(&ca())), Ok(PgSslMode::VerifyCa)));
    }

    #[test]
    fn contradictory_url_is_refused_without_password_in_error() {
        for (query, with_ca, why) in [
            ("?sslmode=disable", true, "leave one of them out"),
            ("?sslmode=allow", true, "leave one of them out"),
            ("?host=/run/postgresql", true, "a unix socket has no TLS"),
            ("?sslmode=verify-ca", false, "sslmode=verify-full"),
            ("?sslmode=verify-ca&sslrootcert=system", false, "sslmode=verify-full"),
            ("?sslrootcert=/nowhere/ca.crt", false, "/nowhere/ca.crt cannot be read"),
        ] {
            let error = mode(query, with_ca.then(ca).as_ref()).expect_err(query);
            assert!(error.contains(why) && !error.contains("secret"), "{query}: {error}");
        }
    }
}
