//! `pulse token`: creates tokens for the API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use pulse_http::{MAX_LIFETIME, NewClaims};

use crate::args::duration;
use crate::auth_args::SigningArgs;
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
    #[command(flatten)]
    signing: SigningArgs,
    /// Issuer of the token (`iss`)
    #[arg(long, env = "PULSE_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// Audience of the token (`aud`)
    #[arg(long, env = "PULSE_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
}

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::Issue(IssueArgs { user, scopes, expires, signing, jwt_issuer, jwt_audience }) = command;
    let scope = (!scopes.is_empty()).then(|| scopes.join(" "));
    let claims =
        NewClaims { sub: &user, scope: scope.as_deref(), iss: jwt_issuer.as_deref(), aud: jwt_audience.as_deref() };
    anyhow::ensure!(expires <= MAX_LIFETIME, "the API refuses tokens of more than ten years: use a shorter --expires");
    let jwt_secret =
        signing.secret()?.context("no secret to sign with: set PULSE_JWT_SECRET or PULSE_JWT_SECRET_FILE")?;
    let token = issue(&jwt_secret, &claims, expires)?;
    print_line(&token)
}

/// Creates a token that is valid from now on. The API treats a token without `scope` like one with
/// `events:write events:read`.
pub(crate) fn issue(secret: &str, claims: &NewClaims<'_>, lifetime: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    Ok(pulse_http::issue(secret.as_bytes(), claims, now, now + lifetime.as_secs())?)
}
