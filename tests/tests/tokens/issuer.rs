//! An issuer of tokens, with keys that OpenSSL makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pulse_http::{AuthConfig, Claims, KeySource, Scopes, Verifier};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "pulse";

/// A folder with key pairs.
pub(crate) struct Issuer {
    folder: tempfile::TempDir,
}

pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Claims of a valid token, with these on top. A null removes a claim.
pub(crate) fn claims(change: &Value) -> Value {
    let mut claims = json!({ "sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 3600 });
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

pub(crate) fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(crate) fn openssl(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("openssl").args(args).output().context("openssl runs")?;
    ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Issuer {
    /// Makes a key pair for each of RS256, ES256 and EdDSA.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let issuer = Self { folder: tempfile::tempdir()? };
        issuer.generate("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?;
        issuer.generate("ec", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
        issuer.generate("ed", &["ED25519"])?;
        Ok(issuer)
    }

    /// Makes `NAME.pem` and `NAME.pub`; `kind` is the algorithm with its options.
    pub(crate) fn generate(&self, name: &str, kind: &[&str]) -> anyhow::Result<()> {
        let (private, public) = (self.text_path(&format!("{name}.pem")), self.text_path(&format!("{name}.pub")));
        openssl(&[&["genpkey", "-out", &private, "-algorithm"], kind].concat())?;
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public])
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        std::fs::read(self.path(name)).context(name.to_owned())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        // As a mounted Secret changes: never half written.
        let next = self.path("next");
        std::fs::write(&next, content)?;
        std::fs::rename(&next, &path)?;
        Ok(path)
    }

    pub(crate) fn signing_key(&self, algorithm: Algorithm) -> anyhow::Result<EncodingKey> {
        Ok(match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(&self.read("ec.pem")?)?,
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&self.read("ed.pem")?)?,
            _ => EncodingKey::from_rsa_pem(&self.read("rsa.pem")?)?,
        })
    }

    /// A token of the claims of [`claims`].
    pub(crate) fn token(&self, algorithm: Algorithm, change: &Value) -> anyhow::Result<String> {
        Ok(encode(&Header::new(algorithm), &claims(change), &self.signing_key(algorithm)?)?)
    }
}

/// A verifier of these keys that requires issuer and audience.
pub(crate) fn verifier(keys: KeySource) -> anyhow::Result<Verifier> {
    verifier_with(keys, Scopes::default())
}

pub(crate) fn verifier_with(keys: KeySource, default_scopes: Scopes) -> anyhow::Result<Verifier> {
    let (issuer, audience) = (Some(ISSUER.to_owned()), Some(AUDIENCE.to_owned()));
    let config = AuthConfig { keys, issuer, audience, leeway_seconds: 30, max_age: None, default_scopes };
    Ok(Verifier::start(&config)?)
}

pub(crate) fn key_files(paths: &[&Path]) -> KeySource {
    KeySource::PublicKeyFiles(paths.iter().map(|path| path.to_path_buf()).collect())
}

/// The claims of the token, or the problem code.
pub(crate) async fn verify(verifier: &Verifier, token: &str) -> Result<Claims, String> {
    let header = http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| error.to_string())?;
    verifier.verify(Some(&header)).await.map_err(|problem| problem.code().as_str().to_owned())
}
