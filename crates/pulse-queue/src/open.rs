//! Opens a connection to the server that has the keys: that of the URL, the primary that a Sentinel names, or the node of a
//! Cluster with the slot.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError, Value};
use tokio::task::{AbortHandle, JoinSet};

use crate::bounded::{AnswerBytes, Bounded};
use crate::error::QueueError;
use crate::server::Server;
use crate::url::{Address, Topology};

/// Maximum number of redirections of one command. A Cluster that is consistent needs one.
pub(crate) const MAX_REDIRECTIONS: usize = 3;

/// An open connection. Dropping it closes the socket, also while an answer is outstanding.
pub(crate) struct Open {
    pub(crate) commands: MultiplexedConnection,
    pub(crate) answer: AnswerBytes,
    /// The server at the other end.
    pub(crate) address: Address,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Open {
    /// Connects to the server that has `key`, within `limit`.
    ///
    /// # Errors
    /// That of one of the addresses of the URL, if none led to the server: an answer comes before a silence.
    pub(crate) async fn with_key(server: &Server, key: &str, limit: Duration) -> Result<Self, QueueError> {
        if let Some(address) = server.known() {
            return within(server, limit, Self::to(server, address, server.login())).await;
        }
        let mut attempts = JoinSet::new();
        for address in server.url().addresses.clone() {
            let (server, key) = (server.clone(), key.to_owned());
            attempts.spawn(async move {
                let attempt = async {
                    match &server.url().topology {
                        Topology::Sentinel { primary, login } => {
                            Self::of_sentinel(&server, address, primary, login).await
                        }
                        Topology::Single | Topology::Cluster => Self::of_node(&server, address, &key).await,
                    }
                };
                within(&server, limit, attempt).await
            });
        }
        // A host that is down must not delay the others.
        let mut last = QueueError::NameNotFound;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(open)) => {
                    server.remember(open.address.clone());
                    return Ok(open);
                }
                Ok(Err(error)) if !last.is_answer() => last = error,
                Ok(Err(_)) => {}
                Err(error) => last = QueueError::Unavailable(std::io::Error::other(error).into()),
            }
        }
        Err(last)
    }

    /// The primary that a Sentinel names. A Sentinel that was cut off may name a former one, which says so.
    async fn of_sentinel(
        server: &Server,
        sentinel: Address,
        primary: &str,
        login: &RedisConnectionInfo,
    ) -> Result<Self, QueueError> {
        let mut sentinel = Self::to(server, sentinel, login).await?;
        let mut command = redis::cmd("SENTINEL");
        let found: Option<(String, u16)> = sentinel.ask(command.arg("GET-MASTER-ADDR-BY-NAME").arg(primary)).await?;
        let (host, port) = found.ok_or_else(|| {
            failed(ErrorKind::MasterNameNotFoundBySentinel, "the Sentinels know no primary with this name")
        })?;
        let address = Address::Tcp { host, port };
        server.check(&address).await?;
        let mut open = Self::to(server, address, server.login()).await?;
        match open.ask::<Vec<Value>>(&redis::cmd("ROLE")).await {
            Ok(role) if !is_primary(&role) => {
                Err(failed(ErrorKind::Io, "the Sentinels name a server that is no primary any more"))
            }
            Err(QueueError::Unavailable(error)) if error.code() == Some("NOPERM") => Ok(open),
            Ok(_) => Ok(open),
            Err(error) => Err(error),
        }
    }

    /// The node of a Cluster with the slot of a key, from another node.
    async fn of_node(server: &Server, mut address: Address, key: &str) -> Result<Self, QueueError> {
        let mut redirections = 0;
        loop {
            let mut open = Self::to(server, address, server.login()).await?;
            match open.ask::<bool>(redis::cmd("EXISTS").arg(key)).await {
                Ok(_) => return Ok(open),
                Err(QueueError::Unavailable(error)) => match moved(&error, &open.address) {
                    Some(Ok(target)) if redirections < MAX_REDIRECTIONS => {
                        server.check(&target).await?;
                        (address, redirections) = (target, redirections + 1);
                    }
                    Some(_) => return Err(nowhere()),
                    // The key is on its way to another node; this one still has the slot.
                    None if error.code() == Some("ASK") => return Ok(open),
                    _ => return Err(QueueError::Unavailable(error)),
                },
                Err(error) => return Err(error),
            }
        }
    }

    async fn to(server: &Server, address: Address, login: &RedisConnectionInfo) -> Result<Self, QueueError> {
        let answer = AnswerBytes::default();
        let stream = Bounded { stream: server.connect(&address).await?, read: answer.clone() };
        // The library's time-out would end every blocking read after half a second; each command has one.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(login, stream, config).await;
        let too_long = |error: RedisError| {
            if answer.are_too_many() { QueueError::AnswerTooLong } else { QueueError::from(error) }
        };
        let (commands, driver) = opened.map_err(too_long)?;
        Ok(Self { commands, answer, address, driver: tokio::spawn(driver).abort_handle() })
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, QueueError> {
        self.answer.reset();
        Ok(command.query_async(&mut self.commands).await?)
    }
}

/// The error of a Cluster whose nodes name none that has the keys.
pub(crate) fn nowhere() -> QueueError {
    failed(ErrorKind::ClusterConnectionNotFound, "the nodes of the Redis Cluster name none that has the keys")
}

async fn within<T>(
    server: &Server,
    limit: Duration,
    work: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    match tokio::time::timeout(limit, work).await {
        Err(_) if server.url().is_tls => Err(QueueError::Handshake),
        Err(_) => Err(QueueError::TimedOut),
        Ok(result) => result,
    }
}

/// The node that has the slot, as another one says: `None` if the error is not that, and an error in it if no host can be
/// read. A node that does not know the host has that of the other one.
pub(crate) fn moved(error: &RedisError, from: &Address) -> Option<Result<Address, ()>> {
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    if first.code() != "MOVED" {
        return None;
    }
    let named = || {
        let (_, target) = first.details()?.split_once(' ')?;
        let (host, port) = target.rsplit_once(':')?;
        let host = if host.is_empty() { from.host()? } else { host };
        // A node that announces host names, and knows none, says "?".
        (host != "?").then_some(Address::Tcp { host: host.to_owned(), port: port.parse().ok()? })
    };
    Some(named().ok_or(()))
}

fn is_primary(role: &[Value]) -> bool {
    role.first().is_some_and(|name| redis::from_redis_value_ref::<String>(name).is_ok_and(|name| name == "master"))
}

fn failed(kind: ErrorKind, reason: &'static str) -> QueueError {
    QueueError::Unavailable((kind, reason).into())
}
