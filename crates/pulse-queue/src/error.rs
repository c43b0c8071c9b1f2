//! What a caller can do about a failed command.

use redis::RedisError;

/// A failed command, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The URL cannot be used.
    #[error("the Redis URL is not valid: expected redis://HOST:PORT/DB or unix:///PATH")]
    Config(#[source] RedisError),
    /// Redis is away, too slow, out of memory, loading or read-only: go on without it, and try again later.
    #[error("Redis is unavailable")]
    Unavailable(#[source] RedisError),
    /// Redis did not answer in time.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// The stream or its group is gone, with all data, after a restart or a failover: create it and go on.
    #[error("the consumer group is gone")]
    NoGroup,
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
