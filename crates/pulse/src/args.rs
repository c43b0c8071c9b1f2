//! Flags and environment variables, in groups that commands flatten. Every flag of a role has a `PULSE_…` variable. The
//! doc comments are `--help` and the reference in docs/reference/commands. No other crate reads flags or variables.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use http::uri::Authority;
use http::{HeaderValue, Uri};
use pulse_core::{Limits, RetryPolicy, defaults};
use pulse_http::{ServerConfig, ServerTls, TlsFiles};
use pulse_queue::{Queue, QueueConfig};
use pulse_store::{Store, StoreConfig, UrlReader};
use pulse_tls::{CaBundle, ClientIdentity};

use crate::access_log_args::AccessLogArgs;
use crate::connection_limit::connection_limit;
use crate::encryption_policy;
use crate::secret;
use crate::telemetry::{Format, TelemetryConfig};
use crate::user_limit_args::UserLimitArgs;

/// Parses `300`, `300s`, `5m` or `1h 30m`; a number without a unit is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}: write it like 300s, 5m or 1h"))
}

/// Parses a share, from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1, such as 0.05".into())
}

/// The text of a duration, as flags and variables have it.
fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}

/// All addresses of this machine, of both families.
pub(crate) fn any_address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// The second name of a variable, from FastAPI and Celery deployments that move here; used if `PULSE_…` is not set.
fn variable_or(name: &str, default: impl ToString) -> String {
    #[expect(clippy::disallowed_methods, reason = "clap reads one variable for each flag")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_string())
}

/// Logs and traces.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    /// Format of the log lines on stderr
    #[arg(long, env = "PULSE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
    /// Log filter: a level, or directives such as `info,pulse_worker=debug`
    #[arg(long = "log", env = "PULSE_LOG", default_value = "info", global = true)]
    pub(crate) log_filter: String,
    /// Base URL of an OTLP/HTTP collector for traces, such as http://localhost:4318; without it, no traces are sent. Also
    /// read from OTEL_EXPORTER_OTLP_ENDPOINT
    #[arg(long, env = "PULSE_OTLP_ENDPOINT", hide_env_values = true, global = true)]
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of the requests whose traces are sent, from 0 to 1. It decides alone: a client that asks for a trace, or for
    /// none, changes nothing
    #[arg(long, env = "PULSE_TRACE_SHARE", default_value = "1", value_parser = share, global = true)]
    pub(crate) trace_share: f64,
    /// Refuse connections to PostgreSQL, Redis and the OTLP collector that are not encrypted, or whose server is not
    /// verified; those within this machine are allowed. It does not apply to what the operator reads of other instances
    #[arg(long, env = "PULSE_REQUIRE_TLS", global = true)]
    pub(crate) require_tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    pub(crate) fn into_config(self, service_name: &'static str) -> TelemetryConfig {
        let Self { log_format, log_filter, otlp_endpoint, trace_share, require_tls: _ } = self;
        let format = match log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        #[expect(clippy::disallowed_methods, reason = "the OpenTelemetry specification names this variable")]
        let standard = || std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
        let otlp_endpoint = otlp_endpoint.or_else(standard);
        TelemetryConfig { format, filter: log_filter, service_name, otlp_endpoint, trace_share }
    }
}

/// The instance that the data belongs to.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstanceArgs {
    /// Name of the instance that the database and the Redis keys belong to: <namespace>/<name> in a cluster, any name
    /// elsewhere
    #[arg(long, env = "PULSE_INSTANCE", default_value = "dev")]
    pub(crate) instance: String,
}

/// Default of `--database-max-connections` of a worker and of a scheduler.
pub(crate) const SMALL_POOL: &str = "2";
const _: () = assert!(SMALL_POOL.as_bytes()[0] == b'0' + defaults::SMALL_POOL as u8);
/// Default of `--database-max-connections` of a console.
pub(crate) const CONSOLE_POOL: &str = "4";
const _: () = assert!(CONSOLE_POOL.as_bytes()[0] == b'0' + defaults::CONSOLE_POOL as u8);

