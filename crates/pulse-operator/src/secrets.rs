//! Secrets: read when needed, never listed, never watched, and shown to nobody, not even as a plain hash.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of a Secret's key. It has no readable form.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Vec<u8>);

impl Hidden {
    /// Hides a value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The value, for whoever connects with it.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// What came of reading a key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRead {
    /// Its value.
    Found(Hidden),
    /// The API server says that it is not there: a sentence for the status.
    Missing(String),
    /// It may be there: nothing may change because of that.
    Unreadable(String),
}

impl SecretRead {
    /// The value, if it was read.
    pub fn found(&self) -> Option<&Hidden> {
        match self {
            Self::Found(value) => Some(value),
            Self::Missing(_) | Self::Unreadable(_) => None,
        }
    }
}

/// The key that digests of Secrets are made with. Without it, a weak password could be guessed from its digest.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    key: Hidden,
}

impl DigestKey {
    /// A key of any length; it is named by the first digits of its own digest.
    pub fn new(key: Vec<u8>) -> Self {
        let mut named = Self { id: String::new(), key: Hidden(key) };
        named.id = named.mac(&[b"pulse key id"])[..6].to_owned();
        named
    }

    /// `<key id>:<digits>` of the values in their order.
    pub fn digest(&self, values: &[&[u8]]) -> String {
        format!("{}:{}", self.id, &self.mac(values)[..24])
    }

    fn mac(&self, values: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.reveal()).expect("HMAC takes a key of any length");
        for value in values {
            mac.update(&(value.len() as u64).to_be_bytes());
            mac.update(value);
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DigestKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_names_its_key_and_tells_values_apart() {
        let key = DigestKey::new(vec![7; 32]);
        assert_eq!(key.digest(&[b"ab", b"c"]), key.digest(&[b"ab", b"c"]));
        assert_ne!(key.digest(&[b"ab", b"c"]), key.digest(&[b"a", b"bc"]));
        assert_ne!(
            key.digest(&[b"a"]).split(':').next(),
            DigestKey::new(vec![8; 32]).digest(&[b"a"]).split(':').next()
        );
    }

    #[test]
    fn a_value_is_never_printed() {
        let reading = SecretRead::Found(Hidden::new(b"canary".to_vec()));
        assert!(!format!("{reading:?} {:?}", DigestKey::new(b"canary".to_vec())).contains("canary"));
    }
}
