//! `pulse operator`: reconciles the `PulseIngest` objects of some namespaces or of the cluster.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::future::BoxFuture;
use pulse_http::{Check, ProbeCheck, Status};
use pulse_operator::scaling::AllowedHosts;
use pulse_operator::{Intervals, Kubernetes, LeaseConfig, Operator, OperatorConfig, OperatorHealth, OperatorMetrics};
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, duration};
use crate::metrics;
use crate::reload::ReloadArgs;
use crate::roles::{self, AdminServer};

#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Namespace to watch; repeat it for more than one. Defaults to all namespaces
    #[arg(
        long = "watch-namespace",
        env = "PULSE_WATCH_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    watch_namespaces: Vec<String>,
    /// Namespace of the Lease and of the Secret with the digest key; defaults to the namespace of the operator's pod
    #[arg(long, env = "PULSE_OPERATOR_NAMESPACE", value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// Name of the Lease for leader election
    #[arg(long, env = "PULSE_LEASE_NAME", default_value = "pulse-operator")]
    lease_name: String,
    /// Duration of the Lease. The leader stops writing if it has not renewed the Lease for two thirds of it
    #[arg(long, env = "PULSE_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// Interval at which the depth of each Redis queue is read
    #[arg(long, env = "PULSE_POLL_INTERVAL", default_value = "10s", value_parser = duration)]
    poll_interval: Duration,
    /// Interval at which every object is reconciled, and its Secrets are read again if --secret-reads-per-second allows
    #[arg(long, env = "PULSE_RESYNC_INTERVAL", default_value = "60s", value_parser = duration)]
    resync_interval: Duration,
    /// Maximum number of Secrets that are read per second, for all objects together: with many objects, each one's are
    /// read less often. Does not apply while a Secret is missing or a pod is not ready
    #[arg(
        long,
        env = "PULSE_SECRET_READS_PER_SECOND",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    secret_reads_per_second: u32,
    /// Maximum number of objects whose pods are replaced or whose schema is migrated at once; the others wait. Defaults
    /// to no limit
    #[arg(
        long,
        env = "PULSE_MAX_CONCURRENT_ROLLOUTS",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_concurrent_rollouts: Option<u32>,
    /// Interval at which a missing Secret is read again
    #[arg(long, env = "PULSE_MISSING_INTERVAL", default_value = "5s", value_parser = duration)]
    missing_interval: Duration,
    /// Duration of a watch request, in seconds; keep it below the idle time-outs of load balancers
    #[arg(
        long,
        env = "PULSE_WATCH_TIMEOUT",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(2..=290)
    )]
    watch_timeout: u32,
    /// Name of an image pull Secret for every pod, in addition to those of the object; it has to exist in each
    /// namespace
    #[arg(
        long = "pull-secret",
        env = "PULSE_PULL_SECRETS",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pull_secrets: Vec<String>,
    /// Host of Redis that the operator may connect to, to read the depth of queues: a name, an address, or `*.` and the
    /// end of names, such as `*.svc`; defaults to all. A host without a dot counts as `HOST.NAMESPACE.svc`
    #[arg(
        long = "redis-allowed-host",
        env = "PULSE_REDIS_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    redis_allowed_hosts: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: OperatorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let OperatorArgs {
        mut watch_namespaces,
        operator_namespace,
        lease_name,
        lease_duration,
        poll_interval,
        resync_interval,
        secret_reads_per_second,
        max_concurrent_rollouts,
        missing_interval,
        watch_timeout,
        pull_secrets,
        redis_allowed_hosts,
        admin: AdminArgs { admin_listen },
        reload,
    } = args;
    watch_namespaces.sort();
    watch_namespaces.dedup();
    let kubernetes = Kubernetes::infer().await?;
    let config = OperatorConfig {
        namespaces: watch_namespaces,
        lease: LeaseConfig {
            namespace: operator_namespace.unwrap_or_else(|| kubernetes.namespace().to_owned()),
            name: lease_name,
            identity: roles::process_name(),
            duration: lease_duration,
            renew_deadline: lease_duration * 2 / 3,
            retry: lease_duration * 2 / 15,
        },
        intervals: Intervals {
            secrets: resync_interval,
            secret_reads_per_second,
            missing: missing_interval,
            poll: poll_interval,
            ..Intervals::default()
        },
        watch_timeout_seconds: watch_timeout,
        max_concurrent_rollouts: max_concurrent_rollouts.map(|number| number as usize),
        pull_secrets,
        redis_allowed_hosts: AllowedHosts::new(redis_allowed_hosts),
        dev_reload: reload.file(),
    };
    let mut registry = metrics::registry("operator");
    let operator = Operator::new(config, kubernetes, OperatorMetrics::register(&mut registry));
    let health = operator.health();
    let live = roles::live_probe(vec![("operator", liveness(health.clone()))]);
    let listener = roles::listen(admin_listen, "--admin-listen")?;
    let ended = CancellationToken::new();
    let admin = AdminServer::new(listener, live, ready_probe(health), None).serve(registry, ended.clone());
    tracing::info!(role = "operator", "starting");
    let result = operator.run(shutdown).await;
    ended.cancel();
    admin.await?;
    Ok(result?)
}

fn liveness(health: OperatorHealth) -> roles::LivenessCheck {
    Arc::new(move || health.problem())
}

/// Ready when all caches are filled, so that this replica leads or could lead at once.
fn ready_probe(health: OperatorHealth) -> ProbeCheck {
    Arc::new(move || {
        let check = if health.is_ready() {
            Check { name: "caches", status: Status::Ok, detail: String::new() }
        } else {
            Check { name: "caches", status: Status::Failed, detail: "not all kinds of objects are listed yet".into() }
        };
        let checks: BoxFuture<'static, Vec<Check>> = Box::pin(async move { vec![check] });
        checks
    })
}
