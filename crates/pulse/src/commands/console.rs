//! `pulse console`: runs the console.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use pulse_console::ConsoleConfig;
use pulse_core::defaults;
use pulse_http::{HttpMetrics, ServerConfig, Verifier};
use pulse_metrics::Registry;
use pulse_queue::Queue;
use pulse_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, AuthArgs, DatabaseArgs, InstanceArgs, RedisArgs, any_address};
use crate::metrics;
use crate::reload::ReloadArgs;
use crate::roles::{self, RoleProcess};
use crate::schema_gate::SchemaGate;

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// Address of the listener for the console
    #[arg(long, env = "PULSE_CONSOLE_LISTEN", default_value_t = any_address(defaults::CONSOLE_PORT))]
    console_listen: SocketAddr,
    /// Refuse every action; the pages only show
    #[arg(long, env = "PULSE_READ_ONLY")]
    read_only: bool,
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
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: ConsoleArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ConsoleArgs {
        console_listen,
        read_only,
        instance,
        database,
        redis,
        auth,
        admin: AdminArgs { admin_listen },
        reload: _,
    } = args;
    let store = database.connect("console")?;
    let queue = redis.connect(&instance.instance)?;
    let registry = metrics::registry("console");
    let server =
        ConsoleServer::new(&instance.instance, read_only, auth, store.clone(), queue.clone(), shutdown.clone())?;
    let listener = roles::listen(console_listen, "--console-listen")?;
    let liveness = Arc::new(|| None);
    let schema_gate = SchemaGate::default();
    let role = RoleProcess { name: "console", store, queue, registry, admin_listen, liveness, schema_gate };
    role.run(shutdown.clone(), server.serve(listener, shutdown)).await
}

/// The console with its server.
pub(crate) struct ConsoleServer {
    router: axum::Router,
    config: ServerConfig,
}

impl ConsoleServer {
    pub(crate) fn new(
        instance: &str,
        read_only: bool,
        auth: AuthArgs,
        store: Store,
        queue: Queue,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let (auth, _) = auth.into_config()?;
        let config = ServerConfig {
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
        let console = ConsoleConfig { instance: instance.to_owned(), read_only };
        let pages = pulse_console::start(console, store, queue, Verifier::new(&auth)?, shutdown);
        // Requests of pages are not part of the API's HTTP metrics: this registry is not exported.
        let metrics = HttpMetrics::register(&mut Registry::default());
        let router = pulse_http::layered(pages, metrics, &config, |_, _| None);
        Ok(Self { router, config })
    }

    /// Serves until `shutdown`; live streams then end.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        pulse_http::serve(listener, self.router, self.config, shutdown).await;
    }
}
