//! What roles have in common: `pulse api|worker|scheduler` run one role in a process, `pulse dev` runs all three.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use pulse_core::TASK_LEASE;
use pulse_http::{AccessLog, Check, HttpMetrics, ProbeCheck, ServerConfig, ServerTls, Status, Verifier};
use pulse_metrics::{Registry, TaskMetrics};
use pulse_queue::{GAUGES_MAX_AGE, Queue, RedisSetting};
use pulse_scheduler::{MonthArchive, Retention, Scheduler, SchedulerMetrics};
use pulse_store::Store;
use pulse_worker::{Processor, Worker, WorkerConfig, WorkerMetrics};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::args::ProcessingArgs;
use crate::key_audit;
use crate::metrics;
use crate::schema_gate::SchemaGate;
use crate::trace;

/// Maximum size of the events that a worker has in flight, in bytes.
const MAX_IN_FLIGHT_BYTES: u64 = 32 * 1024 * 1024;
/// The part of the container's memory for them. An event is in memory about five times: as PostgreSQL sent it, as payload,
/// as result, and in the statement that settles it.
const IN_FLIGHT_SHARE: u64 = 16;

/// Connections that wait to be accepted; the kernel's `net.core.somaxconn` may allow fewer.
const LISTEN_BACKLOG: i32 = 1024;

fn max_in_flight_bytes() -> usize {
    let share = crate::memory_limit().map_or(MAX_IN_FLIGHT_BYTES, |limit| limit / IN_FLIGHT_SHARE);
    usize::try_from(share.min(MAX_IN_FLIGHT_BYTES)).unwrap_or(usize::MAX)
}

/// `<host or pod name>.<random id>`: unique to this start of the process.
pub(crate) fn process_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let random = Uuid::new_v4().simple().to_string();
    format!("{}.{}", if host.is_empty() { "pulse" } else { &host }, &random[..12])
}

/// What the sessions of a process are called in PostgreSQL: the role with the random id, so that each is known by its
/// worker's name. A host's name would not fit into the 63 bytes.
pub(crate) fn session_name(role: &str, process_name: &str) -> String {
    format!("{role} {}", process_name.rsplit('.').next().unwrap_or(process_name))
}

pub(crate) fn worker(
    name: String,
    args: &ProcessingArgs,
    store: Store,
    queue: Queue,
    processor: Arc<dyn Processor>,
    registry: &mut Registry,
    tasks: TaskMetrics,
) -> Worker {
    let config = WorkerConfig {
        name,
        concurrency: usize::from(args.concurrency),
        max_in_flight_bytes: max_in_flight_bytes(),
        timeout: args.task_timeout,
        retry: args.retry(),
        lease: TASK_LEASE,
        drain_timeout: args.drain_timeout,
        continue_trace: trace::continue_task,
    };
    Worker::new(config, store, queue, processor, WorkerMetrics::register(registry, tasks))
}

pub(crate) fn scheduler(
    store: Store,
    queue: Queue,
    registry: &mut Registry,
    tasks: TaskMetrics,
    retention: Retention,
    archive: Option<Arc<dyn MonthArchive>>,
) -> Scheduler {
    Scheduler::new(process_name(), store, queue, SchedulerMetrics::register(registry, tasks), retention, archive)
}