/// The connection to PostgreSQL.
#[derive(Debug, Clone, Args)]
pub(crate) struct DatabaseArgs {
    /// URL of PostgreSQL: postgres://USER:PASSWORD@HOST/DATABASE, optionally with libpq's sslmode and sslrootcert. Of several
    /// hosts, separated by commas, the one that takes writes is used
    #[arg(
        long,
        env = "PULSE_DATABASE_URL",
        hide_env_values = true,
        group = "database",
        required_unless_present = "database_url_file"
    )]
    pub(crate) database_url: Option<String>,
    /// Path to a file with that URL instead. It is read each second, and new connections use a changed URL; a line end behind
    /// the URL is not part of it
    #[arg(long, env = "PULSE_DATABASE_URL_FILE", value_name = "PATH", group = "database")]
    pub(crate) database_url_file: Option<PathBuf>,
    /// Path to a PEM file with the CA of PostgreSQL's certificate, trusted in addition to the system's CAs. Certificate
    /// and host name are then verified, as with sslmode=verify-full, unless the URL says verify-ca
    #[arg(long, env = "PULSE_DATABASE_CA_FILE", value_name = "PATH")]
    pub(crate) database_ca_file: Option<PathBuf>,
    /// Path to a PEM file with the certificate for a PostgreSQL that asks clients for one. Each new connection reads it
    #[arg(long, env = "PULSE_DATABASE_CERT_FILE", value_name = "PATH", requires = "database_key_file")]
    pub(crate) database_cert_file: Option<PathBuf>,
    /// Path to a PEM file with the key of that certificate
    #[arg(long, env = "PULSE_DATABASE_KEY_FILE", value_name = "PATH", requires = "database_cert_file")]
    pub(crate) database_key_file: Option<PathBuf>,
    /// Maximum number of pooled connections of this process. Others come on top: 2 for probes, users and heartbeats in
    /// each role, the dedicated ones, 2 in an API and 2 in a worker, and 2 for the live figures of a console
    #[arg(
        long,
        env = "PULSE_DATABASE_MAX_CONNECTIONS",
        default_value_t = defaults::API_POOL,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) database_max_connections: u32,
}

impl DatabaseArgs {
    pub(crate) fn connect(self, role: &str) -> anyhow::Result<Store> {
        let Self { database_url, database_url_file, database_ca_file, database_cert_file, database_key_file, .. } =
            self;
        let url = secret::of(database_url, "--database-url-file", database_url_file.as_deref())?.unwrap_or_default();
        let url_again = database_url_file.map(|file| -> UrlReader { Arc::new(move || secret::read(&file).ok()) });
        let ca = read_ca("--database-ca-file", database_ca_file)?;
        let identity = identity("--database-cert-file", database_cert_file, database_key_file)?;
        let (max_connections, application_name) = (self.database_max_connections, format!("pulse {role}"));
        let store =
            Store::connect_lazy(&StoreConfig { url, url_again, ca, identity, max_connections, application_name })?;
        let fix = "use sslmode=verify-full in the URL, and --database-ca-file if the server's CA is not a public one";
        encryption_policy::check("PostgreSQL", store.configured_encryption(), fix)?;
        Ok(store)
    }
}

/// The connection to Redis.
#[derive(Debug, Clone, Args)]
pub(crate) struct RedisArgs {
    /// URL of Redis: redis://HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST,HOST/NAME/DB, or redis+cluster://HOST,HOST;
    /// rediss… for TLS
    #[arg(
        long,
        visible_alias = "broker-url",
        env = "PULSE_REDIS_URL",
        hide_env_values = true,
        group = "redis",
        required_unless_present = "redis_url_file"
    )]
    pub(crate) redis_url: Option<String>,
    /// Path to a file with that URL instead. It is read once; a line end behind the URL is not part of it
    #[arg(long, env = "PULSE_REDIS_URL_FILE", value_name = "PATH", group = "redis")]
    pub(crate) redis_url_file: Option<PathBuf>,
    /// Path to a PEM file with the CA of Redis' certificate, trusted instead of the system's CAs; needs rediss://
    #[arg(long, env = "PULSE_REDIS_CA_FILE", value_name = "PATH")]
    pub(crate) redis_ca_file: Option<PathBuf>,
    /// Path to a PEM file with the certificate for a Redis that asks clients for one. Each new connection reads it
    #[arg(long, env = "PULSE_REDIS_CERT_FILE", value_name = "PATH", requires = "redis_key_file")]
    pub(crate) redis_cert_file: Option<PathBuf>,
    /// Path to a PEM file with the key of that certificate
    #[arg(long, env = "PULSE_REDIS_KEY_FILE", value_name = "PATH", requires = "redis_cert_file")]
    pub(crate) redis_key_file: Option<PathBuf>,
}

