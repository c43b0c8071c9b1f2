//! Which keys are in use, for the audit log.

use tokio::sync::watch;

use crate::tokens::loaded::Loaded;

/// Maximum length of a `kid` in a name, in characters.
const MAX_KID_CHARS: usize = 100;

/// A key that tokens are verified with, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    /// Algorithm and `kid`.
    pub name: String,
    /// The thumbprint of a public key (RFC 7638, with SHA-256). Of a secret, 8 digits that are the same for the same secret.
    pub fingerprint: String,
}

/// The keys of a verifier as they change.
pub struct UsedKeys(pub(crate) watch::Receiver<Loaded>);

impl UsedKeys {
    /// The present keys; empty before the first ones are read. Takes 20 ms for each secret.
    pub fn now(&mut self) -> Vec<UsedKey> {
        let keys = self.0.borrow_and_update().keys(None);
        let used = keys.iter().flat_map(|keys| keys.iter()).map(|key| {
            let kid = key.kid.iter().flat_map(|kid| [" ", kid]).collect::<String>();
            let name = format!("{:?}{}", key.algorithm, kid.chars().take(MAX_KID_CHARS).collect::<String>());
            UsedKey { name, fingerprint: key.material.fingerprint() }
        });
        used.collect()
    }

    /// Waits until keys have been read again; forever if they cannot change.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
