//! `pulse worker`: the worker alone.

use std::sync::Arc;

use clap::Args;
use pulse_worker::Processor;
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, DatabaseArgs, IngestArgs, ProcessingArgs, RedisArgs};
use crate::roles;

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    processing: ProcessingArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(crate) async fn run(
    args: WorkerArgs,
    processor: Arc<dyn Processor>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let WorkerArgs { ingest, database, redis, processing, admin } = args;
    let store = database.connect("worker")?;
    let queue = redis.connect(&ingest.ingest)?;
    let mut registry = roles::registry("worker");
    let worker = roles::worker(&processing, store.clone(), queue.clone(), processor, &mut registry);
    let health = worker.health();
    let live = roles::live_probe(vec![("worker", Arc::new(move || health.problem()))]);
    let ready = roles::ready_probe(store.clone(), queue, shutdown.clone());
    let listener = roles::listen(admin.admin_listen, "--admin-listen").await?;
    let ended = CancellationToken::new();
    let admin = roles::Admin::new(listener, live, ready).serve(registry, ended.clone());
    tracing::info!("worker starting");
    tokio::select! {
        () = store.wait_for_schema() => {}
        () = shutdown.cancelled() => {}
    }
    worker.run(shutdown).await;
    ended.cancel();
    admin.await?;
    store.close().await;
    Ok(())
}
