//! `pulse token`: creates tokens for the API.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use pulse_http::{MAX_LIFETIME, NewClaims};

use crate::args::duration;
use crate::auth_args::hs256_secret;
use crate::output::print_line;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token signed with the API's HS256 secret, and print it
    Issue(IssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// User of the token (`sub`)
    #[arg(long)]
    user: String,
    /// Scopes of the token: events:write, events:read, admin. Without it, the token has no `scope` and allows the first
    /// two
    #[arg(
        long = "scope",
        value_delimiter = ',',
        num_args = 1..,
        value_parser = ["events:write", "events:read", "admin"]
    )]
    scopes: Vec<String>,
    /// Time until the token expires
    #[arg(long, default_value = "24h", value_parser = duration)]
    expires: Duration,
    /// Secret of the API's HS256 tokens
    #[arg(long, env = "PULSE_JWT_SECRET", hide_env_values = true, value_parser = hs256_secret)]
    jwt_secret: Option<String>,
    /// Paths of files with one of these secrets each, separated by commas; the first one signs
    #[arg(long, env = "PULSE_JWT_SECRET_FILE", value_name = "PATH", value_delimiter = ',')]
    #[arg(required_unless_present = "jwt_secret", conflicts_with = "jwt_secret")]
    jwt_secret_file: Vec<PathBuf>,
    /// Issuer of the token (`iss`)
    #[arg(long, env = "PULSE_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// Audience of the token (`aud`)
    #[arg(long, env = "PULSE_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
}

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::Issue(args) = command;
    let scope = (!args.scopes.is_empty()).then(|| args.scopes.join(" "));
    let claims = NewClaims {
        sub: &args.user,
        scope: scope.as_deref(),
        iss: args.jwt_issuer.as_deref(),
        aud: args.jwt_audience.as_deref(),
    };
    let expires = args.expires;
    anyhow::ensure!(expires <= MAX_LIFETIME, "the API refuses tokens of more than ten years: use a shorter --expires");
    let secret = args.jwt_secret.map_or_else(|| read_secret(&args.jwt_secret_file[0]), Ok)?;
    print_line(&issue(&secret, &claims, expires)?)
}

fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the secret in {}", path.display()))?;
    let Ok(secret) = hs256_secret(&text);
    Ok(secret)
}

/// Creates a token that is valid from now on. The API treats a token without `scope` like one with
/// `events:write events:read`.
pub(crate) fn issue(secret: &str, claims: &NewClaims<'_>, lifetime: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    Ok(pulse_http::issue(secret.as_bytes(), claims, now, now + lifetime.as_secs())?)
}
