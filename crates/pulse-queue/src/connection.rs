//! A connection to Redis that reconnects on its next use.
//!
//! Each user of Redis has a separate connection, because a blocking read on a shared connection makes all other
//! commands wait. A failed command closes the connection: after a time-out, a late answer could be taken for the answer
//! to the next command.

use std::time::Duration;

use pulse_tls::{CaBundle, Encryption};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, TlsCertificates};

use crate::error::QueueError;
use crate::health::{RedisHealth, name};
use crate::keys::Keys;
use crate::scripts::NamedScript;

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
    /// The instance whose keys are used, `<namespace>/<name>`.
    pub instance: String,
}

/// A client for the stream and the gauges of one instance. Cheap to clone; holds no connection.
#[derive(Clone)]
pub struct Queue {
    client: Client,
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
        let client = open_client(&config.url, config.ca.as_ref())?;
        let instance = config.instance.clone();
        Ok(Self { client, keys: Keys::new(&instance), instance, health: RedisHealth::default() })
    }

    /// A connection for the work of a role. The health is that of its commands.
    pub(crate) fn connection(&self) -> Connection {
        Connection { health: self.health.clone(), ..self.probe_connection() }
    }

    /// A connection whose commands do not count for the health.
    pub(crate) fn probe_connection(&self) -> Connection {
        Connection::new(self.client.clone())
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
        match self.client.get_connection_info().addr() {
            ConnectionAddr::TcpTls { .. } => Encryption::Verified,
            ConnectionAddr::Tcp(host, _) => Encryption::plain(host),
            _ => Encryption::UnixSocket,
        }
    }
}

/// A client for a URL, whose scheme decides about TLS.
pub(crate) fn open_client(url: &str, ca: Option<&CaBundle>) -> Result<Client, QueueError> {
    let client = Client::open(url).map_err(QueueError::Config)?;
    match (client.get_connection_info().addr(), ca) {
        (ConnectionAddr::TcpTls { insecure: true, .. }, _) => {
            Err(QueueError::Tls("#insecure is not supported: give the certificate of the server's CA as CA file"))
        }
        (ConnectionAddr::TcpTls { .. }, Some(ca)) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.pem().to_vec()) };
            Client::build_with_tls(url, certificates).map_err(QueueError::Config)
        }
        (_, Some(_)) => Err(QueueError::Tls(
            "a CA is given, but the URL does not ask for TLS: write rediss://, or leave the CA out",
        )),
        (_, None) => Ok(client),
    }
}

pub(crate) struct Connection {
    client: Client,
    connection: Option<MultiplexedConnection>,
    health: RedisHealth,
}

impl Connection {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, connection: None, health: RedisHealth::default() }
    }

    /// Returns true if the next command has to connect first.
    pub(crate) fn is_fresh(&self) -> bool {
        self.connection.is_none()
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
        self.connection = None;
    }

    async fn run<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, redis::RedisError>,
    ) -> Result<T, QueueError> {
        // Taken out, so that a cancelled future closes the connection, and with it the answer that is still
        // outstanding.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let result = match tokio::time::timeout(timeout, work(&mut connection)).await {
            Ok(answer) => answer.map_err(QueueError::from),
            Err(_) => Err(QueueError::TimedOut),
        };
        if !result.as_ref().is_err_and(QueueError::breaks_connection) {
            self.connection = Some(connection);
        }
        result
    }

    async fn connect(&self) -> Result<MultiplexedConnection, QueueError> {
        // The library's time-out would end every blocking read after half a second; `run` has one for each command.
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(CONNECT_TIMEOUT));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let is_tls = matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if !error.is_timeout() => Err(error.into()),
            Ok(Err(_)) | Err(_) if is_tls => Err(QueueError::Handshake),
            Ok(Err(_)) | Err(_) => Err(QueueError::TimedOut),
        }
    }
}
