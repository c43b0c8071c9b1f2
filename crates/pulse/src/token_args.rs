//! The token of commands that use the API.

use std::path::PathBuf;

use clap::Args;

use crate::secret;

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Token with the scopes events:write and events:read
    #[arg(long, env = "PULSE_TOKEN", hide_env_values = true, group = "api_token")]
    token: Option<String>,
    /// Path to a file with the token instead
    #[arg(long, env = "PULSE_TOKEN_FILE", value_name = "PATH", group = "api_token")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// # Errors
    /// If the file cannot be used, or there is no token.
    pub(crate) fn token(self) -> anyhow::Result<String> {
        let token = secret::of(self.token, "--token-file", self.token_file.as_deref())?;
        token.ok_or_else(|| {
            anyhow::anyhow!("no token: set PULSE_TOKEN or PULSE_TOKEN_FILE; `pulse token issue --user NAME` makes one")
        })
    }
}
