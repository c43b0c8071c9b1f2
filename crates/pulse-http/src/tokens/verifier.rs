//! Verifies tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use tokio::sync::watch;

use crate::problem::Problem;
use crate::problem_code::ProblemCode;
use crate::tokens::claims::{ClaimRules, Claims, RawClaims};
use crate::tokens::jwks::{self, Jwks, JwksConfig};
use crate::tokens::key::{Key, KeyError};
use crate::tokens::key_files::{self, KeyFileError};
use crate::tokens::key_set::{self, KeySet};
use crate::tokens::loaded::Loaded;
use crate::tokens::scope::Scopes;
use crate::tokens::used_keys::UsedKeys;

/// Maximum length of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The algorithms of keys.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// Where the keys are that tokens are verified with.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A shared secret of at least 32 bytes: HS256.
    Secret(Vec<u8>),
    /// Files with one shared secret each. They are read again when they change.
    SecretFiles(Vec<PathBuf>),
    /// Files with public keys, as PEM or JSON Web Key Set: RS256 for RSA, ES256 for P-256, EdDSA for Ed25519. They are read
    /// again when they change.
    PublicKeyFiles(Vec<PathBuf>),
    /// The JSON Web Key Set of an identity provider.
    Jwks(JwksConfig),
}

/// Configuration of a [`Verifier`].
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The keys; each has one algorithm.
    pub keys: KeySource,
    /// Required `iss` of a token; `None` accepts any.
    pub issuer: Option<String>,
    /// Required `aud` of a token; `None` accepts any.
    pub audience: Option<String>,
    /// Tolerated clock difference for `exp`, `nbf` and `iat`, in seconds.
    pub leeway_seconds: u64,
    /// Maximum time since the `iat` of a token; `None` accepts any, and tokens without `iat`.
    pub max_age: Option<Duration>,
    /// Scopes of a token without `scope` and `scp`.
    pub default_scopes: Scopes,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    loaded: watch::Receiver<Loaded>,
    jwks: Option<Jwks>,
    rules: Arc<Rules>,
}

struct Rules {
    claims: ClaimRules,
    /// One for each of [`ALGORITHMS`].
    validations: [Validation; 4],
}

