//! Fingerprints of keys, which tell them apart and have nothing secret.

use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::{digest, pbkdf2};

/// Makes it slow to find a weak secret by its fingerprint; 20 ms for each key.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// Enough to tell secrets apart, and too little to be sure of one.
const SECRET_FINGERPRINT_BYTES: usize = 4;

/// What a fingerprint is made of.
#[derive(Clone)]
pub(crate) enum Material {
    Secret(Arc<[u8]>),
    /// The members of the JSON Web Key that a thumbprint covers.
    Public(String),
}

impl Material {
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self::Public(format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, base64(exponent), base64(modulus)))
    }

    /// Coordinates of a point of P-256.
    pub(crate) fn p256(x: &[u8], y: &[u8]) -> Self {
        Self::Public(format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, base64(x), base64(y)))
    }

    pub(crate) fn ed25519(key: &[u8]) -> Self {
        Self::Public(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, base64(key)))
    }

    /// The thumbprint of a public key (RFC 7638, with SHA-256). Of a secret, 8 digits that are the same for the same secret.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Self::Public(members) => base64(digest::digest(&digest::SHA256, members.as_bytes()).as_ref()),
            Self::Secret(secret) => {
                let mut bytes = [0; SECRET_FINGERPRINT_BYTES];
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, b"pulse token key", secret, &mut bytes);
                bytes.map(|byte| format!("{byte:02x}")).concat()
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::key_set::public_keys;

    #[test]
    fn fingerprint_of_a_public_key_is_its_thumbprint() {
        // The example of RFC 7638, section 3.1.
        let jwks = r#"{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}]}"#;
        let keys = public_keys(jwks.as_bytes()).expect("a key");
        assert_eq!(keys[0].material.fingerprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn fingerprint_of_a_secret_is_short_and_the_same_for_the_same_secret() {
        let fingerprint = |secret: &[u8]| Material::Secret(secret.into()).fingerprint();
        assert_eq!(fingerprint(&[1; 32]), fingerprint(&[1; 32]));
        assert_ne!(fingerprint(&[1; 32]), fingerprint(&[2; 32]));
        assert_eq!(fingerprint(&[1; 32]).len(), 8);
    }
}
