//! `pulse api`: runs the HTTP API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use clap::Args;
use pulse_api::{ApiConfig, ApiMetrics, AppState};
use pulse_core::defaults;
use pulse_http::{HttpMetrics, ServerTls, Verifier};
use pulse_queue::{Publisher, Queue};
use pulse_store::{Acceptor, AcceptorHealth, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::{
    AdminArgs, AttemptArgs, BrowserArgs, ClientCaArgs, DatabaseArgs, InstanceArgs, RedisArgs, ServerArgs, TlsArgs,
    any_address,
};
use crate::auth_args::{AuthArgs, ProvisionArgs};
use crate::reload::ReloadArgs;
use crate::roles::{self, LivenessCheck, RoleProcess};
use crate::schema_gate::SchemaGate;
use crate::{metrics, trace};

/// Time to enqueue the last accepted tasks when the API ends. The scheduler enqueues what is left after it.
const ENQUEUE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Address of the listener for the API
    #[arg(long, env = "PULSE_LISTEN", default_value_t = any_address(defaults::API_PORT))]
    listen: SocketAddr,
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    provision: ProvisionArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    attempts: AttemptArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    client_ca: ClientCaArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: ApiArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ApiArgs {
        listen,
        instance,
        database,
        redis,
        auth,
        provision,
        server,
        attempts,
        admin: AdminArgs { admin_listen },
        tls,
        client_ca,
        reload: _,
    } = args;
    let store = database.connect("api")?;
    let queue = redis.connect(&instance.instance)?;
    let mut registry = metrics::registry("api");
    let auto_provision = provision.auto_provision.unwrap_or(!auth.has_public_keys());
    let verifier = auth.verifier()?;
    let identity = (verifier.clone(), auto_provision);
    let listener_tls = tls.server(client_ca.tls_client_ca)?;
    let server = (&server, listener_tls);
    let api = Api::new(server, &attempts, identity, store.clone(), queue.clone(), metrics::api(&mut registry));
    let listener = roles::listen(listen, "--listen")?;
    let (health, schema_gate) = (api.health.clone(), api.schema_gate.clone());
    let liveness: LivenessCheck = Arc::new(move || health.problem());
    let (tls, tokens) = (tls.server(None)?, Some(verifier));
    let role = RoleProcess { name: "api", store, queue, registry, admin_listen, tls, liveness, tokens, schema_gate };
    let serving = tokio::spawn(api.serve(listener, shutdown.clone()));
    role.run(shutdown, async move {
        let _ = serving.await;
    })
    .await
}

/// The API and its settings. Requests are refused until `schema_gate` is opened.
pub(crate) struct Api {
    router: axum::Router,
    config: pulse_http::ServerConfig,
    pub(crate) schema_gate: SchemaGate,
    pub(crate) health: AcceptorHealth,
    /// Ends when every accepted task is enqueued and nothing can accept another.
    enqueueing: JoinHandle<()>,
}

impl Api {
    pub(crate) fn new(
        (server, tls): (&ServerArgs, Option<ServerTls>),
        attempts: &AttemptArgs,
        (verifier, auto_provision): (Verifier, bool),
        store: Store,
        queue: Queue,
        (http_metrics, metrics): (HttpMetrics, ApiMetrics),
    ) -> Self {
        let config = ApiConfig {
            limits: server.limits(),
            max_batch: server.max_batch,
            max_attempts: attempts.max_attempts,
            auto_provision,
            max_new_users_per_minute: server.users.max_new_users_per_minute,
            user_limits: server.users.limits(server.max_in_flight),
            process: roles::process_name(),
        };
        let acceptor = Acceptor::start(&store, &config.process);
        let health = acceptor.health();
        let dropped = metrics.dropped.clone();
        let (publisher, enqueueing) = Publisher::start(&queue, move |entries| {
            dropped.inc_by(entries);
        });
        let state = AppState::new(config, store, acceptor, publisher, verifier, metrics);
        let config = server.server(tls);
        let schema_gate = SchemaGate::default();
        let BrowserArgs { cors_allow_origin, docs } = server.browser.clone();
        let routes = pulse_api::router(state, docs).layer(from_fn_with_state(schema_gate.clone(), SchemaGate::pass));
        let mut router = pulse_http::layered(routes, http_metrics, &config, Some(trace::continue_trace));
        if !cors_allow_origin.is_empty() {
            router = router.layer(pulse_api::cors(cors_allow_origin));
        }
        Self { router, config, schema_gate, health, enqueueing }
    }

    /// Serves until `shutdown`, then drains: see `--drain-delay`.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        pulse_http::serve(listener, self.router, self.config, shutdown).await;
        if tokio::time::timeout(ENQUEUE_TIMEOUT, self.enqueueing).await.is_err() {
            tracing::warn!("some accepted tasks are not enqueued: the scheduler enqueues them");
        }
    }
}
