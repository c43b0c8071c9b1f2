//! The flags of `pulse dev` for datastores that are there already.

use std::path::PathBuf;

use clap::Args;

use crate::secret;

#[derive(Debug, Args)]
pub(crate) struct DatastoreArgs {
    /// URL of a PostgreSQL to use instead of a private one
    #[arg(long, env = "PULSE_DATABASE_URL", hide_env_values = true, group = "database")]
    database_url: Option<String>,
    /// Path to a file with that URL instead
    #[arg(long, env = "PULSE_DATABASE_URL_FILE", value_name = "PATH", group = "database")]
    database_url_file: Option<PathBuf>,
    /// Path to a PEM file with the CA of that PostgreSQL, as in `pulse api`
    #[arg(long, env = "PULSE_DATABASE_CA_FILE", value_name = "PATH", requires = "database")]
    pub(crate) database_ca_file: Option<PathBuf>,
    /// URL of a Redis to use instead of a private one
    #[arg(long, env = "PULSE_REDIS_URL", hide_env_values = true, group = "redis")]
    redis_url: Option<String>,
    /// Path to a file with that URL instead
    #[arg(long, env = "PULSE_REDIS_URL_FILE", value_name = "PATH", group = "redis")]
    redis_url_file: Option<PathBuf>,
    /// Path to a PEM file with the CA of that Redis, as in `pulse api`
    #[arg(long, env = "PULSE_REDIS_CA_FILE", value_name = "PATH", requires = "redis")]
    pub(crate) redis_ca_file: Option<PathBuf>,
}

impl DatastoreArgs {
    /// The URLs of PostgreSQL and Redis; `None` for a private server.
    pub(crate) fn urls(&self) -> anyhow::Result<(Option<String>, Option<String>)> {
        let Self { database_url, database_url_file, redis_url, redis_url_file, .. } = self;
        let database = secret::of(database_url.clone(), "--database-url-file", database_url_file.as_deref())?;
        let redis = secret::of(redis_url.clone(), "--redis-url-file", redis_url_file.as_deref())?;
        Ok((database, redis))
    }
}
