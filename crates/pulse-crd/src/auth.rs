//! Verification of tokens.
#![expect(unreachable_pub, reason = "the derive for CEL rules generates types inside functions")]

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{SecretKey, ca_secret, with_ca_key};

/// Verification of the JSON Web Tokens of API clients. Exactly one of `jwtSecretRef`, `publicKeySecretRef` and `jwks` must
/// be set. Public keys are those of an identity provider, which issues tokens for other applications too, so `issuer` and
/// `audience` are required with them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[has(self.jwtSecretRef), has(self.publicKeySecretRef), has(self.jwks)].filter(is, is).size() == 1",
        "set exactly one of jwtSecretRef (HS256), publicKeySecretRef (RS256, ES256, EdDSA) and jwks (an identity provider)"
    ),
    validation = (
        "has(self.jwtSecretRef) || (has(self.issuer) && has(self.audience))",
        "set issuer and audience with public keys: without them, a token for any other application would be valid"
    ),
    validation = (
        "has(self.jwtSecretRef) || !has(self.nextJwtSecretRef)",
        "nextJwtSecretRef needs jwtSecretRef: public keys are rotated in their Secret or by the identity provider"
    )
)]
pub struct AuthSpec {
    /// Secret key with the shared secret of HS256 tokens, at least 32 bytes. A change replaces the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_secret_ref: Option<SecretKey>,
    /// Secret key with another shared secret that is valid as well, for a rotation: set it to the new secret, let the
    /// issuer use that one, then move it to `jwtSecretRef`. A change replaces the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_jwt_secret_ref: Option<SecretKey>,
    /// Secret key with public keys of RS256, ES256 or EdDSA tokens: PEM with one or more keys, or a JSON Web Key Set. A
    /// change replaces the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_secret_ref: Option<SecretKey>,
    /// JSON Web Key Set of an identity provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwksSpec>,
    /// Required value of the `iss` claim. If not set, the claim is not checked. Required with public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub issuer: Option<String>,
    /// Required value of the `aud` claim. If not set, the claim is not checked. Required with public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
    /// Scopes of tokens without the claims `scope` and `scp`. If not set, `events:write` and `events:read` with a shared
    /// secret, and none with public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3), inner(length(max = 12), pattern("^(events:write|events:read|admin)$")))]
    pub default_scopes: Option<Vec<String>>,
    /// Maximum time since a token was issued, in seconds. Tokens without the claim `iat` are then refused. If not set, only
    /// the claim `exp` limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub max_token_age_seconds: Option<u32>,
    /// AutoProvision creates the user of a valid token on its first request. If false, the API refuses unknown users. If
    /// not set, it is true with a shared secret and false with public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_provision: Option<bool>,
}

impl AuthSpec {
    /// Whether users are created on their first request.
    pub fn provisions_users(&self) -> bool {
        self.auto_provision.unwrap_or(self.jwt_secret_ref.is_some())
    }
}

/// JSON Web Key Set of an identity provider.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JwksSpec {
    /// URL of the key set (`jwks_uri`), such as `https://id.example.com/.well-known/jwks.json`. It is read every 5 min, and
    /// when a token names an unknown key. While it cannot be read, the last keys are used for up to 24 h.
    #[schemars(length(min = 1, max = 2048), pattern("^https://[^/@]+(/[^@#]*)?$"))]
    pub url: String,
    /// Secret key with the CA of its certificate, in PEM, trusted instead of the CAs of the image. The key defaults to
    /// `ca.crt`. A change replaces the pods.
    #[serde(default, deserialize_with = "with_ca_key", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ca_secret")]
    pub ca_secret_ref: Option<SecretKey>,
}
