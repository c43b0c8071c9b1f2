//! Client TLS, the same for PostgreSQL and Redis: one provider, CA bundles, and what a failed handshake means.
//!
//! The drivers do the handshakes. They take the roots of the system, as `SSL_CERT_FILE` or the platform says, unless
//! they are given a [`CaBundle`].

mod bundle;
mod encryption;
mod explain;

pub use bundle::{CaBundle, CaError};
pub use encryption::Encryption;
pub use explain::explain;

/// Makes `ring` the provider of the process. Call it first of all: without one, the first handshake would panic if
/// somebody linked a second provider.
pub fn install_provider() {
    // Whoever came first chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
