//! `pulse operator`: reconciles every `PulseIngest` of a namespace or of the cluster.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::future::BoxFuture;
use pulse_http::{Check, ProbeCheck, Status};
use pulse_operator::{Intervals, Kubernetes, LeaseConfig, Operator, OperatorConfig, OperatorHealth, OperatorMetrics};
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, duration};
use crate::reload::ReloadArgs;
use crate::roles::{self, Admin};

#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Look after this namespace alone; after all of them, if not given
    #[arg(long, env = "PULSE_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    watch_namespace: Option<String>,
    /// Where the Lease and the key of digests are: the operator's own namespace, if not given
    #[arg(long, env = "PULSE_OPERATOR_NAMESPACE", value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// The Lease that one of several operators holds
    #[arg(long, env = "PULSE_LEASE_NAME", default_value = "pulse-operator")]
    lease_name: String,
    /// A holder that does not renew the Lease for this long has lost it; it writes until two thirds of that
    #[arg(long, env = "PULSE_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// Between two looks at a Redis queue
    #[arg(long, env = "PULSE_POLL_INTERVAL", default_value = "10s", value_parser = duration)]
    poll_interval: Duration,
    /// How long until Secrets are read again, and everything is looked at
    #[arg(long, env = "PULSE_RESYNC_INTERVAL", default_value = "60s", value_parser = duration)]
    resync_interval: Duration,
    /// Between two looks for a missing Secret
    #[arg(long, env = "PULSE_MISSING_INTERVAL", default_value = "5s", value_parser = duration)]
    missing_interval: Duration,
    /// How long a watch lasts, in seconds: less than the idle time-outs of load balancers on the way
    #[arg(long, env = "PULSE_WATCH_TIMEOUT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=290))]
    watch_timeout: u32,
    /// A Secret that lets nodes pull images, for every pod besides those that its object names; in each namespace
    #[arg(long = "pull-secret", env = "PULSE_PULL_SECRETS", value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pull_secrets: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: OperatorArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let OperatorArgs {
        watch_namespace,
        operator_namespace,
        lease_name,
        lease_duration,
        poll_interval,
        resync_interval,
        missing_interval,
        watch_timeout,
        pull_secrets,
        admin: AdminArgs { admin_listen },
        reload: ReloadArgs { dev_reload },
    } = args;
    let kubernetes = Kubernetes::infer().await?;
    let config = OperatorConfig {
        namespace: watch_namespace,
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
            missing: missing_interval,
            poll: poll_interval,
            ..Intervals::default()
        },
        watch_timeout_seconds: watch_timeout,
        pull_secrets,
        dev_reload,
    };
    let mut registry = roles::registry("operator");
    let operator = Operator::new(config, kubernetes, OperatorMetrics::register(&mut registry));
    let health = operator.health();
    let live = roles::live_probe(vec![("operator", problem(health.clone()))]);
    let listener = roles::listen(admin_listen, "--admin-listen").await?;
    let ended = CancellationToken::new();
    let admin = Admin::new(listener, live, ready_probe(health)).serve(registry, ended.clone());
    tracing::info!(role = "operator", "starting");
    let result = operator.run(shutdown).await;
    ended.cancel();
    admin.await?;
    Ok(result?)
}

fn problem(health: OperatorHealth) -> roles::Problem {
    Arc::new(move || health.problem())
}

/// Ready if it leads, or could at once.
fn ready_probe(health: OperatorHealth) -> ProbeCheck {
    Arc::new(move || {
        let check = if health.is_ready() {
            Check { name: "caches", status: Status::Ok, detail: String::new() }
        } else {
            Check { name: "caches", status: Status::Failed, detail: "not every kind was listed yet".into() }
        };
        let checks: BoxFuture<'static, Vec<Check>> = Box::pin(async move { vec![check] });
        checks
    })
}
