//! Values of Secrets. They are read by `get` when needed, never listed or watched, and never printed, not even as a
//! plain hash.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use pulse_crd::{PulseIngest, SecretKey};
use sha2::Sha256;

use crate::secret_uses::referenced;

/// Value of a key of a Secret. Its `Debug` output does not contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the value, to connect with it or to compute a digest.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// Result of reading a key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRead {
    /// The value.
    Found(SecretValue),
    /// The API server answered that the Secret or the key does not exist; with a sentence for the status.
    Missing(String),
    /// The Secret cannot be read and may exist, so nothing must change because of it; with a sentence for the status.
    Unreadable(String),
}

impl SecretRead {
    /// Returns the value if it was read.
    pub fn found(&self) -> Option<&SecretValue> {
        match self {
            Self::Found(value) => Some(value),
            Self::Missing(_) | Self::Unreadable(_) => None,
        }
    }
}

/// Returns the values of the referenced keys in the Secrets as they were read, by name. A Secret is only missing if the
/// API server answers "not found"; any other error makes it unreadable.
pub fn reads(
    cr: &PulseIngest,
    read: &BTreeMap<String, Result<Option<Secret>, String>>,
) -> BTreeMap<SecretKey, SecretRead> {
    let value = |key: &SecretKey| {
        Some(match read.get(&key.name)? {
            Ok(Some(secret)) => match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
                Some(value) => SecretRead::Found(SecretValue::new(value.0.clone())),
                None => SecretRead::Missing(format!("Secret {} has no key {}", key.name, key.key)),
            },
            Ok(None) => SecretRead::Missing(format!("Secret {} does not exist", key.name)),
            Err(error) => SecretRead::Unreadable(format!("Secret {} cannot be read: {error}", key.name)),
        })
    };
    referenced(cr).into_iter().filter_map(|key| Some((key.clone(), value(&key)?))).collect()
}

/// The Secret with the key of the digests, in the operator's namespace.
pub const DIGEST_SECRET: &str = "pulse-operator-digest-key";
/// The key of that Secret.
pub const DIGEST_SECRET_KEY: &str = "key";

/// HMAC key for digests of Secrets. With a plain hash, a weak password could be guessed from its digest.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    key: SecretValue,
}

impl DigestKey {
    /// The key in its Secret; `None` if it is absent or empty.
    pub fn of(secret: Secret) -> Option<Self> {
        let key = secret.data.and_then(|mut data| data.remove(DIGEST_SECRET_KEY));
        key.filter(|ByteString(key)| !key.is_empty()).map(|ByteString(key)| Self::new(key))
    }

    /// Creates a key of any length. Its id is the start of its digest.
    pub fn new(key: Vec<u8>) -> Self {
        let mut named = Self { id: String::new(), key: SecretValue(key) };
        named.id = named.mac(&[b"pulse key id"])[..6].to_owned();
        named
    }

    /// Returns `<key id>:<digest>` of the values in their order.
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
    fn digest_names_its_key_and_distinguishes_values() {
        let key = DigestKey::new(vec![7; 32]);
        assert_eq!(key.digest(&[b"ab", b"c"]), key.digest(&[b"ab", b"c"]));
        assert_ne!(key.digest(&[b"ab", b"c"]), key.digest(&[b"a", b"bc"]));
        assert_ne!(
            key.digest(&[b"a"]).split(':').next(),
            DigestKey::new(vec![8; 32]).digest(&[b"a"]).split(':').next()
        );
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let result = SecretRead::Found(SecretValue::new(b"canary".to_vec()));
        assert!(!format!("{result:?} {:?}", DigestKey::new(b"canary".to_vec())).contains("canary"));
    }
}
