//! `pulse dev`: runs API, worker and scheduler in one process, with a private PostgreSQL and Redis.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use pulse_core::defaults;
use pulse_http::NewClaims;
use pulse_worker::Processor;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{AttemptArgs, AuthArgs, DatabaseArgs, ProcessingArgs, RedisArgs, ServerArgs};
use crate::commands::api::Api;
use crate::commands::{migrate, token};
use crate::datastores::{DataDir, Postgres, PostgresConfig, Redis, RedisConfig};
use crate::output::print_json;
use crate::roles::{self, TaskMetrics};

const INSTANCE: &str = "dev";
/// How long the printed tokens are valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

// There is no load balancer that has to notice a drain.
#[derive(Debug, Args)]
#[command(mut_arg("drain_delay", |arg| arg.default_value("0s")))]
pub(crate) struct DevArgs {
    /// Port of the API; 0 chooses a free port
    #[arg(long, env = "PULSE_PORT", default_value_t = defaults::API_PORT)]
    port: u16,
    /// Port of probes and metrics; 0 chooses a free port
    #[arg(long, env = "PULSE_ADMIN_PORT", default_value_t = defaults::ADMIN_PORT)]
    admin_port: u16,
    /// Directory for the data; without it, the data is temporary
    #[arg(long, env = "PULSE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// URL of a PostgreSQL to use instead of a private one
    #[arg(long, env = "PULSE_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Path to a PEM file with the CA of that PostgreSQL, as in `pulse api`
    #[arg(long, env = "PULSE_DATABASE_CA_FILE", value_name = "PATH", requires = "database_url")]
    database_ca_file: Option<PathBuf>,
    /// URL of a Redis to use instead of a private one
    #[arg(long, env = "PULSE_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Path to a PEM file with the CA of that Redis, as in `pulse api`
    #[arg(long, env = "PULSE_REDIS_CA_FILE", value_name = "PATH", requires = "redis_url")]
    redis_ca_file: Option<PathBuf>,
    /// Secret of HS256 tokens; without it, one is generated and kept with the data
    #[arg(long, env = "PULSE_JWT_SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,
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
    let DevArgs {
        port,
        admin_port,
        data_dir,
        database_url,
        database_ca_file,
        redis_url,
        redis_ca_file,
        jwt_secret,
        json,
        server,
        attempts,
        processing,
    } = args;
    let process_start = Instant::now();
    let mut banner = Banner::default();
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    // Bind the ports first, so that a port in use is reported before a server is started.
    let listener = roles::listen(loopback(port), "--port").await?;
    let admin_listener = roles::listen(loopback(admin_port), "--admin-port").await?;
    let (api_url, admin_url) =
        (format!("http://{}", listener.local_addr()?), format!("http://{}", admin_listener.local_addr()?));

    let data = DataDir::open(data_dir.clone())?;
    let mut postgres = None;
    let mut redis = None;
    let started = Instant::now();
    let database_url = match database_url {
        Some(url) => {
            banner.line("PostgreSQL", "from --database-url", started);
            url
        }
        None => {
            let server = Postgres::start(PostgresConfig::in_dir(data.path().join("postgres"))).await?;
            banner.line("PostgreSQL", &format!("{}, private, unix socket", server.version()), started);
            let url = server.url("pulse");
            postgres = Some(server);
            url
        }
    };
    let started = Instant::now();
    let redis_url = match redis_url {
        Some(url) => {
            banner.line("Redis", "from --redis-url", started);
            url
        }
        None => {
            let server = Redis::start(RedisConfig::in_dir(data.path().join("redis"))).await?;
            banner.line("Redis", &format!("{}, private, unix socket", server.version()), started);
            let url = server.url();
            redis = Some(server);
            url
        }
    };
    let jwt_secret = match jwt_secret {
        Some(secret) => secret,
        None => data.secret("jwt_secret")?,
    };

    let database = DatabaseArgs { database_url: database_url.clone(), database_ca_file, database_max_connections: 20 };
    let store = database.connect("dev")?;
    let queue = RedisArgs { redis_url: redis_url.clone(), redis_ca_file }.connect(INSTANCE)?;
    let started = Instant::now();
    let (applied, schema) = migrate::bring_up_to_date(&store, INSTANCE).await.context("cannot migrate the database")?;
    banner.line("Migrations", &format!("{applied} applied, schema {schema}"), started);

