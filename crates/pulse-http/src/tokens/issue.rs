//! Signs tokens with a shared secret, for `pulse token` and tests.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::tokens::key::{Key, KeyError};

/// Claims of a token to issue, without its times. `None` leaves a claim out.
#[derive(Debug, Default, Serialize)]
pub struct NewClaims<'a> {
    /// The user.
    pub sub: &'a str,
    /// Scopes, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'a str>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
}

#[derive(Serialize)]
struct TimedClaims<'a> {
    #[serde(flatten)]
    claims: &'a NewClaims<'a>,
    iat: u64,
    exp: u64,
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No API accepts the secret.
    #[error(transparent)]
    Secret(#[from] KeyError),
    /// The signature could not be made.
    #[error("failed to sign the token")]
    Signature(#[from] jsonwebtoken::errors::Error),
}

/// Signs a token with an HS256 secret. Times are seconds since 1970.
///
/// # Errors
/// [`IssueError`] if the secret is too short, or the token cannot be signed.
pub fn issue(secret: &[u8], claims: &NewClaims<'_>, issued_at: u64, expires: u64) -> Result<String, IssueError> {
    Key::secret(secret)?;
    let claims = TimedClaims { claims, iat: issued_at, exp: expires };
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))?)
}
