//! The roles of `pulse dev`: API, worker and scheduler in one process.

use std::sync::Arc;

use pulse_metrics::{Registry, TaskMetrics};
use pulse_queue::Queue;
use pulse_scheduler::Retention;
use pulse_store::Store;
use pulse_worker::Processor;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::ProcessingArgs;
use crate::commands::api::Api;
use crate::roles;
use crate::story::ShopProcessor;

/// What the roles share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) registry: Registry,
    /// Name of the worker.
    pub(crate) worker: String,
}

/// The running roles, with the listener for probes and metrics.
pub(crate) struct Roles {
    api: JoinHandle<()>,
    worker: JoinHandle<()>,
    scheduler: JoinHandle<()>,
    admin: JoinHandle<()>,
    /// Stops worker and scheduler.
    after_api: CancellationToken,
    /// Stops the listener for probes and metrics.
    ended: CancellationToken,
}

impl Roles {
    /// Starts the roles. The API stops at `shutdown`.
    pub(crate) fn start(
        shared: Shared,
        (api, listener): (Api, TcpListener),
        (processing, processor): (&ProcessingArgs, Arc<dyn Processor>),
        admin_listener: TcpListener,
        shutdown: &CancellationToken,
    ) -> Self {
        let Shared { store, queue, mut registry, worker } = shared;
        let tasks = TaskMetrics::register(&mut registry);
        let processor = Arc::new(ShopProcessor(processor));
        let worker =
            roles::worker(worker, processing, store.clone(), queue.clone(), processor, &mut registry, tasks.clone());
        let scheduler =
            roles::scheduler(store.clone(), queue.clone(), &mut registry, tasks, Retention::default(), None);
        let (api_health, worker_health, scheduler_health) = (api.health.clone(), worker.health(), scheduler.health());
        let live = roles::live_probe(vec![
            ("api", Arc::new(move || api_health.problem())),
            ("worker", Arc::new(move || worker_health.problem())),
            ("scheduler", Arc::new(move || scheduler_health.problem())),
        ]);
        let ready = roles::ready_probe(store, queue, api.schema_gate.clone(), None, shutdown.clone());
        let (after_api, ended) = (CancellationToken::new(), CancellationToken::new());
        let admin = roles::AdminServer::new(admin_listener, live, ready, None).serve(registry, ended.clone());
        api.schema_gate.open();
        Self {
            api: tokio::spawn(api.serve(listener, shutdown.clone())),
            worker: tokio::spawn(worker.run(after_api.clone())),
            scheduler: tokio::spawn(scheduler.run(after_api.clone())),
            admin,
            after_api,
            ended,
        }
    }

    /// Waits until the API has stopped, and stops the others.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Self { api, worker, scheduler, admin, after_api, ended } = self;
        api.await?;
        // The worker stops after the API has drained, so that it still receives the last accepted tasks.
        after_api.cancel();
        worker.await?;
        scheduler.await?;
        ended.cancel();
        admin.await?;
        Ok(())
    }
}
