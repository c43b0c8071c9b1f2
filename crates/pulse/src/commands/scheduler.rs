//! `pulse scheduler`: runs the scheduler.

use std::sync::Arc;

use clap::Args;
use pulse_metrics::TaskMetrics;
use tokio_util::sync::CancellationToken;

use crate::archive_args::ArchiveArgs;
use crate::args::{AdminArgs, DatabaseArgs, InstanceArgs, RedisArgs, SMALL_POOL, TlsArgs};
use crate::metrics;
use crate::reload::ReloadArgs;
use crate::retention_args::RetentionArgs;
use crate::roles::{self, RoleProcess};
use crate::schema_gate::SchemaGate;

#[derive(Debug, Args)]
#[command(mut_arg("database_max_connections", |arg| arg.default_value(SMALL_POOL)))]
pub(crate) struct SchedulerArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(args: SchedulerArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let SchedulerArgs { instance, database, redis, admin, retention, archive, tls, reload: _ } = args;
    let AdminArgs { admin_listen } = admin;
    let store = database.connect("scheduler")?;
    let queue = redis.connect(&instance.instance)?;
    let archive = archive.open(&store, &instance.instance)?;
    let mut registry = metrics::registry("scheduler");
    let tasks = TaskMetrics::register(&mut registry);
    let scheduler = roles::scheduler(store.clone(), queue.clone(), &mut registry, tasks, retention.into(), archive);
    let health = scheduler.health();
    let liveness = Arc::new(move || health.problem());
    let role = RoleProcess {
        name: "scheduler",
        store,
        queue,
        registry,
        admin_listen,
        tls: tls.server(None)?,
        liveness,
        tokens: None,
        schema_gate: SchemaGate::default(),
    };
    role.run(shutdown.clone(), scheduler.run(shutdown)).await
}
