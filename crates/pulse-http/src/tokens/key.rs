//! One key that verifies tokens, which is checked when it is made: what is accepted here verifies what its issuer signs.

use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{Algorithm, DecodingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rsa::pkcs1;
use rsa::pkcs1::der::Decode;
use rsa::pkcs8::ObjectIdentifier;
use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
use rsa::{BigUint, RsaPublicKey};

use crate::tokens::fingerprint::Material;

/// Minimum length of an HS256 secret, in bytes: the length of the hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// Sizes of an RSA key, in bits. Smaller ones can be factored, and larger ones make each verification slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret is shorter than 32 bytes.
    #[error("the secret has {bytes} bytes, fewer than {MIN_SECRET_BYTES}: create one with `openssl rand -hex 32`")]
    ShortSecret {
        /// Length of the secret.
        bytes: usize,
    },
    /// The key is a private one.
    #[error(
        "it has a private key, which only the issuer may have: replace the key pair, and give the public key \
         (`openssl pkey -in private.pem -pubout`)"
    )]
    Private,
    /// The PEM is something else.
    #[error(
        "it has a `{0}`: give a `PUBLIC KEY` (`openssl x509 -in certificate.pem -pubkey -noout` makes one of a certificate)"
    )]
    OtherPem(String),
    /// There is no key in the text.
    #[error("there is no key in it: it must be PEM, with lines -----BEGIN PUBLIC KEY-----, or a JSON Web Key Set")]
    Empty,
    /// The key cannot be parsed.
    #[error("it cannot be parsed: {0}")]
    Malformed(String),
    /// The type or the curve of the key is not supported.
    #[error("its type or curve is not supported: use RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)")]
    Unsupported,
    /// The RSA key has a wrong size.
    #[error("the RSA key has {bits} bits: use 2048 to 4096")]
    RsaSize {
        /// Size of the modulus.
        bits: usize,
    },
    /// The key does not protect anything.
    #[error("the key is weak, so tokens can be forged with it: create a new key pair")]
    Weak,
    /// There are too many keys.
    #[error("it has more than {0} keys: remove those that no token is signed with")]
    TooMany(usize),
}

/// A key with its algorithm.
pub(crate) struct Key {
    /// The name in the `kid` of tokens. A key without one is tried for every token of its algorithm.
    pub(crate) kid: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
    pub(crate) material: Material,
}

impl Key {
    fn new(algorithm: Algorithm, decoding: DecodingKey, material: Material) -> Self {
        Self { kid: None, algorithm, decoding, material }
    }

    /// A shared secret, for HS256.
    pub(crate) fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret { bytes: secret.len() });
        }
        Ok(Self::new(Algorithm::HS256, DecodingKey::from_secret(secret), Material::Secret(secret.into())))
    }

    /// A public key of a PEM with the label `PUBLIC KEY` (RFC 5280).
    pub(crate) fn spki(der: &[u8]) -> Result<Self, KeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|error| KeyError::Malformed(error.to_string()))?;
        let key = info.subject_public_key.as_bytes().ok_or(KeyError::Unsupported)?;
        match info.algorithm.oid {
            RSA => Self::pkcs1(key),
            ELLIPTIC_CURVE if info.algorithm.parameters_oid() == Ok(P_256) => Self::p256(key),
            ED25519 => Self::ed25519(key),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// A public key of a PEM with the label `RSA PUBLIC KEY` (RFC 8017).
    pub(crate) fn pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let key = pkcs1::RsaPublicKey::from_der(der).map_err(|error| KeyError::Malformed(error.to_string()))?;
        Self::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
    }

    /// An RSA key, for RS256; both numbers are big-endian.
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = (BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent));
        let bits = n.bits();
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize { bits });
        }
        let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|byte| byte & 1 == 1);
        if !is_odd(modulus) || !is_odd(exponent) || e < BigUint::from(3_u8) {
            return Err(KeyError::Weak);
        }
        RsaPublicKey::new(n, e).map_err(|error| KeyError::Malformed(error.to_string()))?;
        let decoding = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self::new(Algorithm::RS256, decoding, Material::rsa(modulus, exponent)))
    }

    /// A point of P-256 as in SEC 1, for ES256.
    pub(crate) fn p256(point: &[u8]) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed("it is no point of P-256".into());
        let coordinates = p256::PublicKey::from_sec1_bytes(point).map_err(|_| malformed())?.to_encoded_point(false);
        let (x, y) = coordinates.x().zip(coordinates.y()).ok_or_else(malformed)?;
        Ok(Self::new(Algorithm::ES256, DecodingKey::from_ec_der(point), Material::p256(x, y)))
    }

    /// A key of Ed25519, for EdDSA. Signatures for one of small order can be made without a private key.
    pub(crate) fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed("it is no key of Ed25519".into());
        let bytes: &[u8; 32] = key.try_into().map_err(|_| malformed())?;
        if VerifyingKey::from_bytes(bytes).map_err(|_| malformed())?.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self::new(Algorithm::EdDSA, DecodingKey::from_ed_der(key), Material::ed25519(key)))
    }
}