impl RedisArgs {
    pub(crate) fn connect(self, instance: &str) -> anyhow::Result<Queue> {
        let Self { redis_url, redis_url_file, redis_ca_file, redis_cert_file, redis_key_file } = self;
        let url = secret::of(redis_url, "--redis-url-file", redis_url_file.as_deref())?.unwrap_or_default();
        let ca = read_ca("--redis-ca-file", redis_ca_file)?;
        let identity = identity("--redis-cert-file", redis_cert_file, redis_key_file)?;
        let queue = Queue::connect_lazy(&QueueConfig { url, ca, identity, instance: instance.to_owned() })?;
        encryption_policy::check("Redis", queue.encryption(), "use rediss:// and the TLS port of Redis")?;
        Ok(queue)
    }
}

fn identity(flag: &str, certificate: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<ClientIdentity>> {
    let identity = certificate.zip(key).map(|(certificate, key)| ClientIdentity::new(certificate, key)).transpose();
    identity.with_context(|| format!("cannot use the certificate of {flag}"))
}

pub(crate) fn read_ca(flag: &str, path: Option<PathBuf>) -> anyhow::Result<Option<CaBundle>> {
    path.map(|path| CaBundle::read(&path)).transpose().with_context(|| format!("cannot use the CA file of {flag}"))
}

/// TLS of all listeners of a role.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsArgs {
    /// Path to a PEM file with the certificate of all listeners, intermediate ones behind it. It is read again within 2 s
    /// after a change, and open connections stay open. Without it, the listeners do not encrypt
    #[arg(long, env = "PULSE_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Path to a PEM file with the key of that certificate
    #[arg(long, env = "PULSE_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// With `client_ca`, clients need a certificate that it signed.
    pub(crate) fn server(&self, client_ca: Option<PathBuf>) -> anyhow::Result<Option<ServerTls>> {
        let Some((certificate, key)) = self.tls_cert.clone().zip(self.tls_key.clone()) else { return Ok(None) };
        let tls = ServerTls::start(TlsFiles { certificate, key, client_ca });
        Ok(Some(tls.context("cannot use the certificate of --tls-cert")?))
    }
}

/// Certificates of clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientCaArgs {
    /// Path to a PEM file with the CA that has to sign the certificates of clients, in addition to their tokens. It does not
    /// count for probes and metrics
    #[arg(long, env = "PULSE_TLS_CLIENT_CA", value_name = "PATH", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
}

/// The listener for probes and metrics.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// Address of the listener for /livez, /readyz and /metrics
    #[arg(long, env = "PULSE_ADMIN_LISTEN", default_value_t = any_address(defaults::ADMIN_PORT))]
    pub(crate) admin_listen: SocketAddr,
}

/// Memory for request bodies and answers without a limit of the container, in bytes.
const REQUEST_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// The part of the container's memory for them: one in this many. The rest is for connections, statements and what the
/// allocator keeps.
const REQUEST_MEMORY_SHARE: u64 = 2;

