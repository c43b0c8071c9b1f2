//! Flags that say which tokens are valid, and what they allow.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Uri;
use pulse_http::{AuthConfig, JwksConfig, KeySource, Scope, Scopes, Verifier, jwks_url};

use crate::args::{duration, read_ca};
use crate::secret;

/// Tolerated difference between the clocks of the issuer and of this process, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Parses a secret of HS256 tokens. The issuer of the tokens does not have the line end.
pub(crate) fn hs256_secret(text: &str) -> Result<String, Infallible> {
    Ok(secret::without_line_end(text).to_owned())
}

fn scope(name: &str) -> Result<Scope, String> {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::ALL.into_iter().find(|scope| scope.as_str() == name).ok_or_else(|| format!("the scopes are {names}"))
}

/// How the API and the console verify tokens.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AuthArgs {
    /// Secret of HS256 tokens, at least 32 bytes; `openssl rand -hex 32` makes one. One line end behind it is not part of
    /// it; all else is, also blanks
    #[arg(long, env = "PULSE_JWT_SECRET", hide_env_values = true, value_parser = hs256_secret, group = "token_keys")]
    pub(crate) jwt_secret: Option<String>,
    /// Paths of files with one secret of HS256 tokens each, separated by commas, such as that of today and the next one.
    /// They are read again within 2 s after a change
    #[arg(long, env = "PULSE_JWT_SECRET_FILE", value_name = "PATH", value_delimiter = ',', group = "token_keys")]
    pub(crate) jwt_secret_file: Vec<PathBuf>,
    /// Paths of files with public keys of RS256, ES256 or EdDSA tokens, separated by commas. A file is PEM with one or more
    /// keys, or a JSON Web Key Set. They are read again within 2 s after a change
    #[arg(long, env = "PULSE_JWT_PUBLIC_KEY_FILE", value_name = "PATH", value_delimiter = ',', group = "token_keys")]
    pub(crate) jwt_public_key_file: Vec<PathBuf>,
    /// URL of the JSON Web Key Set (`jwks_uri`) of the identity provider. It is read every 5 min, and when a token names
    /// an unknown key; while it cannot be read, the last keys are used for up to 24 h
    #[arg(long, env = "PULSE_JWKS_URL", value_name = "URL", value_parser = jwks_url, group = "token_keys")]
    pub(crate) jwks_url: Option<Uri>,
    /// Path to a PEM file with the CA of that server, trusted instead of the system's CAs
    #[arg(long, env = "PULSE_JWKS_CA_FILE", value_name = "PATH", requires = "jwks_url")]
    pub(crate) jwks_ca_file: Option<PathBuf>,
    /// Issuer (`iss`) that tokens must have. Required with public keys; with a secret, it is not checked without it
    #[arg(long, env = "PULSE_JWT_ISSUER")]
    pub(crate) jwt_issuer: Option<String>,
    /// Audience (`aud`) that tokens must have. Required with public keys; with a secret, it is not checked without it
    #[arg(long, env = "PULSE_JWT_AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,
    /// Scopes of tokens without `scope` and `scp`, separated by commas. Without it, events:write,events:read with a secret,
    /// and none with public keys
    #[arg(long, env = "PULSE_DEFAULT_SCOPES", value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
    pub(crate) default_scopes: Option<Vec<Scope>>,
    /// Maximum time since a token was issued (`iat`); tokens without `iat` are then refused. Without it, only `exp` counts
    #[arg(long, env = "PULSE_MAX_TOKEN_AGE", value_name = "DURATION", value_parser = duration)]
    pub(crate) max_token_age: Option<Duration>,
}

/// The secret that signs tokens.
#[derive(Debug, Clone, Args)]
pub(crate) struct SigningArgs {
    /// Secret of the API's HS256 tokens
    #[arg(long, env = "PULSE_JWT_SECRET", hide_env_values = true, value_parser = hs256_secret, group = "signing")]
    jwt_secret: Option<String>,
    /// Paths of files with such secrets, separated by commas; the first one signs. A line end behind it is not part of it
    #[arg(long, env = "PULSE_JWT_SECRET_FILE", value_name = "PATH", value_delimiter = ',', group = "signing")]
    jwt_secret_file: Vec<PathBuf>,
}

impl SigningArgs {
    pub(crate) fn secret(self) -> anyhow::Result<Option<String>> {
        secret::of(self.jwt_secret, "--jwt-secret-file", self.jwt_secret_file.first().map(PathBuf::as_path))
    }
}