/// Returns why a role is not live, or `None` if it is.
pub(crate) type LivenessCheck = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The liveness probe: one check for each role of this process.
pub(crate) fn live_probe(roles: Vec<(&'static str, LivenessCheck)>) -> ProbeCheck {
    Arc::new(move || {
        let checks = roles.iter().map(|(name, liveness)| match liveness() {
            None => check(name, Status::Ok, String::new()),
            Some(detail) => check(name, Status::Failed, detail),
        });
        let checks: Vec<Check> = checks.collect();
        Box::pin(async move { checks })
    })
}

/// The readiness probe. It fails until the role has started, if PostgreSQL does not answer, if this version cannot run on
/// its schema, if there are no keys to verify tokens with, or while the role drains. It is degraded if Redis is unavailable, refuses commands or may evict keys: that
/// makes processing slower and loses nothing.
pub(crate) fn ready_probe(
    store: Store,
    queue: Queue,
    gate: SchemaGate,
    tokens: Option<Verifier>,
    draining: CancellationToken,
) -> ProbeCheck {
    Arc::new(move || {
        let (store, queue, gate, draining) = (store.clone(), queue.clone(), gate.clone(), draining.clone());
        let no_keys = tokens.as_ref().and_then(Verifier::problem);
        let checks: BoxFuture<'static, Vec<Check>> = Box::pin(async move {
            let (postgresql, redis) = tokio::join!(check_postgresql(&store), check_redis(&store, &queue));
            let serving = if draining.is_cancelled() {
                check("serving", Status::Failed, "draining".into())
            } else if let Some(problem) = no_keys {
                check("serving", Status::Failed, problem)
            } else if !gate.is_open() {
                check("serving", Status::Failed, "waiting for the schema".into())
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

/// Reports what this process' own commands met first, because `INFO` succeeds where they fail.
async fn check_redis(store: &Store, queue: &Queue) -> Check {
    let settings = match queue.settings().await {
        Ok(settings) => settings,
        Err(error) => {
            return check("redis", Status::Degraded, format!("{error}: tasks are found by polling PostgreSQL"));
        }
    };
    let wrong = settings.iter().filter_map(|setting| {
        let RedisSetting { name, value, fix, .. } = setting;
        fix.map(|fix| format!("{name} is {value}: {fix}"))
    });
    let elsewhere = scheduler_uses_other_redis(store, queue).await.then(|| OTHER_REDIS.to_owned());
    let problems: Vec<String> = queue.health().problem().into_iter().chain(wrong).chain(elsewhere).collect();
    if !problems.is_empty() {
        return check("redis", Status::Degraded, problems.join("; "));
    }
    let unknown = settings
        .iter()
        .filter_map(|RedisSetting { name, value, note, .. }| note.map(|note| format!("{name} {value}: {note}")));
    check("redis", Status::Ok, unknown.collect::<Vec<_>>().join("; "))
}

/// What to do if [`scheduler_uses_other_redis`].
pub(crate) const OTHER_REDIS: &str = "the scheduler uses another Redis, database number or instance: give all roles the same PULSE_REDIS_URL and PULSE_INSTANCE";

/// Whether PostgreSQL knows that the scheduler publishes gauges, and this Redis does not have them.
pub(crate) async fn scheduler_uses_other_redis(store: &Store, queue: &Queue) -> bool {
    let Ok(Some(published)) = store.gauges_published_at().await else { return false };
    let Ok(seen) = queue.gauges_published_at_ms().await else { return false };
    let max_age = i64::try_from(GAUGES_MAX_AGE.as_millis()).unwrap_or(i64::MAX);
    seen.is_none_or(|at_ms| published.timestamp_millis() - at_ms > max_age)
}

fn check(name: &'static str, status: Status, detail: String) -> Check {
    Check { name, status, detail }
}

/// Maximum number of connections of one peer to the admin port: a quarter, so that one peer cannot keep out the probes.
const ADMIN_CONNECTIONS_PER_PEER: usize = 32;

/// The server for probes and metrics. It has its own listener, so that it answers while the role is busy or drains.
pub(crate) struct AdminServer {
    listener: TcpListener,
    live: ProbeCheck,
    ready: ProbeCheck,
    tls: Option<ServerTls>,
}

impl AdminServer {
    pub(crate) fn new(listener: TcpListener, live: ProbeCheck, ready: ProbeCheck, tls: Option<ServerTls>) -> Self {
        Self { listener, live, ready, tls }
    }

    /// Serves in the background until `shutdown`, which is cancelled when the role has ended.
    pub(crate) fn serve(self, registry: Registry, shutdown: CancellationToken) -> tokio::task::JoinHandle<()> {
        let Self { listener, live, ready, tls } = self;
        let config = ServerConfig {
            access_log: AccessLog::default(),
            tls,
            header_timeout: Duration::from_secs(5),
            body_idle_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            max_connections: 128,
            max_connections_per_peer: Some(ADMIN_CONNECTIONS_PER_PEER),
            max_in_flight: 64,
            max_body_bytes: 1024,
            memory_bytes: 16 * 1024 * 1024,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
        };
        // Requests for probes and metrics are not part of the API's HTTP metrics: this registry is not exported.
        let metrics = HttpMetrics::register(&mut Registry::default());
        let router = pulse_http::admin_router(Arc::new(registry), live, ready);
        let router = pulse_http::layered(router, metrics, &config, None);
        tokio::spawn(pulse_http::serve(listener, router, config, shutdown))
    }
}

/// A process with one role: its connections, probes and metrics.
pub(crate) struct RoleProcess {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) registry: Registry,
    pub(crate) admin_listen: SocketAddr,
    /// TLS of the listener for probes and metrics.
    pub(crate) tls: Option<ServerTls>,
    pub(crate) liveness: LivenessCheck,
    /// Verifies the tokens of requests; the role is not ready while this has no keys.
    pub(crate) tokens: Option<Verifier>,
    /// Opened by [`run`](Self::run).
    pub(crate) schema_gate: SchemaGate,
}

impl RoleProcess {
    /// Serves probes and metrics, waits for a schema that this version can run on, and then runs `role` until it ends
    /// after `shutdown`.
    ///
    /// A role that waits for the schema or drains counts as live, because a restart would not help.
    ///
    /// # Errors
    /// If the port for probes and metrics is in use, or its server panics.
    pub(crate) async fn run(self, shutdown: CancellationToken, role: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { name, store, queue, mut registry, admin_listen, tls, liveness, tokens, schema_gate } = self;
        let (gate, draining) = (schema_gate.clone(), shutdown.clone());
        let while_running: LivenessCheck = Arc::new(move || {
            let runs = gate.is_open() && !draining.is_cancelled();
            if runs { liveness() } else { None }
        });
        let live = live_probe(vec![(name, while_running)]);
        let ready = ready_probe(store.clone(), queue, schema_gate.clone(), tokens.clone(), shutdown.clone());
        let listener = listen(admin_listen, "--admin-listen")?;
        let ended = CancellationToken::new();
        let pool = store.clone();
        metrics::postgresql(&mut registry, move || pool.pool_use());
        let admin = AdminServer::new(listener, live, ready, tls).serve(registry, ended.clone());
        tracing::info!(role = name, "starting");
        tokio::select! {
            () = store.wait_for_schema() => schema_gate.open(),
            () = shutdown.cancelled() => {}
        }
        if let Some(tokens) = tokens {
            tokio::spawn(key_audit::run(store.clone(), tokens.used_keys(), name, shutdown));
        }
        role.await;
        ended.cancel();
        admin.await?;
        store.close().await;
        Ok(())
    }
}

/// Binds a listener. `[::]` is all addresses of both families, or those of IPv4 where the kernel has no IPv6.
///
/// # Errors
/// If the address cannot be bound. The error names `flag`, which sets the address.
pub(crate) fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = bind(address).or_else(|error| bind(ipv4_instead(address, &error).ok_or(error)?));
    bound.with_context(|| {
        format!(
            "cannot listen on {address}: stop the process that uses the port, or choose another address with {flag}"
        )
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    // Also after a restart, while connections of the last process are closing.
    socket.set_reuse_address(true)?;
    if is_any_ipv6(address) {
        // The default is a setting of the kernel.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Returns the address to use instead of `[::]` if the kernel has no IPv6.
fn ipv4_instead(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let without_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    let error = Errno::from_io_error(error).filter(|error| without_ipv6.contains(error) && is_any_ipv6(address));
    error.map(|_| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_uses_ipv4_only_where_the_kernel_has_no_ipv6() {
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 8000));
        let one: SocketAddr = "[::1]:8000".parse().expect("an address");
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000));
        for (address, error, expected) in [
            (any, Errno::AFNOSUPPORT, Some(ipv4)),
            (any, Errno::ADDRNOTAVAIL, Some(ipv4)),
            (any, Errno::ADDRINUSE, None),
            (one, Errno::AFNOSUPPORT, None),
            (ipv4, Errno::ADDRNOTAVAIL, None),
        ] {
            assert_eq!(ipv4_instead(address, &error.into()), expected, "{address}: {error}");
        }
    }
}
