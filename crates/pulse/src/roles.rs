//! Putting roles together: what `pulse api|worker|scheduler` run alone and `pulse dev` runs in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use pulse_http::{Check, HttpMetrics, ProbeCheck, ServerConfig, Status};
use pulse_queue::Queue;
use pulse_scheduler::{Scheduler, SchedulerConfig, SchedulerMetrics};
use pulse_store::Store;
use pulse_worker::{Processor, TaskCounters, Worker, WorkerConfig, WorkerMetrics};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::ProcessingArgs;
use crate::telemetry;

/// How long a claim lasts without a heartbeat.
const LEASE: Duration = Duration::from_secs(30);

/// `<host or pod name>.<boot id>`: never used again.
pub(crate) fn process_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let boot = Uuid::new_v4().simple().to_string();
    format!("{}.{}", if host.is_empty() { "pulse" } else { &host }, &boot[..12])
}

/// A registry that already says who we are.
pub(crate) fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    let build_info = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
    build_info.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION")), ("role", role)]).set(1);
    registry.register("pulse_build_info", "The running version", build_info);
    registry
}

/// Counters of worker and scheduler, which may share a process, and so a registry.
#[derive(Clone, Default)]
pub(crate) struct TaskMetrics {
    settled: TaskCounters,
    retries: TaskCounters,
}

impl TaskMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let Self { settled, retries } = Self::default();
        registry.register("pulse_tasks_settled", "Tasks settled, by outcome", settled.clone());
        registry.register("pulse_task_retries", "Executor that failed and are retried, by reason", retries.clone());
        Self { settled, retries }
    }
}

pub(crate) fn worker(
    args: &ProcessingArgs,
    store: Store,
    queue: Queue,
    processor: Arc<dyn Processor>,
    registry: &mut Registry,
    TaskMetrics { settled, retries }: TaskMetrics,
) -> Worker {
    let config = WorkerConfig {
        name: process_name(),
        concurrency: usize::from(args.concurrency),
        timeout: args.task_timeout,
        retry: args.retry(),
        lease: LEASE,
        drain_timeout: args.drain_timeout,
        link_trace: telemetry::link_to,
    };
    Worker::new(config, store, queue, processor, WorkerMetrics::register(registry, settled, retries))
}

pub(crate) fn scheduler(
    store: Store,
    queue: Queue,
    registry: &mut Registry,
    TaskMetrics { settled, retries }: TaskMetrics,
) -> Scheduler {
    let config =
        SchedulerConfig { name: process_name(), lease: Duration::from_secs(10), lost_after: Duration::from_secs(10) };
    Scheduler::new(config, store, queue, SchedulerMetrics::register(registry, settled, retries))
}

/// What keeps a role from being live, if anything does.
pub(crate) type Problem = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Live unless one of the roles of this process has a problem.
pub(crate) fn live_probe(roles: Vec<(&'static str, Problem)>) -> ProbeCheck {
    Arc::new(move || {
        let checks = roles.iter().map(|(name, problem)| match problem() {
            None => check(name, Status::Ok, String::new()),
            Some(detail) => check(name, Status::Failed, detail),
        });
        let checks: Vec<Check> = checks.collect();
        Box::pin(async move { checks })
    })
}

/// Ready if PostgreSQL answers with a schema that we know, and we are not draining. Without Redis, or with one that may
/// evict keys, the role is degraded: slower, and nothing is lost.
pub(crate) fn ready_probe(store: Store, queue: Queue, draining: CancellationToken) -> ProbeCheck {
    Arc::new(move || {
        let (store, queue, draining) = (store.clone(), queue.clone(), draining.clone());
        let checks: BoxFuture<'static, Vec<Check>> = Box::pin(async move {
            let (postgresql, redis) = tokio::join!(check_postgresql(&store), check_redis(&queue));
            let serving = if draining.is_cancelled() {
                check("serving", Status::Failed, "draining".into())
            } else {
                check("serving", Status::Ok, String::new())
            };
            vec![postgresql, redis, serving]
        });
        checks
    })
}

