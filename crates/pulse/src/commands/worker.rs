//! `pulse worker`: runs a worker.

use std::sync::Arc;

use clap::Args;
use pulse_metrics::TaskMetrics;
use pulse_worker::Processor;
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, DatabaseArgs, InstanceArgs, ProcessingArgs, RedisArgs, SMALL_POOL, TlsArgs};
use crate::metrics;
use crate::reload::ReloadArgs;
use crate::roles::{self, RoleProcess};
use crate::schema_gate::SchemaGate;

#[derive(Debug, Args)]
#[command(mut_arg("database_max_connections", |arg| arg.default_value(SMALL_POOL)))]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    processing: ProcessingArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    pub(crate) reload: ReloadArgs,
}

pub(crate) async fn run(
    args: WorkerArgs,
    processor: Arc<dyn Processor>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let WorkerArgs { instance, database, redis, processing, admin: AdminArgs { admin_listen }, tls, reload: _ } = args;
    let name = roles::process_name();
    let store = database.connect(&roles::session_name("worker", &name))?;
    let queue = redis.connect(&instance.instance)?;
    let mut registry = metrics::registry("worker");
    let tasks = TaskMetrics::register(&mut registry);
    let worker = roles::worker(name, &processing, store.clone(), queue.clone(), processor, &mut registry, tasks);
    let health = worker.health();
    let liveness = Arc::new(move || health.problem());
    let role = RoleProcess {
        name: "worker",
        store,
        queue,
        registry,
        admin_listen,
        tls: tls.server(None)?,
        liveness,
        tokens: None,
        schema_gate: SchemaGate::default(),
    };
    role.run(shutdown.clone(), worker.run(shutdown)).await
}
