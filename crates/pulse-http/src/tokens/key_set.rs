//! The keys of one source at one time.

use jsonwebtoken::Algorithm;

use crate::tokens::jwk;
use crate::tokens::key::{Key, KeyError};

/// Maximum number of keys: a token without `kid` is tried with all of its algorithm.
const MAX_KEYS: usize = 32;

/// Keys that are valid at the same time, so that the issuer can change from one to the next.
pub(crate) struct KeySet(Vec<Key>);

impl KeySet {
    pub(crate) fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        match keys.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEYS => Ok(Self(keys)),
            _ => Err(KeyError::TooMany(MAX_KEYS)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The keys that a token with this header may be signed with.
    pub(crate) fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            let is_named = key.kid.is_none() || kid.is_none() || key.kid.as_deref() == kid;
            key.algorithm == algorithm && is_named
        })
    }
}

/// A shared secret in a file. Editors, `echo` and `kubectl create secret --from-file` put a line end behind it, and the
/// issuer of the tokens does not have it.
pub(crate) fn secret(content: &[u8]) -> Result<Vec<Key>, KeyError> {
    let secret = content.strip_suffix(b"\n").map_or(content, |line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(vec![Key::secret(secret)?])
}

/// Public keys: PEM with one or more of them, or a JSON Web Key Set. A key of the file that cannot be used is an error.
pub(crate) fn public_keys(content: &[u8]) -> Result<Vec<Key>, KeyError> {
    if content.trim_ascii_start().starts_with(b"{") {
        let document = document(content)?;
        return document.keys.iter().filter_map(|jwk| jwk::key(jwk).transpose()).collect();
    }
    let blocks = pem::parse_many(content).map_err(|error| KeyError::Malformed(error.to_string()))?;
    if blocks.is_empty() {
        return Err(KeyError::Empty);
    }
    blocks
        .iter()
        .map(|block| match block.tag() {
            "PUBLIC KEY" => Key::spki(block.contents()),
            "RSA PUBLIC KEY" => Key::pkcs1(block.contents()),
            tag if tag.ends_with("PRIVATE KEY") => Err(KeyError::Private),
            tag => Err(KeyError::OtherPem(tag.to_owned())),
        })
        .collect()
}

/// The usable keys of a JSON Web Key Set that an identity provider serves, and why others are not. Those of other
/// purposes are passed over in silence.
pub(crate) fn served_keys(content: &[u8]) -> Result<(KeySet, Vec<KeyError>), KeyError> {
    let (mut keys, mut refused) = (Vec::new(), Vec::new());
    for jwk in &document(content)?.keys {
        match jwk::key(jwk) {
            Ok(key) => keys.extend(key),
            Err(error) => refused.push(error),
        }
    }
    match KeySet::new(keys) {
        Err(KeyError::Empty) => Err(refused.into_iter().next().unwrap_or(KeyError::Empty)),
        set => Ok((set?, refused)),
    }
}

fn document(content: &[u8]) -> Result<jwk::Document, KeyError> {
    serde_json::from_slice(content).map_err(|error| KeyError::Malformed(format!("it is no JSON Web Key Set: {error}")))
}
