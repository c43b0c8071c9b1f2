//! The error of a failed command, by what the caller can do about it.

use redis::RedisError;

/// Error of a command, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The URL cannot be parsed.
    #[error("the Redis URL is not valid: expected redis://HOST:PORT/DB, rediss://… for TLS, or unix:///PATH")]
    Config(#[source] RedisError),
    /// The URL and the CA contradict each other, or the URL asks for something unsupported.
    #[error("the Redis URL cannot be used: {0}")]
    Tls(&'static str),
    /// Redis is unreachable, out of memory, loading or read-only: continue without it, and try again later.
    #[error("Redis is unavailable{}", about_tls(.0))]
    Unavailable(#[source] RedisError),
    /// Redis did not answer within the command's time-out: continue without it, and try again later.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// Connecting with TLS took too long: a Redis without TLS waits for a line that never ends.
    #[error("Redis did not finish the TLS handshake in time: if Redis is running, this is not its TLS port")]
    Handshake,
    /// The stream or its group does not exist, because Redis lost its data in a restart or a failover: create the
    /// group.
    #[error("the consumer group does not exist")]
    NoGroup,
}

/// A suffix that says what to do, if the TLS handshake failed.
fn about_tls(error: &RedisError) -> String {
    pulse_tls::explain(error).map(|advice| format!(": {advice}")).unwrap_or_default()
}

impl From<RedisError> for QueueError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("NOGROUP") => Self::NoGroup,
            // Redis 6.2 puts the error of a command in a script into the text.
            _ if error.detail().is_some_and(|text| text.contains("NOGROUP")) => Self::NoGroup,
            _ => Self::Unavailable(error),
        }
    }
}

impl QueueError {
    /// Returns true if the connection may be broken, or may still receive the answer to this command.
    pub(crate) fn breaks_connection(&self) -> bool {
        !matches!(self, Self::NoGroup)
    }
}
