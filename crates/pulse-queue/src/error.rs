//! The error of a failed command, by what the caller can do about it.

use redis::{ErrorKind, RedisError};

use crate::bounded::MAX_ANSWER;

/// Error of a command, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The URL cannot be parsed.
    #[error(
        "the Redis URL is not valid: expected redis://HOST:PORT/DB, redis+sentinel://HOST,…/NAME, redis+cluster://HOST,…, \
         rediss… for TLS, or unix:///PATH"
    )]
    Config(#[source] RedisError),
    /// The URL and the CA contradict each other, or the URL asks for something unsupported.
    #[error("the Redis URL cannot be used: {0}")]
    Tls(&'static str),
    /// The host of the URL has no address: continue without Redis, and try again later.
    #[error("the host name in the Redis URL is not found: correct it, or check the DNS of this machine")]
    NameNotFound,
    /// A Sentinel or a node of a Cluster has named a host that may not be connected to.
    #[error("a Sentinel or a node of the Redis Cluster names a host that is not in --redis-allowed-host")]
    HostNotAllowed,
    /// The answer was longer than any answer about a queue: it is another program, or the queue of another one.
    #[error("the answer is longer than {} MiB: the server of the Redis URL has no queue of this program", MAX_ANSWER >> 20)]
    AnswerTooLong,
    /// Redis is unreachable, out of memory, loading or read-only: continue without it, and try again later.
    #[error("{}", explain(.0))]
    Unavailable(RedisError),
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

/// Why Redis refused a command, although it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, with the words of Redis if they say more.
    pub reason: String,
    /// What to do.
    pub fix: &'static str,
}

impl QueueError {
    /// The refusal in this error; `None` if Redis could not be reached, or the error is a part of normal operation.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Unavailable(error) => refusal(error),
            _ => None,
        }
    }

    /// Whether Redis answered, so that it can be reached.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::NoGroup => true,
            Self::Unavailable(error) => error.clone().into_server_errors().is_some(),
            Self::Config(_)
            | Self::Tls(_)
            | Self::NameNotFound
            | Self::HostNotAllowed
            | Self::AnswerTooLong
            | Self::TimedOut
            | Self::Handshake => false,
        }
    }

    /// Whether Redis refused user or password, and not one command.
    pub(crate) fn is_login_refused(&self) -> bool {
        matches!(self, Self::Unavailable(error) if is_login(error))
    }
}

fn is_login(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

fn refusal(error: &RedisError) -> Option<Refusal> {
    // A pipeline's error has no code: its commands' errors have.
    let first = error.clone().into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.clone()));
    let code = first.as_ref().map(|error| error.code()).or(error.code());
    // Redis 7.0 gives this error no code.
    let in_script = error.detail().is_some_and(|text| text.contains("can't run this command"));
    let (reason, fix) = match code {
        _ if is_login(error) => ("Redis refuses the user or the password", "correct them in the Redis URL"),
        Some("READONLY" | "MASTERDOWN") => ("Redis is a read-only replica", "point the Redis URL at the primary"),
        Some("OOM") => ("Redis is full", "raise maxmemory, or remove other data"),
        _ if in_script => {
            ("the Redis user may not run all commands of the scripts", "give it the ACL in docs/how-to/redis.md")
        }
        Some("NOPERM") => {
            let detail = first.as_ref().and_then(|error| error.details()).unwrap_or("no permission");
            let reason = format!("the Redis user may not do this: {detail}");
            return Some(Refusal { reason, fix: "give it the ACL in docs/how-to/redis.md" });
        }
        Some("MOVED") => ("Redis is a node of a Redis Cluster", "write redis+cluster:// in the Redis URL"),
        Some("ASK" | "TRYAGAIN") => ("the Redis Cluster moves the keys to another node", "wait"),
        Some("CLUSTERDOWN") => {
            ("the Redis Cluster has no primary for the keys", "wait for the failover, or start the missing nodes")
        }
        _ if error.kind() == ErrorKind::ClusterConnectionNotFound => (
            "the nodes of the Redis Cluster name none that has the keys",
            "wait, or have each node announce its address: cluster-announce-ip, cluster-announce-hostname",
        ),
        _ if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
            ("the Sentinels know no primary with the name in the Redis URL", "correct the name at the end of the URL")
        }
        Some("MISCONF") => ("Redis cannot save its data", "free or add disk space for Redis"),
        Some("LOADING") => ("Redis is loading its data", "wait"),
        Some("WRONGTYPE") => ("a key of the instance has another type", "delete it with `pulse queue purge`"),
        _ => return None,
    };
    Some(Refusal { reason: reason.into(), fix })
}

/// What is wrong and what to do.
fn explain(error: &RedisError) -> String {
    match (refusal(error), pulse_tls::explain(error)) {
        (Some(Refusal { reason, fix }), _) => format!("{reason}: {fix}"),
        (None, Some(advice)) => format!("Redis is unavailable: {advice}"),
        (None, None) => format!("Redis is unavailable: {error}"),
    }
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
        match self {
            Self::NoGroup => false,
            Self::Unavailable(error) => error.code() != Some("BUSYGROUP"),
            _ => true,
        }
    }

    /// Returns true if another server may have the keys now.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        const CODES: [&str; 8] =
            ["READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"];
        match self {
            Self::Unavailable(error) => {
                // A pipeline's error has no code: its commands' errors have.
                let errors = error.clone().into_server_errors();
                errors.is_none_or(|errors| errors.iter().any(|(_, error)| CODES.contains(&error.code())))
            }
            _ => !self.is_answer(),
        }
    }
}