fn request_memory_bytes() -> usize {
    let bytes = crate::memory_limit().map_or(REQUEST_MEMORY_BYTES, |limit| limit / REQUEST_MEMORY_SHARE);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Limits and time-outs of the API's server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Maximum size of a request body, as it is sent and decoded, in bytes
    #[arg(long, env = "PULSE_MAX_BODY_BYTES", default_value_t = defaults::MAX_BODY_BYTES as usize)]
    pub(crate) max_body_bytes: usize,
    /// Maximum size of an event, in bytes of JSON. Twice as many bytes are allowed when its payload and text fields are
    /// read back
    #[arg(long, env = "PULSE_MAX_EVENT_BYTES", default_value_t = defaults::MAX_EVENT_BYTES as usize)]
    pub(crate) max_event_bytes: usize,
    /// Maximum nesting depth of an event
    #[arg(long, env = "PULSE_MAX_EVENT_DEPTH", default_value_t = defaults::MAX_EVENT_DEPTH as usize)]
    pub(crate) max_event_depth: usize,
    /// Maximum number of events in a batch
    #[arg(long, env = "PULSE_MAX_BATCH", default_value_t = defaults::MAX_BATCH as usize)]
    pub(crate) max_batch: usize,
    /// Maximum number of open connections. For one more, an idle connection is closed. Lower if the process' limit of file
    /// descriptors or a quarter of the container's memory (32 KiB for each connection) is not enough
    #[arg(long, env = "PULSE_MAX_CONNECTIONS", default_value_t = 10_240)]
    pub(crate) max_connections: usize,
    /// Maximum number of requests in flight; further requests are answered 503
    #[arg(long, env = "PULSE_MAX_IN_FLIGHT", default_value_t = defaults::MAX_IN_FLIGHT as usize)]
    pub(crate) max_in_flight: usize,
    #[command(flatten)]
    pub(crate) users: UserLimitArgs,
    /// Time to wait for the head of a request
    #[arg(long, env = "PULSE_HEADER_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub(crate) header_timeout: Duration,
    /// Time to wait for the next piece of a request body. After this time, a body also has to arrive at 1 KiB per second
    #[arg(long, env = "PULSE_BODY_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub(crate) body_timeout: Duration,
    /// Time limit for a request
    #[arg(long, env = "PULSE_REQUEST_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub(crate) request_timeout: Duration,
    /// Time after SIGTERM in which new connections are still accepted, so that load balancers notice the drain. Each
    /// answer closes its connection
    #[arg(
        long,
        env = "PULSE_DRAIN_DELAY",
        default_value = seconds(defaults::API_DRAIN_DELAY_SECONDS),
        value_parser = duration
    )]
    pub(crate) drain_delay: Duration,
    #[command(flatten)]
    pub(crate) browser: BrowserArgs,
    #[command(flatten)]
    access_log: AccessLogArgs,
}

/// What browsers may do.
#[derive(Debug, Clone, Args)]
pub(crate) struct BrowserArgs {
    /// Origins whose pages may call the API from a browser (CORS), separated by commas, such as https://app.example.com;
    /// without it, none
    #[arg(
        long,
        env = "PULSE_CORS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = origin
    )]
    pub(crate) cors_allow_origin: Vec<HeaderValue>,
    /// Serve /docs and the OpenAPI document
    #[arg(long, env = "PULSE_DOCS", default_value_t = defaults::DOCS, action = clap::ArgAction::Set)]
    pub(crate) docs: bool,
}

/// Parses an origin. It is compared byte by byte with what browsers send, which leave out the port of the scheme.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let uri: Uri = text.parse().unwrap_or_default();
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", Authority::as_str));
    let is_origin = ["http", "https"].contains(&scheme)
        && text == format!("{scheme}://{authority}").to_ascii_lowercase()
        && !authority.contains('@');
    let sent = text.strip_suffix(if scheme == "https" { ":443" } else { ":80" }).unwrap_or(text);
    HeaderValue::from_str(sent).ok().filter(|_| is_origin).ok_or_else(|| {
        "write the origin as browsers do: https://app.example.com, in lower case and without a path".to_owned()
    })
}