impl AuthArgs {
    /// For tokens that are signed with this secret.
    #[cfg(feature = "dev-servers")]
    pub(crate) fn of_secret(secret: String) -> Self {
        Self { jwt_secret: Some(secret), ..Self::default() }
    }

    /// Whether tokens are verified with public keys: their issuer then also issues tokens for other applications.
    pub(crate) fn has_public_keys(&self) -> bool {
        !self.jwt_public_key_file.is_empty() || self.jwks_url.is_some()
    }

    pub(crate) fn verifier(self) -> anyhow::Result<Verifier> {
        let has_public_keys = self.has_public_keys();
        if has_public_keys && (self.jwt_issuer.is_none() || self.jwt_audience.is_none()) {
            bail!(
                "public keys need --jwt-issuer and --jwt-audience (PULSE_JWT_ISSUER, PULSE_JWT_AUDIENCE): without them, \
                 each token that the issuer makes for any other application would be valid here"
            );
        }
        let default_scopes = match self.default_scopes {
            Some(scopes) => scopes.into_iter().collect(),
            None if has_public_keys => Scopes::default(),
            None => [Scope::EventsWrite, Scope::EventsRead].into_iter().collect(),
        };
        let keys = key_source(
            self.jwt_secret,
            self.jwt_secret_file,
            self.jwt_public_key_file,
            (self.jwks_url, self.jwks_ca_file),
        )?;
        let config = AuthConfig {
            keys,
            issuer: self.jwt_issuer,
            audience: self.jwt_audience,
            leeway_seconds: LEEWAY_SECONDS,
            max_age: self.max_token_age,
            default_scopes,
        };
        Ok(Verifier::start(&config)?)
    }
}

fn key_source(
    secret: Option<String>,
    secret_files: Vec<PathBuf>,
    public_key_files: Vec<PathBuf>,
    (url, ca_file): (Option<Uri>, Option<PathBuf>),
) -> anyhow::Result<KeySource> {
    if let Some(secret) = secret {
        if secret.ends_with(char::is_whitespace) {
            tracing::warn!("the JWT secret ends with white space: remove it unless the issuer's secret has it");
        }
        return Ok(KeySource::Secret(secret.into_bytes()));
    }
    if let Some(url) = url {
        return Ok(KeySource::Jwks(JwksConfig { url, ca: read_ca("--jwks-ca-file", ca_file)? }));
    }
    match (secret_files.is_empty(), public_key_files.is_empty()) {
        (false, _) => Ok(KeySource::SecretFiles(secret_files)),
        (true, false) => Ok(KeySource::PublicKeyFiles(public_key_files)),
        (true, true) => bail!(
            "no key to verify tokens with: set PULSE_JWT_SECRET, PULSE_JWT_SECRET_FILE, PULSE_JWT_PUBLIC_KEY_FILE or \
             PULSE_JWKS_URL"
        ),
    }
}

/// Which users there are.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProvisionArgs {
    /// Create the user of a valid token on first use; with false, only those of `pulse user create` are known. Without it,
    /// true with a secret and false with public keys
    #[arg(long, env = "PULSE_AUTO_PROVISION", value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) auto_provision: Option<bool>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        auth: AuthArgs,
    }

    fn error(args: &[&str]) -> String {
        let matches = Program::command().try_get_matches_from([&["pulse"], args].concat());
        let program = matches.and_then(|matches| Program::from_arg_matches(&matches));
        match program {
            Ok(program) => program.auth.verifier().err().map_or(String::new(), |error| format!("{error:#}")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn public_keys_need_issuer_and_audience_and_there_is_one_source() {
        let url = ["--jwks-url", "https://issuer.example/jwks"];
        assert!(error(&url).contains("need --jwt-issuer and --jwt-audience"));
        assert!(error(&[&url[..], &["--jwt-issuer", "a"]].concat()).contains("need --jwt-issuer and --jwt-audience"));
        assert!(error(&[&url[..], &["--jwt-secret", "a"]].concat()).contains("cannot be used with"));
        assert!(error(&["--jwt-secret", "short"]).contains("openssl rand -hex 32"));
        assert!(error(&["--jwt-secret", &"s".repeat(32), "--default-scopes", "events"]).contains("events:write"));
        assert!(error(&[]).contains("PULSE_JWKS_URL"));
        assert_eq!(error(&["--jwt-secret", &"s".repeat(32), "--default-scopes", "events:read,admin"]), "");
    }

    #[test]
    fn jwt_secret_loses_one_line_end_and_nothing_else() {
        for (text, secret) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), (" a ", " a "), ("\n", "")]
        {
            assert_eq!(hs256_secret(text), Ok(secret.to_owned()), "{text:?}");
        }
    }
}
