//! The datastores of `pulse dev`: given ones, or private servers.

use std::time::Instant;

use super::banner::Banner;
use crate::datastores::{DataDir, Postgres, PostgresConfig, Redis, RedisConfig};

/// URLs of the datastores, and the private servers among them.
pub(crate) struct Servers {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
}

impl Servers {
    /// Starts a private server for each URL that is not given.
    pub(crate) async fn start(
        (database_url, redis_url): (Option<String>, Option<String>),
        data: &DataDir,
        banner: &mut Banner,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let (database_url, postgres) = match database_url {
            Some(url) => {
                banner.line("PostgreSQL", "from --database-url", started);
                (url, None)
            }
            None => {
                let server = Postgres::start(PostgresConfig::in_dir(data.path().join("postgres"))).await?;
                banner.line("PostgreSQL", &format!("{}, private, unix socket", server.version()), started);
                (server.url("pulse"), Some(server))
            }
        };
        let started = Instant::now();
        let (redis_url, redis) = match redis_url {
            Some(url) => {
                banner.line("Redis", "from --redis-url", started);
                (url, None)
            }
            None => {
                let server = Redis::start(RedisConfig::in_dir(data.path().join("redis"))).await?;
                banner.line("Redis", &format!("{}, private, unix socket", server.version()), started);
                (server.url(), Some(server))
            }
        };
        Ok(Self { database_url, redis_url, postgres, redis })
    }

    /// Stops the private servers.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        if let Some(redis) = self.redis {
            redis.stop().await?;
        }
        if let Some(postgres) = self.postgres {
            postgres.stop_fast().await?;
        }
        Ok(())
    }
}