/// Why a token is refused. Only the log says it.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// RFC 7515, section 4.1.11: a token with extensions that are not understood has to be refused.
    #[error("the token has critical extensions (`crit`), and none is supported")]
    Critical,
    #[error("the type (`typ`) of the token is not JWT or at+jwt")]
    Type,
    #[error("no key has the algorithm and the `kid` of the token")]
    UnknownKey,
    #[error(transparent)]
    Token(#[from] jsonwebtoken::errors::Error),
    #[error(transparent)]
    Claims(#[from] crate::tokens::claims::ClaimsError),
}

impl Verifier {
    /// Creates a verifier. Outside a tokio runtime, only [`KeySource::Secret`] can be used.
    ///
    /// # Errors
    /// [`KeyFileError`] if a file or a key cannot be used. A [`KeySource::Jwks`] is read in the background: see
    /// [`wait_for_keys`](Self::wait_for_keys).
    pub fn start(config: &AuthConfig) -> Result<Self, VerifierError> {
        let (jwks, loaded) = match &config.keys {
            KeySource::Secret(secret) => {
                let mut loaded = Loaded::default();
                loaded.note(Ok(KeySet::new(vec![Key::secret(secret)?])?));
                (None, watch::channel(loaded).1)
            }
            KeySource::SecretFiles(paths) => (None, key_files::watch(paths.clone(), key_set::secret)?),
            KeySource::PublicKeyFiles(paths) => (None, key_files::watch(paths.clone(), key_set::public_keys)?),
            KeySource::Jwks(config) => {
                let (jwks, loaded) = Jwks::start(config);
                (Some(jwks), loaded)
            }
        };
        let claims = ClaimRules {
            default_scopes: config.default_scopes.clone(),
            max_age: config.max_age,
            leeway_seconds: config.leeway_seconds,
        };
        let validations = ALGORITHMS.map(|algorithm| validation(algorithm, config));
        Ok(Self { loaded, jwks, rules: Arc::new(Rules { claims, validations }) })
    }

    /// Waits until there are keys.
    pub async fn wait_for_keys(&self) {
        let mut loaded = self.loaded.clone();
        // The sender of a fixed secret is gone, and its keys are there.
        let _ = loaded.wait_for(|loaded| loaded.keys(None).is_some()).await;
    }

    /// Why no token can be verified now; `None` if tokens can be.
    pub fn problem(&self) -> Option<String> {
        if self.keys().is_some() {
            return None;
        }
        let problem = self.loaded.borrow().problem.clone();
        Some(format!("waiting for the keys of --jwks-url: {}", problem.as_deref().unwrap_or("not read yet")))
    }

    /// The keys in use, as they change.
    pub fn used_keys(&self) -> UsedKeys {
        UsedKeys(self.loaded.clone())
    }

    /// Verifies the `Authorization` header of a request.
    ///
    /// # Errors
    /// 401 `missing_token` or `invalid_token`; 503 `unavailable` while there are no keys. The response does not say why a
    /// token is invalid; the log does, at level `debug`.
    pub async fn verify(&self, authorization: Option<&HeaderValue>) -> Result<Claims, Problem> {
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                let detail = "the request has no bearer token: send the header Authorization: Bearer TOKEN";
                Problem::new(ProblemCode::MissingToken, detail).challenge("Bearer")
            })?;
        self.verify_token(token).await
    }

    async fn verify_token(&self, token: &str) -> Result<Claims, Problem> {
        let header = checked_header(token).map_err(invalid_token)?;
        let (keys, attempts) = self.keys().ok_or_else(no_keys)?;
        match (self.rules.check(token, &header, &keys), &self.jwks) {
            (Err(Refused::UnknownKey), Some(jwks)) if header.kid.is_some() => {
                if !jwks.read_after(attempts, self.loaded.clone()).await {
                    return Err(invalid_token(Refused::UnknownKey));
                }
                let (keys, _) = self.keys().ok_or_else(no_keys)?;
                self.rules.check(token, &header, &keys).map_err(invalid_token)
            }
            (outcome, _) => outcome.map_err(invalid_token),
        }
    }

    /// The keys in use, with the number of attempts to read them until now.
    fn keys(&self) -> Option<(Arc<KeySet>, u64)> {
        let max_age = self.jwks.as_ref().map(|_| jwks::MAX_AGE);
        let loaded = self.loaded.borrow();
        Some((loaded.keys(max_age)?, loaded.attempts))
    }
}

/// Why a verifier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A file with keys cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The shared secret cannot be used.
    #[error("the JWT secret cannot be used: {0}")]
    Secret(#[from] KeyError),
}

impl Rules {
    fn check(&self, token: &str, header: &Header, keys: &KeySet) -> Result<Claims, Refused> {
        let mut refused = Refused::UnknownKey;
        for key in keys.candidates(header.alg, header.kid.as_deref()) {
            match self.check_with(token, key) {
                // Another key may have signed it.
                Err(Refused::Token(error)) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                    refused = error.into();
                }
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    fn check_with(&self, token: &str, key: &Key) -> Result<Claims, Refused> {
        let position = ALGORITHMS.iter().position(|algorithm| *algorithm == key.algorithm);
        let validation = &self.validations[position.ok_or(Refused::UnknownKey)?];
        let claims = decode::<RawClaims>(token, &key.decoding, validation)?.claims;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(claims.check(&self.claims, now)?)
    }
}

/// The header of a token, if a token with it can be valid.
fn checked_header(token: &str) -> Result<Header, Refused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refused::TooLong);
    }
    let header = decode_header(token)?;
    if header.crit.is_some() {
        return Err(Refused::Critical);
    }
    // RFC 8725, section 3.11: other types, such as logout+jwt, are no access tokens.
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !["jwt", "at+jwt"].contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
        return Err(Refused::Type);
    }
    Ok(header)
}

fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
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
    validation
}

fn invalid_token(reason: Refused) -> Problem {
    let detail = "the token is invalid or has expired: get a new token";
    Problem::new(ProblemCode::InvalidToken, detail).challenge(r#"Bearer error="invalid_token""#).caused_by(reason)
}

fn no_keys() -> Problem {
    Problem::unavailable("the keys of tokens cannot be read from the identity provider: send the request again later")
}
