//! Encryption and verification of a connection.

use std::fmt;
use std::net::IpAddr;

/// Encryption of a connection, and the verification of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// A unix socket, which does not leave the machine.
    UnixSocket,
    /// Not encrypted, within the machine.
    PlainLocal,
    /// Not encrypted.
    Plain,
    /// Encrypted, but the server's certificate is not verified.
    Unverified,
    /// Encrypted, and the server's certificate is signed by a trusted CA. The host name is not verified.
    VerifiedCa,
    /// Encrypted, and the server's certificate and host name are verified.
    Verified,
}

impl Encryption {
    /// The value for an unencrypted TCP connection to `host`.
    pub fn plain(host: &str) -> Self {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if is_local { Self::PlainLocal } else { Self::Plain }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnixSocket => "unix socket",
            Self::PlainLocal => "not encrypted, within this machine",
            Self::Plain => "not encrypted",
            Self::Unverified => "encrypted, server not verified",
            Self::VerifiedCa => "encrypted, CA verified, name not verified",
            Self::Verified => "encrypted, server verified",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_recognises_loopback_hosts() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"] {
            assert_eq!(Encryption::plain(host), Encryption::PlainLocal, "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example", ""] {
            assert_eq!(Encryption::plain(host), Encryption::Plain, "{host}");
        }
    }
}
