//! TLS of the clients of PostgreSQL and Redis, and of our listeners: the crypto provider, CA bundles, and advice for failed
//! handshakes.
//!
//! The adapters and their drivers do the handshakes. They trust the roots of the system, from `SSL_CERT_FILE` or the platform, unless they
//! are given a [`CaBundle`].

mod bundle;
mod client;
mod encryption;
mod explain;
mod identity;
mod server;

pub use bundle::{CaBundle, CaError};
pub use client::{ClientCertificate, client_config};
pub use encryption::Encryption;
pub use explain::{explain, is_certificate_refused};
pub use identity::{ClientIdentity, IdentityError, fixed_identity};
pub use server::{ServerTlsError, server_config};

/// Makes `ring` the crypto provider of the process. Call it before any connection is opened: without it, the first
/// handshake panics if a dependency links a second provider.
pub fn install_provider() {
    // An error means that `ring` was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
