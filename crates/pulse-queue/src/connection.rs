//! A connection to Redis that reconnects on its next use.
//!
//! Each user of Redis has a separate connection, because a blocking read on a shared connection makes all other
//! commands wait. A failed command closes the connection: after a time-out, a late answer could be taken for the answer
//! to the next command. The size of an answer is bounded.

use std::sync::Arc;
use std::time::Duration;

use pulse_tls::{CaBundle, ClientCertificate, ClientIdentity, Encryption};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, ScriptInvocation};

use crate::error::QueueError;
use crate::health::{RedisHealth, name};
use crate::hosts::Hosts;
use crate::keys::Keys;
use crate::open::{MAX_REDIRECTIONS, Open, moved, nowhere};
use crate::scripts::NamedScript;
use crate::server::Server;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time-out of a command that does not block in the server.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connection settings of Redis.
#[derive(Clone)]
pub struct QueueConfig {
    /// `redis://…`, `unix://…`, `redis+sentinel://…` or `redis+cluster://…`, and `rediss…` for TLS; may hold a password, so it
    /// is never logged.
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
        let server = Server::new(&config.url, config.ca.as_ref(), identity, Hosts::default())?;
        let instance = config.instance.clone();
        Ok(Self { server, keys: Keys::new(&instance), instance, health: RedisHealth::default() })
    }

    /// A connection for the work of a role. The health is that of its commands.
    pub(crate) fn connection(&self) -> Connection {
        Connection { health: self.health.clone(), ..self.probe_connection() }
    }

    /// A connection whose commands do not count for the health.
    pub(crate) fn probe_connection(&self) -> Connection {
        Connection::new(self.server.clone(), self.keys.tasks.clone())
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

/// What is sent in one go.
enum Request<'a> {
    Command(&'a redis::Cmd),
    Pipeline(&'a redis::Pipeline),
    Script(&'a ScriptInvocation<'static>),
}

impl Request<'_> {
    async fn send<T: FromRedisValue>(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(invocation) => invocation.invoke_async(connection).await,
        }
    }
}

pub(crate) struct Connection {
    server: Server,
    /// A key of the instance. All others are in its slot.
    key: String,
    open: Option<Open>,
    health: RedisHealth,
}

impl Connection {
    /// Creates a connection to the server that has `key`. The first command connects.
    pub(crate) fn new(server: Server, key: String) -> Self {
        Self { server, key, open: None, health: RedisHealth::default() }
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
        let result = self.run(timeout, &Request::Command(command)).await;
        self.health.record(|| name(command), &result);
        result
    }

    pub(crate) async fn query_pipeline<T: FromRedisValue>(
        &mut self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, QueueError> {
        let result = self.run(ANSWER_TIMEOUT, &Request::Pipeline(pipeline)).await;
        if let Some(command) = pipeline.cmd_iter().next() {
            self.health.record(|| name(command), &result);
        }
        result
    }

    /// Runs a script, and loads it before if Redis does not have it.
    pub(crate) async fn run_script<T: FromRedisValue>(&mut self, script: &NamedScript) -> Result<T, QueueError> {
        let result = self.run(ANSWER_TIMEOUT, &Request::Script(&script.invocation)).await;
        self.health.record(|| script.name.to_owned(), &result);
        result
    }

    /// Closes the connection; the next command opens another.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Returns the error of a node of a Cluster that does not have the slot, among the answers to a pipeline, and has the next
    /// command look for the node that has it.
    pub(crate) fn redirection(&mut self, answers: &[RedisResult<redis::Value>]) -> Option<QueueError> {
        let is_elsewhere = |error: &&redis::RedisError| matches!(error.code(), Some("MOVED" | "ASK" | "CLUSTERDOWN"));
        let found = answers.iter().filter_map(|answer| answer.as_ref().err()).find(is_elsewhere)?;
        if !self.server.is_cluster() {
            return None;
        }
        self.close();
        self.server.forget();
        Some(QueueError::Unavailable(found.clone()))
    }

    /// Sends a request, and sends it again to the node that it is redirected to: a node of a Cluster that does not have the
    /// slot runs nothing.
    async fn run<T: FromRedisValue>(&mut self, timeout: Duration, request: &Request<'_>) -> Result<T, QueueError> {
        let mut redirections = 0;
        loop {
            // Taken out, so that a cancelled future closes the connection, and with it the answer that is still
            // outstanding.
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.connect().await?,
            };
            open.answer.reset();
            let result = match tokio::time::timeout(timeout, request.send(&mut open.commands)).await {
                Ok(Err(_)) if open.answer.are_too_many() => Err(QueueError::AnswerTooLong),
                Ok(answer) => answer.map_err(QueueError::from),
                Err(_) => Err(QueueError::TimedOut),
            };
            if let Err(QueueError::Unavailable(error)) = &result
                && self.server.is_cluster()
                && let Some(target) = moved(error, &open.address)
            {
                self.server.forget();
                let target = target.ok().filter(|_| redirections < MAX_REDIRECTIONS).ok_or_else(nowhere)?;
                let checked = tokio::time::timeout(CONNECT_TIMEOUT, self.server.check(&target)).await;
                checked.unwrap_or(Err(QueueError::TimedOut))?;
                self.server.remember(target);
                redirections += 1;
                continue;
            }
            if result.as_ref().is_err_and(QueueError::may_be_elsewhere) {
                self.server.forget();
            }
            if !result.as_ref().is_err_and(QueueError::breaks_connection) {
                open.answer.reset();
                self.open = Some(open);
            }
            return result;
        }
    }

    async fn connect(&self) -> Result<Open, QueueError> {
        let opened = Open::with_key(&self.server, &self.key, CONNECT_TIMEOUT).await;
        if opened.is_err() {
            self.server.forget();
        }
        opened
    }
}
