//! A connection to Redis that reconnects on its next use.
//!
//! Each user of Redis has a separate connection, because a blocking read on a shared connection makes all other
//! commands wait. A failed command closes the connection: after a time-out, a late answer could be taken for the answer
//! to the next command. The size of an answer is bounded.

use std::sync::Arc;
use std::time::Duration;

use pulse_tls::{CaBundle, ClientCertificate, ClientIdentity, Encryption};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisError};
use tokio::task::AbortHandle;

use crate::bounded::{AnswerBytes, Bounded};
use crate::error::QueueError;
use crate::health::{RedisHealth, name};
use crate::keys::Keys;
use crate::scripts::NamedScript;
use crate::server::Server;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time-out of a command that does not block in the server.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connection settings of Redis.
#[derive(Clone)]
pub struct QueueConfig {
    /// `redis://…`, `rediss://…` for TLS, or `unix://…`; may hold a password, so it is never logged.
    pub url: String,
    /// The CAs to trust instead of the system's roots.
    pub ca: Option<CaBundle>,
    /// Certificate for a server that asks for one.
    pub identity: Option<ClientIdentity>,
    /// The instance whose keys are used, `<namespace>/<name>`.
    pub instance: String,
}

/// A client for the stream and the gauges of one instance. Cheap to clone; holds no connection.
#[derive(Clone)]
pub struct Queue {
    server: Server,
    instance: String,
    pub(crate) keys: Keys,
    health: RedisHealth,
}

impl Queue {
    /// Checks the settings; the first command connects.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`] if the URL or the CA cannot be used. An unreachable server is not
    /// an error here.
    pub fn connect_lazy(config: &QueueConfig) -> Result<Self, QueueError> {
        let identity = config.identity.clone().map(|files| Arc::new(files) as ClientCertificate);
        let server = Server::new(&config.url, config.ca.as_ref(), identity)?;
        let instance = config.instance.clone();
        Ok(Self { server, keys: Keys::new(&instance), instance, health: RedisHealth::default() })
    }

    /// A connection for the work of a role. The health is that of its commands.
    pub(crate) fn connection(&self) -> Connection {
        Connection { health: self.health.clone(), ..self.probe_connection() }
    }

    /// A connection whose commands do not count for the health.
    pub(crate) fn probe_connection(&self) -> Connection {
        Connection::new(self.server.clone())
    }

    /// The same Redis, with the keys and the health of a rehearsal. No role uses the keys, which have the hash tag and the
    /// pattern of the instance.
    pub(crate) fn rehearsal(&self, name: &str) -> Self {
        // The first tag counts; the second, empty one comes from the form of all keys.
        let keys = Keys::new(&format!("{}}}:{name}:{{", self.instance));
        Self { keys, health: RedisHealth::default(), ..self.clone() }
    }

    /// The health of the commands of all clones of this client.
    pub fn health(&self) -> RedisHealth {
        self.health.clone()
    }

    /// Encryption of the connections, as the URL asks for it.
    pub fn encryption(&self) -> Encryption {
        self.server.encryption()
    }
}

pub(crate) struct Connection {
    server: Server,
    open: Option<Open>,
    health: RedisHealth,
}

/// An open connection. Dropping it closes the socket, also while an answer is outstanding.
struct Open {
    commands: MultiplexedConnection,
    answer: AnswerBytes,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, open: None, health: RedisHealth::default() }
    }

    /// Returns true if the next command has to connect first.
    pub(crate) fn is_fresh(&self) -> bool {
        self.open.is_none()
    }

    pub(crate) async fn query<T: FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
        timeout: Duration,
    ) -> Result<T, QueueError> {
        let result = self.run(timeout, async |connection| command.query_async(connection).await).await;
        self.health.record(|| name(command), &result);
        result
    }

    pub(crate) async fn query_pipeline<T: FromRedisValue>(
        &mut self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, QueueError> {
        let result = self.run(ANSWER_TIMEOUT, async |connection| pipeline.query_async(connection).await).await;
        if let Some(command) = pipeline.cmd_iter().next() {
            self.health.record(|| name(command), &result);
        }
        result
    }

    /// Runs a script, and loads it before if Redis does not have it.
    pub(crate) async fn run_script<T: FromRedisValue>(&mut self, script: &NamedScript) -> Result<T, QueueError> {
        let result =
            self.run(ANSWER_TIMEOUT, async |connection| script.invocation.invoke_async(connection).await).await;
        self.health.record(|| script.name.to_owned(), &result);
        result
    }

    /// Closes the connection; the next command opens another.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    async fn run<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, redis::RedisError>,
    ) -> Result<T, QueueError> {
        // Taken out, so that a cancelled future closes the connection, and with it the answer that is still
        // outstanding.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        open.answer.reset();
        let result = match tokio::time::timeout(timeout, work(&mut open.commands)).await {
            Ok(Err(_)) if open.answer.are_too_many() => Err(QueueError::AnswerTooLong),
            Ok(answer) => answer.map_err(QueueError::from),
            Err(_) => Err(QueueError::TimedOut),
        };
        if !result.as_ref().is_err_and(QueueError::breaks_connection) {
            open.answer.reset();
            self.open = Some(open);
        }
        result
    }

    async fn connect(&self) -> Result<Open, QueueError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await {
            Err(_) if self.server.encryption() == Encryption::Verified => Err(QueueError::Handshake),
            Err(_) => Err(QueueError::TimedOut),
            Ok(opened) => opened,
        }
    }

    async fn open(&self) -> Result<Open, QueueError> {
        let answer = AnswerBytes::default();
        let stream = Bounded { stream: self.server.connect().await?, read: answer.clone() };
        // The library's time-out would end every blocking read after half a second; `run` has one for each command.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(self.server.login(), stream, config).await;
        let too_long = |error: RedisError| {
            if answer.are_too_many() { QueueError::AnswerTooLong } else { QueueError::from(error) }
        };
        let (commands, driver) = opened.map_err(too_long)?;
        Ok(Open { commands, driver: tokio::spawn(driver).abort_handle(), answer })
    }
}
