//! `pulse console`: runs the console.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use pulse_console::{ConsoleConfig, ConsoleMetrics};
use pulse_core::defaults;
use pulse_http::{AccessLog, HttpMetrics, ServerConfig, ServerTls, Verifier};
use pulse_queue::Queue;
use pulse_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log_args::AccessLogArgs;
use crate::args::{AdminArgs, CONSOLE_POOL, ClientCaArgs, DatabaseArgs, InstanceArgs, RedisArgs, TlsArgs, any_address};
use crate::auth_args::AuthArgs;
use crate::metrics;
use crate::reload::ReloadArgs;
use crate::roles::{self, RoleProcess};
use crate::schema_gate::SchemaGate;
use crate::trace;

#[derive(Debug, Args)]
#[command(mut_arg("database_max_connections", |arg| arg.default_value(CONSOLE_POOL)))]
pub(crate) struct ConsoleArgs {
    /// Address of the listener for the console
    #[arg(long, env = "PULSE_CONSOLE_LISTEN", default_value_t = any_address(defaults::CONSOLE_PORT))]
    console_listen: SocketAddr,
    /// Refuse every action; the pages only show
    #[arg(long, env = "PULSE_READ_ONLY")]
    read_only: bool,
    /// Path to the file with the decisions of the operator, which the page Instance shows. The operator sets it; without
    /// it, there is no such page
    #[arg(long, env = "PULSE_DECISIONS_FILE", value_name = "PATH")]
    decisions_file: Option<PathBuf>,
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    client_ca: ClientCaArgs,
    #[command(flatten)]
    access_log: AccessLogArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: ConsoleArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ConsoleArgs {
        console_listen,
        read_only,
        decisions_file,
        instance,
        database,
        redis,
        auth,
        admin: AdminArgs { admin_listen },
        tls,
        client_ca,
        access_log,
        reload: _,
    } = args;
    let store = database.connect("console")?;
    let queue = redis.connect(&instance.instance)?;
    let mut registry = metrics::registry("console");
    let config = ConsoleConfig { instance: instance.instance, read_only, decisions_file };
    let metrics = metrics::console(&mut registry);
    let verifier = auth.verifier()?;
    let tokens = Some(verifier.clone());
    let identity = (verifier, tls.server(client_ca.tls_client_ca)?, access_log.access_log());
    let server = ConsoleServer::new(config, identity, store.clone(), queue.clone(), metrics, shutdown.clone());
    let listener = roles::listen(console_listen, "--console-listen")?;
    let (tls, liveness) = (tls.server(None)?, Arc::new(|| None));
    let schema_gate = SchemaGate::default();
    let role =
        RoleProcess { name: "console", store, queue, registry, admin_listen, tls, liveness, tokens, schema_gate };
    role.run(shutdown.clone(), server.serve(listener, shutdown)).await
}

/// How long the end of the role waits for those of the acts on tasks.
const ACTS_TIMEOUT: Duration = Duration::from_secs(5);

/// The console with its server.
pub(crate) struct ConsoleServer {
    router: axum::Router,
    acts: TaskTracker,
    config: ServerConfig,
}

impl ConsoleServer {
    pub(crate) fn new(
        console: ConsoleConfig,
        (verifier, tls, access_log): (Verifier, Option<ServerTls>, AccessLog),
        store: Store,
        queue: Queue,
        (http_metrics, metrics): (HttpMetrics, ConsoleMetrics),
        shutdown: CancellationToken,
    ) -> Self {
        let config = ServerConfig {
            access_log,
            tls,
            header_timeout: Duration::from_secs(5),
            body_idle_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(15),
            max_connections: 512,
            max_connections_per_peer: None,
            max_in_flight: 64,
            max_body_bytes: 16 * 1024,
            memory_bytes: 32 * 1024 * 1024,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
        };
        let (routes, acts) = pulse_console::start(console, store, queue, verifier, metrics, shutdown);
        let router = pulse_http::layered(routes, http_metrics, &config, Some(trace::continue_trace));
        Self { router, acts, config }
    }

    /// Serves until `shutdown`; live streams then end, and acts on tasks after their present transaction.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        pulse_http::serve(listener, self.router, self.config, shutdown).await;
        self.acts.close();
        if tokio::time::timeout(ACTS_TIMEOUT, self.acts.wait()).await.is_err() {
            tracing::warn!("an act on tasks did not end: the scheduler ends it");
        }
    }
}
