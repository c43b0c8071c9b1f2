//! Why Redis could not be read, as far as it may be said to the user who names the server.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::QueueError;

/// Reason why a figure could not be read. The user who names the server learns of it only what a Redis says: every other
/// server, open port and closed port is the same [`Fault::Connection`], whether it refuses, hangs, or speaks something
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The URL or its scheme cannot be used.
    Url,
    /// The host name has no address.
    NameNotFound,
    /// A Sentinel or a node of a Cluster has named a host that is not allowed.
    HostNotAllowed,
    /// Redis is unreachable, does not answer in time, or answers that it cannot serve now.
    Connection,
    /// The password is wrong, or the user lacks a permission.
    Auth,
    /// The server's certificate is not trusted, or the CA cannot be used.
    Tls,
    /// A key or an answer has another type than expected.
    WrongType,
    /// The answer is longer than that of a queue.
    AnswerTooLong,
}

impl From<&RedisError> for Fault {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Auth,
            (ErrorKind::UnexpectedReturnType, _) | (_, Some("WRONGTYPE")) => Self::WrongType,
            _ if pulse_tls::is_certificate_refused(error) => Self::Tls,
            _ => Self::Connection,
        }
    }
}

impl QueueError {
    /// The reason of this error, for a status or a metric.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config(_) => Fault::Url,
            Self::Tls(_) => Fault::Tls,
            Self::NameNotFound => Fault::NameNotFound,
            Self::HostNotAllowed => Fault::HostNotAllowed,
            Self::AnswerTooLong => Fault::AnswerTooLong,
            Self::Unavailable(error) => Fault::from(error),
            Self::NoGroup | Self::TimedOut | Self::Handshake => Fault::Connection,
        }
    }
}
