//! What a caller can do about a failed command.

use redis::RedisError;

/// A failed command, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The URL cannot be used.
    #[error("the Redis URL is not valid: expected redis://HOST:PORT/DB, rediss://… for TLS, or unix:///PATH")]
    Config(#[source] RedisError),
    /// The URL and the CA beside it do not fit together, or ask for what there is not.
    #[error("the Redis URL cannot be used: {0}")]
    Tls(&'static str),
    /// Redis is away, too slow, out of memory, loading or read-only: go on without it, and try again later.
    #[error("Redis is unavailable{}", about_tls(.0))]
    Unavailable(#[source] RedisError),
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// The same while connecting with TLS: a Redis that speaks none waits for a line that never ends.
    #[error("Redis did not finish the TLS handshake in time: if it runs, this is not its TLS port")]
    Handshake,
    /// The stream or its group is gone, with all data, after a restart or a failover: create it and go on.
    #[error("the consumer group is gone")]
    NoGroup,
}

/// What to do, if it is TLS that failed.
fn about_tls(error: &RedisError) -> String {
    pulse_tls::explain(error).map(|told| format!(": {told}")).unwrap_or_default()
}

impl From<RedisError> for QueueError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("NOGROUP") => Self::NoGroup,
            _ => Self::Unavailable(error),
        }
    }
}

impl QueueError {
    /// Whether the connection may be in the middle of something, or gone.
    pub(crate) fn breaks_connection(&self) -> bool {
        !matches!(self, Self::NoGroup)
    }
}