    let mut registry = roles::registry("dev");
    let auth = AuthArgs {
        jwt_secret: Some(jwt_secret.clone()),
        jwt_public_key_file: None,
        jwt_issuer: None,
        jwt_audience: None,
        auto_provision: true,
    };
    let api = Api::new(&server, &attempts, auth, store.clone(), queue.clone(), &mut registry)?;
    let tasks = TaskMetrics::register(&mut registry);
    let worker = roles::worker(&processing, store.clone(), queue.clone(), processor, &mut registry, tasks.clone());
    let scheduler = roles::scheduler(store.clone(), queue.clone(), &mut registry, tasks);
    let (worker_health, scheduler_health) = (worker.health(), scheduler.health());
    let live = roles::live_probe(vec![
        ("worker", Arc::new(move || worker_health.problem())),
        ("scheduler", Arc::new(move || scheduler_health.problem())),
    ]);
    let ready = roles::ready_probe(store.clone(), queue, api.schema_gate.clone(), shutdown.clone());
    let ended = CancellationToken::new();
    let admin = roles::AdminServer::new(admin_listener, live, ready).serve(registry, ended.clone());
    api.schema_gate.open();
    let api = tokio::spawn(api.serve(listener, shutdown.clone()));
    // The worker stops after the API has drained, so that it still receives the last accepted tasks.
    let after_api = CancellationToken::new();
    let worker = tokio::spawn(worker.run(after_api.clone()));
    let scheduler = tokio::spawn(scheduler.run(after_api.clone()));

    let issue = |sub, scope| token::issue(&jwt_secret, &NewClaims { sub, scope, ..<_>::default() }, TOKEN_LIFETIME);
    let token = issue("dev", None)?;
    let admin_token = issue("dev-admin", Some("events:write events:read admin"))?;
    if json {
        let (database_url, redis_url) = (database_url.as_str(), redis_url.as_str());
        let pid = std::process::id();
        print_json(&DevInfo {
            api: api_url,
            admin: admin_url,
            token: &token,
            admin_token: &admin_token,
            jwt_secret: &jwt_secret,
            database_url,
            redis_url,
            pid,
        })?;
    } else {
        banner.show(&api_url, &admin_url, &token, data_dir.as_deref(), process_start);
    }

    shutdown.cancelled().await;
    api.await?;
    after_api.cancel();
    worker.await?;
    scheduler.await?;
    ended.cancel();
    admin.await?;
    store.close().await;
    if let Some(redis) = redis {
        redis.stop().await?;
    }
    if let Some(postgres) = postgres {
        postgres.stop_fast().await?;
    }
    Ok(())
}

/// The start message for a person, on stderr.
#[derive(Default)]
struct Banner {
    lines: Vec<String>,
}

impl Banner {
    fn line(&mut self, name: &str, detail: &str, started: Instant) {
        self.lines.push(format!("  {name:<18} {detail:<46} {:>4.1} s", started.elapsed().as_secs_f64()));
    }

    #[expect(clippy::print_stderr, reason = "the banner is for the person at the terminal, not for a log")]
    fn show(&self, api: &str, admin: &str, token: &str, data_dir: Option<&std::path::Path>, process_start: Instant) {
        let data = match data_dir {
            Some(path) => format!("kept in {}", path.display()),
            None => "temporary, removed on exit   (--data-dir PATH keeps it)".into(),
        };
        let lines = self.lines.join("\n");
        eprintln!(
            "PulseBoard Ingest {version}   development mode, not for production
{lines}
  API                {api}   docs /docs
  Admin              {admin}   /livez /readyz /metrics
  Worker, scheduler  running in this process
  Data               {data}
Set these variables for `pulse demo`, `pulse load` and the examples:
  export PULSE_URL={api}
  export PULSE_TOKEN={token}
Post an event, then list the events:
  curl -sS {api}/api/v1/events -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' -d '{{\"event_name\":\"page_view\",\"event_type\":\"engagement\",\"payload\":{{\"page\":\"/home\"}}}}'
  curl -sS {api}/api/v1/events -H 'Authorization: Bearer {token}'
Ready in {seconds:.1} s. Press Ctrl-C to stop everything.",
            version = env!("CARGO_PKG_VERSION"),
            seconds = process_start.elapsed().as_secs_f64(),
        );
    }
}
