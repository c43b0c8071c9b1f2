//! JSON Web Keys (RFC 7517).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::Value;

use crate::tokens::key::{Key, KeyError};

/// Maximum length of a `kid`, in bytes.
const MAX_KID_BYTES: usize = 1024;

/// A JSON Web Key Set. Keys are parsed one by one, because others than ours may be in it.
#[derive(Deserialize)]
pub(crate) struct Document {
    pub(crate) keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Only private keys have it.
    d: Option<Value>,
}

/// The key, or `None` if it is not for signatures of our algorithms.
pub(crate) fn key(jwk: &Value) -> Result<Option<Key>, KeyError> {
    let Jwk { kty, kid, purpose, alg, crv, n, e, x, y, d } =
        Jwk::deserialize(jwk).map_err(|error| KeyError::Malformed(error.to_string()))?;
    if d.is_some() || kty == "oct" {
        return Err(KeyError::Private);
    }
    if purpose.is_some_and(|purpose| purpose != "sig") || kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Ok(None);
    }
    let key = match (kty.as_str(), crv.as_deref()) {
        ("RSA", _) if is(&alg, Algorithm::RS256) => Key::rsa(&number("n", n)?, &number("e", e)?)?,
        ("EC", Some("P-256")) if is(&alg, Algorithm::ES256) => {
            let (x, y) = (number("x", x)?, number("y", y)?);
            Key::p256(&[&[4], &x[..], &y[..]].concat())?
        }
        ("OKP", Some("Ed25519")) if is(&alg, Algorithm::EdDSA) || alg.as_deref() == Some("Ed25519") => {
            Key::ed25519(&number("x", x)?)?
        }
        _ => return Ok(None),
    };
    Ok(Some(Key { kid, ..key }))
}

fn is(alg: &Option<String>, algorithm: Algorithm) -> bool {
    alg.as_ref().is_none_or(|name| name.parse() == Ok(algorithm))
}

fn number(name: &str, text: Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = text.ok_or_else(|| KeyError::Malformed(format!("`{name}` is missing")))?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Malformed(format!("`{name}` is not base64url")))
}
