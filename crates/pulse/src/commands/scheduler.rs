//! `pulse scheduler`: the scheduler alone.

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::args::{AdminArgs, DatabaseArgs, IngestArgs, RedisArgs};
use crate::roles;

#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(crate) async fn run(args: SchedulerArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let SchedulerArgs { ingest, database, redis, admin } = args;
    let store = database.connect("scheduler")?;
    let queue = redis.connect(&ingest.ingest)?;
    let mut registry = roles::registry("scheduler");
    let scheduler = roles::scheduler(store.clone(), queue.clone(), &mut registry);
    let health = scheduler.health();
    let live = roles::live_probe(vec![("scheduler", Arc::new(move || health.problem()))]);
    let ready = roles::ready_probe(store.clone(), queue, shutdown.clone());
    let listener = roles::listen(admin.admin_listen, "--admin-listen").await?;
    let ended = CancellationToken::new();
    let admin = roles::Admin::new(listener, live, ready).serve(registry, ended.clone());
    tracing::info!("scheduler starting");
    tokio::select! {
        () = store.wait_for_schema() => {}
        () = shutdown.cancelled() => {}
    }
    scheduler.run(shutdown).await;
    ended.cancel();
    admin.await?;
    store.close().await;
    Ok(())
}
