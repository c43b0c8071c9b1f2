//! How far a connection can be trusted.

use std::fmt;
use std::net::IpAddr;

/// How far a connection can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// It does not leave the machine, by a unix socket.
    UnixSocket,
    /// In clear, within the machine.
    PlainLocal,
    /// In clear.
    Plain,
    /// Encrypted, to whoever answered.
    Unverified,
    /// Encrypted, to a server of a trusted CA, whatever its name.
    VerifiedCa,
    /// Encrypted, to the server of that name.
    Verified,
}

impl Encryption {
    /// In clear, to this host.
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
    fn this_machine_is_told_from_others() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"] {
            assert_eq!(Encryption::plain(host), Encryption::PlainLocal, "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example", ""] {
            assert_eq!(Encryption::plain(host), Encryption::Plain, "{host}");
        }
    }
}
