//! Who calls: JSON Web Tokens, verified against one key whose algorithm is fixed by the configuration.
//!
//! Nothing in a token chooses how it is verified: not `alg`, not `kid`, `jku`, `x5u` or `jwk`.

use std::collections::HashSet;

use axum::http::{HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The longest token that is looked at, in bytes.
const LONGEST_TOKEN: usize = 8 * 1024;
/// The shortest HS256 secret, in bytes: as long as the hash (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// What tokens are signed with.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret of at least 32 bytes: HS256.
    Hs256(Vec<u8>),
    /// A public key in PEM: RS256 for RSA, ES256 for P-256, EdDSA for Ed25519.
    PublicKeyPem(Vec<u8>),
}

/// How tokens are verified.
#[derive(Clone)]
pub struct AuthConfig {
    /// The key.
    pub key: KeySource,
    /// The `iss` that a token must have.
    pub issuer: Option<String>,
    /// The `aud` that a token must have.
    pub audience: Option<String>,
    /// How far clocks may be apart, in seconds.
    pub leeway_seconds: u64,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// The secret can be guessed.
    #[error(
        "the JWT secret has {bytes} bytes, at least {SHORTEST_SECRET} are needed: make one with `openssl rand -hex 32`"
    )]
    ShortSecret {
        /// How long it is.
        bytes: usize,
    },
    /// It is no public key, or of a kind that we do not take.
    #[error(
        "the JWT public key is not a PEM of RSA, P-256 or Ed25519: make sure it begins with `-----BEGIN PUBLIC KEY-----`"
    )]
    UnknownKey,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    key: std::sync::Arc<DecodingKey>,
    validation: std::sync::Arc<Validation>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Post events.
    EventsWrite,
    /// Read one's own events and tasks.
    EventsRead,
    /// Administer.
    Admin,
}

impl Scope {
    /// The word in a token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::Admin => "admin",
        }
    }
}

/// All that a token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(HashSet<Scope>);

impl Scopes {
    /// A token that names no scopes has those of an ordinary client.
    fn parse(scope: Option<&str>) -> Self {
        let all = [Scope::EventsWrite, Scope::EventsRead, Scope::Admin];
        Self(match scope {
            None => [Scope::EventsWrite, Scope::EventsRead].into(),
            Some(text) => all.into_iter().filter(|scope| text.split(' ').any(|word| word == scope.as_str())).collect(),
        })
    }
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who calls, 1 to 255 characters.
    pub subject: String,
    /// What the token may do.
    pub scopes: Scopes,
}

impl Claims {
    /// Whether the token may do this.
    ///
    /// # Errors
    /// 403 `insufficient_scope`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.0.contains(&scope) {
            return Ok(());
        }
        let needed = scope.as_str();
        let detail = format!("the token lacks the scope `{needed}`: ask for one that has it");
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
            .challenge(format!(r#"Bearer error="insufficient_scope", scope="{needed}""#)))
    }
}

#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    #[serde(default)]
    scope: Option<String>,
}

impl Verifier {
    /// Prepares to verify.
    ///
    /// # Errors
    /// [`AuthConfigError`].
    pub fn new(config: &AuthConfig) -> Result<Self, AuthConfigError> {
        let (algorithm, key) = match &config.key {
            KeySource::Hs256(secret) if secret.len() < SHORTEST_SECRET => {
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
    /// 401 `missing_token` or `invalid_token`, which does not say what is wrong with the token: that goes to the log.
    pub fn verify(&self, authorization: Option<&HeaderValue>) -> Result<Claims, Problem> {
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                let detail = "the request has no token: send Authorization: Bearer TOKEN";
                Problem::new(StatusCode::UNAUTHORIZED, "missing_token", detail).challenge("Bearer")
            })?;
        if token.len() > LONGEST_TOKEN {
            return Err(invalid_token());
        }
        let claims: RawClaims =
            decode(token, &self.key, &self.validation).map_err(|error| invalid_token().caused_by(error))?.claims;
        let good = (1..=255).contains(&claims.sub.chars().count()) && !claims.sub.chars().any(char::is_control);
        if !good {
            return Err(invalid_token());
        }
        Ok(Claims { subject: claims.sub, scopes: Scopes::parse(claims.scope.as_deref()) })
    }
}

fn invalid_token() -> Problem {
    let detail = "the token is not valid, or not any more: get a new one";
    Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", detail).challenge(r#"Bearer error="invalid_token""#)
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[error("failed to sign the token")]
pub struct IssueError(#[source] jsonwebtoken::errors::Error);

/// Signs a token with an HS256 secret. Times are seconds since 1970.
///
/// # Errors
/// If it cannot be signed.
pub fn issue(
    secret: &[u8],
    subject: &str,
    scope: Option<&str>,
    issued_at: u64,
    expires: u64,
    issuer: Option<&str>,
    audience: Option<&str>,
) -> Result<String, IssueError> {
    let claims = NewClaims { sub: subject, iat: issued_at, exp: expires, scope, iss: issuer, aud: audience };
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).map_err(IssueError)
}
