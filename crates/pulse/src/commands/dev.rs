//! `pulse dev`: runs API, worker, scheduler and console in one process, with a private PostgreSQL and Redis.

mod banner;
mod datastore_args;
mod running;
mod servers;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use pulse_console::{ConsoleConfig, ConsoleMetrics};
use pulse_core::defaults;
use pulse_http::{AccessLog, HttpMetrics, NewClaims, Verifier};
use pulse_metrics::Registry;
use pulse_queue::Queue;
use pulse_store::Store;
use pulse_worker::Processor;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
use self::datastore_args::DatastoreArgs;
use self::running::{Roles, Shared};
use self::servers::Servers;
use crate::args::{AttemptArgs, DatabaseArgs, ProcessingArgs, RedisArgs, ServerArgs};
use crate::auth_args::{AuthArgs, SigningArgs};
use crate::commands::api::Api;
use crate::commands::console::ConsoleServer;
use crate::commands::{migrate, token};
use crate::datastores::DataDir;
use crate::output::print_json;
use crate::{metrics, roles};

const INSTANCE: &str = "dev";
/// How long the printed tokens are valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

// There is no load balancer that has to notice a drain.
#[derive(Debug, Args)]
#[command(
    mut_arg("drain_delay", |arg| arg.default_value("0s")),
    mut_arg("jwt_secret", |arg| arg.help("Secret of HS256 tokens; without one, it is generated and kept with the data"))
)]
pub(crate) struct DevArgs {
    /// Port of the API; 0 chooses a free port
    #[arg(long, env = "PULSE_PORT", default_value_t = defaults::API_PORT)]
    port: u16,
    /// Port of probes and metrics; 0 chooses a free port
    #[arg(long, env = "PULSE_ADMIN_PORT", default_value_t = defaults::ADMIN_PORT)]
    admin_port: u16,
    /// Port of the console; 0 chooses a free port
    #[arg(long, env = "PULSE_CONSOLE_PORT", default_value_t = defaults::CONSOLE_PORT)]
    console_port: u16,
    /// Directory for the data; without it, the data is temporary
    #[arg(long, env = "PULSE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    datastores: DatastoreArgs,
    #[command(flatten)]
    signing: SigningArgs,
    /// When ready, print addresses and tokens as one line of JSON on stdout instead of the banner
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    attempts: AttemptArgs,
    #[command(flatten)]
    processing: ProcessingArgs,
}

/// The output of `--json`, for programs that start `pulse dev`.
#[derive(Serialize)]
struct DevInfo<'a> {
    api: String,
    admin: String,
    console: String,
    token: &'a str,
    admin_token: &'a str,
    jwt_secret: &'a str,
    database_url: &'a str,
    redis_url: &'a str,
    pid: u32,
}

pub(crate) async fn run(
    args: DevArgs,
    processor: Arc<dyn Processor>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let DevArgs { port, admin_port, console_port, data_dir, datastores, signing, json, server, attempts, processing } =
        args;
    let process_start = Instant::now();
    let mut banner = Banner::default();
    // Bind the ports first, so that a port in use is reported before a server is started.
    let (listener, api_url) = listen(port, "--port")?;
    let (admin_listener, admin_url) = listen(admin_port, "--admin-port")?;
    let (console_listener, console_url) = listen(console_port, "--console-port")?;
    let data = DataDir::open(data_dir.clone())?;
    let servers = Servers::start(datastores.urls()?, &data, &mut banner).await?;
    let jwt_secret = signing.secret()?.map_or_else(|| data.secret("jwt_secret"), Ok)?;

    let worker = roles::process_name();
    let (store, queue) = connect(&servers, &worker, datastores)?;
    let started = Instant::now();
    let (applied, schema) = migrate::bring_up_to_date(&store, INSTANCE).await.context("cannot migrate the database")?;
    banner.line("Migrations", &format!("{applied} applied, schema {schema}"), started);

    let mut registry = metrics::registry("dev");
    let auth = (AuthArgs::of_secret(jwt_secret.clone()).verifier()?, true);
    let pool = store.clone();
    metrics::postgresql(&mut registry, move || pool.pool_use());
    let (http, metrics) = metrics::api(&mut registry);
    let api = Api::new((&server, None), &attempts, auth.clone(), store.clone(), queue.clone(), (http.clone(), metrics));
    let console = console(auth.0, &store, &queue, (http, &mut registry), shutdown.clone());
    let shared = Shared { store: store.clone(), queue, registry, worker };
    let running = Roles::start(shared, (api, listener), (&processing, processor), admin_listener, &shutdown);
    let console = tokio::spawn(console.serve(console_listener, shutdown.clone()));

    let issue = |sub, scope| token::issue(&jwt_secret, &NewClaims { sub, scope, ..<_>::default() }, TOKEN_LIFETIME);
    let token = issue("dev", None)?;
    if json {
        print_json(&DevInfo {
            api: api_url,
            admin: admin_url,
            console: console_url,
            token: &token,
            admin_token: &issue("dev-admin", Some("events:write events:read admin"))?,
            jwt_secret: &jwt_secret,
            database_url: &servers.database_url,
            redis_url: &servers.redis_url,
            pid: std::process::id(),
        })?;
    } else {
        banner.show(&api_url, &admin_url, &console_url, (&token, &jwt_secret), data_dir.as_deref(), process_start);
    }

    shutdown.cancelled().await;
    console.await?;
    running.stop().await?;
    store.close().await;
    servers.stop().await
}

/// The console, with a pool for itself, so that slow pages keep no connection from the API. There is no operator whose
/// decisions it could show.
fn console(
    verifier: Verifier,
    store: &Store,
    queue: &Queue,
    (http, registry): (HttpMetrics, &mut Registry),
    shutdown: CancellationToken,
) -> ConsoleServer {
    let metrics = (http, ConsoleMetrics::register(registry));
    let config = ConsoleConfig { instance: INSTANCE.into(), read_only: false, decisions_file: None };
    ConsoleServer::new(
        config,
        (verifier, None, AccessLog::default()),
        store.separate(defaults::CONSOLE_POOL),
        queue.clone(),
        metrics,
        shutdown,
    )
}

/// Pools for PostgreSQL and Redis, with the name of the worker.
fn connect(servers: &Servers, worker: &str, given: DatastoreArgs) -> anyhow::Result<(Store, Queue)> {
    let DatastoreArgs { database_ca_file, redis_ca_file, .. } = given;
    let database = DatabaseArgs {
        database_url: Some(servers.database_url.clone()),
        database_url_file: None,
        database_ca_file,
        database_cert_file: None,
        database_key_file: None,
        database_max_connections: 20,
    };
    let store = database.connect(&roles::session_name("dev", worker))?;
    let redis_url = Some(servers.redis_url.clone());
    let redis =
        RedisArgs { redis_url, redis_url_file: None, redis_ca_file, redis_cert_file: None, redis_key_file: None };
    let queue = redis.connect(INSTANCE)?;
    Ok((store, queue))
}

/// Listens on the loopback interface only. Returns the listener and its URL.
fn listen(port: u16, flag: &str) -> anyhow::Result<(TcpListener, String)> {
    let listener = roles::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), flag)?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}
