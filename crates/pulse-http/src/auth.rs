//! Authentication by JSON Web Tokens, verified against one key whose algorithm is fixed by the configuration.
//!
//! No header of a token influences its verification: not `alg`, `kid`, `jku`, `x5u` or `jwk`.

use std::collections::HashSet;

use axum::http::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// Maximum length of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Minimum length of an HS256 secret, in bytes: the length of the hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The key that tokens are verified with.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret of at least 32 bytes: HS256.
    Hs256(Vec<u8>),
    /// A public key in PEM: RS256 for RSA, ES256 for P-256, EdDSA for Ed25519.
    PublicKeyPem(Vec<u8>),
}

/// Configuration of a [`Verifier`].
#[derive(Clone)]
pub struct AuthConfig {
    /// Verification key; it determines the algorithm.
    pub key: KeySource,
    /// Required `iss` of a token; `None` accepts any.
    pub issuer: Option<String>,
    /// Required `aud` of a token; `None` accepts any.
    pub audience: Option<String>,
    /// Tolerated clock difference for `exp` and `nbf`, in seconds.
    pub leeway_seconds: u64,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// The secret is shorter than 32 bytes.
    #[error("the JWT secret has {bytes} bytes, fewer than {MIN_SECRET_BYTES}: create one with `openssl rand -hex 32`")]
    ShortSecret {
        /// Length of the secret.
        bytes: usize,
    },
    /// The text is not a public key, or its type is not supported.
    #[error("the JWT public key is not RSA, P-256 or Ed25519: use a PEM that begins with `-----BEGIN PUBLIC KEY-----`")]
    UnknownKey,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    key: std::sync::Arc<DecodingKey>,
    validation: std::sync::Arc<Validation>,
}

/// A permission of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Post events.
    EventsWrite,
    /// Read the events and tasks of the token's user.
    EventsRead,
    /// Administer the instance.
    Admin,
}

impl Scope {
    /// The name in the `scope` claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(HashSet<Scope>);

impl Scopes {
    /// A token without a `scope` claim may write and read events. Unknown scopes are ignored.
    fn parse(scope: Option<&str>) -> Self {
        let all = [Scope::EventsWrite, Scope::EventsRead, Scope::Admin];
        Self(match scope {
            None => [Scope::EventsWrite, Scope::EventsRead].into(),
            Some(text) => all.into_iter().filter(|scope| text.split(' ').any(|word| word == scope.as_str())).collect(),
        })
    }
}

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The `sub` claim, 1 to 255 characters.
    pub subject: String,
    /// Scopes of the token.
    pub scopes: Scopes,
    /// The `exp` claim, in seconds since 1970.
    pub expires_at: u64,
}

impl Claims {
    /// Requires the scope.
    ///
    /// # Errors
    /// 403 `insufficient_scope` if the token lacks it.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.0.contains(&scope) {
            return Ok(());
        }
        let needed = scope.as_str();
        let detail = format!("the token lacks the scope `{needed}`: use a token with this scope");
        Err(Problem::new(ProblemCode::InsufficientScope, detail)
            .challenge(format!(r#"Bearer error="insufficient_scope", scope="{needed}""#)))
    }
}

#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    /// May have a fraction (RFC 7519, section 2).
    exp: f64,
    #[serde(default)]
    scope: Option<String>,
}

impl Verifier {
    /// Creates a verifier.
    ///
    /// # Errors
    /// [`AuthConfigError`] if the key cannot be used.
    pub fn new(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        let (algorithm, key) = match &config.key {
            KeySource::Hs256(secret) if secret.len() < MIN_SECRET_BYTES => {
                return Err(AuthConfigError::ShortSecret { bytes: secret.len() });
            }
            KeySource::Hs256(secret) => (Algorithm::HS256, DecodingKey::from_secret(secret)),
            KeySource::PublicKeyPem(pem) => DecodingKey::from_rsa_pem(pem)
                .map(|key| (Algorithm::RS256, key))
                .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
                .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
                .map_err(|_| AuthConfigError::UnknownKey)?,
        };
        let mut validation = Validation::new(algorithm);
        validation.algorithms = vec![algorithm];
        validation.leeway = config.leeway_seconds;
        validation.validate_nbf = true;
        validation.validate_aud = config.audience.is_some();
        let mut required = vec!["exp", "sub"];
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { key: key.into(), validation: validation.into() })
    }

    /// Verifies the `Authorization` header of a request.
    ///
    /// # Errors
    /// 401 `missing_token` or `invalid_token`. The response does not say why a token is invalid; the log does, at level
    /// `debug`.
    pub fn verify(&self, authorization: Option<&HeaderValue>) -> Result<Claims, Problem> {
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                let detail = "the request has no bearer token: send the header Authorization: Bearer TOKEN";
                Problem::new(ProblemCode::MissingToken, detail).challenge("Bearer")
            })?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid_token());
        }
        let TokenData { header, claims } = decode::<RawClaims>(token, &self.key, &self.validation)
            .map_err(|error| invalid_token().caused_by(error))?;
        // RFC 7515, section 4.1.11: a token with extensions that are not understood has to be refused.
        if header.crit.is_some() {
            return Err(invalid_token());
        }
        let valid_subject =
            (1..=255).contains(&claims.sub.chars().count()) && !claims.sub.chars().any(char::is_control);
        if !valid_subject {
            return Err(invalid_token());
        }
        let scopes = Scopes::parse(claims.scope.as_deref());
        Ok(Claims { subject: claims.sub, scopes, expires_at: claims.exp as u64 })
    }
}

fn invalid_token() -> Problem {
    let detail = "the token is invalid or has expired: get a new token";
    Problem::new(ProblemCode::InvalidToken, detail).challenge(r#"Bearer error="invalid_token""#)
}

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
#[error("failed to sign the token")]
pub struct IssueError(#[source] jsonwebtoken::errors::Error);

/// Signs a token with an HS256 secret. Times are seconds since 1970.
///
/// # Errors
/// [`IssueError`] if the token cannot be signed.
pub fn issue(secret: &[u8], claims: &NewClaims<'_>, issued_at: u64, expires: u64) -> Result<String, IssueError> {
    let claims = TimedClaims { claims, iat: issued_at, exp: expires };
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).map_err(IssueError)
}