impl ServerArgs {
    pub(crate) fn server(&self, tls: Option<ServerTls>) -> ServerConfig {
        ServerConfig {
            access_log: self.access_log.access_log(),
            tls,
            header_timeout: self.header_timeout,
            body_idle_timeout: self.body_timeout,
            request_timeout: self.request_timeout,
            max_connections: connection_limit(self.max_connections),
            max_connections_per_peer: None,
            max_in_flight: self.max_in_flight,
            max_body_bytes: self.max_body_bytes,
            memory_bytes: request_memory_bytes(),
            drain_delay: self.drain_delay,
            drain_timeout: Duration::from_secs(defaults::API_DRAIN_TIMEOUT_SECONDS.into()),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { event_bytes: self.max_event_bytes, depth: self.max_event_depth }
    }
}

/// The number of attempts.
#[derive(Debug, Clone, Args)]
pub(crate) struct AttemptArgs {
    /// Maximum number of attempts of a task. When the last one fails, the task is dead. Also read from
    /// EVENT_MAX_RETRIES
    #[arg(
        long,
        env = "PULSE_MAX_ATTEMPTS",
        default_value = variable_or("EVENT_MAX_RETRIES", defaults::MAX_ATTEMPTS),
        value_parser = clap::value_parser!(i32).range(1..=100)
    )]
    pub(crate) max_attempts: i32,
}

/// How a worker processes tasks.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProcessingArgs {
    /// Maximum number of tasks that are processed at the same time
    #[arg(
        long,
        env = "PULSE_CONCURRENCY",
        default_value_t = defaults::CONCURRENCY,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) concurrency: u16,
    /// Time limit for an attempt. Also read from EVENT_PROCESSING_TIMEOUT
    #[arg(
        long,
        env = "PULSE_TASK_TIMEOUT",
        default_value = variable_or("EVENT_PROCESSING_TIMEOUT", seconds(defaults::TASK_TIMEOUT_SECONDS)),
        value_parser = duration
    )]
    pub(crate) task_timeout: Duration,
    /// Base of the retry delay: the delay after attempt n is this number to the power of n, in seconds. 2 waits 2 s
    /// after the first failed attempt and 4 s after the second. Also read from EVENT_RETRY_DELAY
    #[arg(
        long,
        env = "PULSE_RETRY_BASE",
        default_value = variable_or("EVENT_RETRY_DELAY", defaults::RETRY_BASE_SECONDS)
    )]
    pub(crate) retry_base: f64,
    /// Maximum retry delay
    #[arg(
        long,
        env = "PULSE_RETRY_CAP",
        default_value = seconds(defaults::RETRY_CAP_SECONDS),
        value_parser = duration
    )]
    pub(crate) retry_cap: Duration,
    /// Random variation of the retry delay in both directions, in percent
    #[arg(
        long,
        env = "PULSE_RETRY_JITTER",
        default_value_t = defaults::RETRY_JITTER_PERCENT,
        value_parser = clap::value_parser!(u8).range(..=100)
    )]
    pub(crate) retry_jitter: u8,
    /// Time after SIGTERM in which running tasks may finish. The others are then released, without using up an attempt
    #[arg(
        long,
        env = "PULSE_DRAIN_TIMEOUT",
        default_value = seconds(defaults::WORKER_DRAIN_TIMEOUT_SECONDS),
        value_parser = duration
    )]
    pub(crate) drain_timeout: Duration,
}

impl ProcessingArgs {
    pub(crate) fn retry(&self) -> RetryPolicy {
        RetryPolicy { base_seconds: self.retry_base, cap: self.retry_cap, jitter_percent: f64::from(self.retry_jitter) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_written_as_browsers_do() {
        for good in ["https://app.example.com", "http://localhost:5173", "https://[::1]:8443", "http://a:443"] {
            assert_eq!(origin(good).as_ref().map(HeaderValue::as_bytes), Ok(good.as_bytes()));
        }
        assert_eq!(origin("https://a:443"), Ok(HeaderValue::from_static("https://a")));
        let slash = "https://a.example/";
        for bad in ["", "*", "null", "a.example", slash, "https://A.example", "https://u@a", "ftp://a"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn duration_without_unit_is_seconds() {
        assert_eq!(duration("300"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("soon").is_err());
        assert!(duration("-1").is_err());
    }
}