async fn check_postgresql(store: &Store) -> Check {
    match store.schema_problem().await {
        Ok(None) => check("postgresql", Status::Ok, String::new()),
        Ok(Some(problem)) => check("postgresql", Status::Failed, problem),
        Err(error) => check("postgresql", Status::Failed, error.to_string()),
    }
}

async fn check_redis(queue: &Queue) -> Check {
    match queue.settings().await {
        Ok(settings) if settings.maxmemory_policy != "noeviction" => {
            let detail = format!("maxmemory-policy is {}: set it to noeviction", settings.maxmemory_policy);
            check("redis", Status::Degraded, detail)
        }
        Ok(_) => check("redis", Status::Ok, String::new()),
        Err(error) => check("redis", Status::Degraded, format!("{error}: tasks are found by polling PostgreSQL")),
    }
}

fn check(name: &'static str, status: Status, detail: String) -> Check {
    Check { name, status, detail }
}

/// Probes and metrics, on their own listener: they answer while the role is busy or draining.
pub(crate) struct Admin {
    listener: TcpListener,
    live: ProbeCheck,
    ready: ProbeCheck,
}

impl Admin {
    pub(crate) fn new(listener: TcpListener, live: ProbeCheck, ready: ProbeCheck) -> Self {
        Self { listener, live, ready }
    }

    /// Serves in the background until `shutdown`, which comes when the role has ended.
    pub(crate) fn serve(self, registry: Registry, shutdown: CancellationToken) -> tokio::task::JoinHandle<()> {
        let Self { listener, live, ready } = self;
        let config = ServerConfig {
            header_timeout: Duration::from_secs(5),
            body_idle_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            max_connections: 128,
            max_in_flight: 64,
            max_body_bytes: 1024,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
        };
        // Probes are no traffic: they are measured into a registry that nobody reads.
        let metrics = HttpMetrics::register(&mut Registry::default());
        let router = pulse_http::admin_router(Arc::new(registry), live, ready);
        let router = pulse_http::layered(router, metrics, &config, |_, _| None);
        tokio::spawn(pulse_http::serve(listener, router, config, shutdown))
    }
}

/// A role of its own process, without its work.
pub(crate) struct RoleProcess {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) registry: Registry,
    pub(crate) admin_listen: std::net::SocketAddr,
    /// What keeps it from being live.
    pub(crate) problem: Problem,
}

impl RoleProcess {
    /// Serves the admin port, waits for a schema that we know, and does `work`, which ends after `shutdown`.
    ///
    /// A role that waits or drains is live: a restart would help with neither.
    pub(crate) async fn run(self, shutdown: CancellationToken, work: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { name, store, queue, registry, admin_listen, problem } = self;
        let working = Arc::new(AtomicBool::new(false));
        let (begun, stopping) = (working.clone(), shutdown.clone());
        let while_working: Problem = Arc::new(move || {
            let works = begun.load(Ordering::Relaxed) && !stopping.is_cancelled();
            if works { problem() } else { None }
        });
        let live = live_probe(vec![(name, while_working)]);
        let ready = ready_probe(store.clone(), queue, shutdown.clone());
        let listener = listen(admin_listen, "--admin-listen").await?;
        let ended = CancellationToken::new();
        let admin = Admin::new(listener, live, ready).serve(registry, ended.clone());
        tracing::info!(role = name, "starting");
        tokio::select! {
            () = store.wait_for_schema() => {}
            () = shutdown.cancelled() => {}
        }
        working.store(true, Ordering::Relaxed);
        work.await;
        ended.cancel();
        admin.await?;
        store.close().await;
        Ok(())
    }
}

/// Listens, or says what is in the way.
pub(crate) async fn listen(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("failed to listen on {address}: end what uses the port, or choose another with {flag}")
    })
}
