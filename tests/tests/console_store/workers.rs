//! The registry of workers.

use pulse_store::Store;
use pulse_tests::{Process, TestEnv, eventually};

use crate::{TIMEOUT, store};

async fn is_listed_as(store: &Store, state: &str) -> anyhow::Result<bool> {
    let workers = store.workers().await?;
    Ok(workers.len() == 1 && workers[0].state == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_is_listed_from_its_start_to_its_end() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut worker = Process::start(&env, "worker", &["--concurrency", "3"]).await?;
    let store = store(&env)?;
    eventually("the worker is listed", TIMEOUT, async || is_listed_as(&store, "running").await).await?;
    let task = api.client("ada").post_event("sleep:1500").await?;
    env.wait_until_settled(TIMEOUT).await?;
    worker.stop().await?;
    let row = store.workers().await?.remove(0);
    assert_eq!((row.state.as_str(), row.concurrency, row.in_flight), ("stopped", 3, 0));
    assert!(row.last_claim_at.is_some() && row.completed_per_second > 0.0 && row.attempt_p95 > Some(1.0), "{row:?}");
    let detail = store.task_detail(None, task.parse()?).await?.expect("the task is there");
    assert_eq!(detail.worker.map(|worker| worker.name), Some(row.name));
    let names = store.event_names(pulse_store::console::Range::Hour, 10).await?;
    assert!(names.len() == 1 && names[0].event_name == "sleep:1500" && names[0].completed == 1, "{names:?}");

    sqlx::query("UPDATE workers SET state = 'running', seen_at = now() - interval '26 s'").execute(&env.db).await?;
    assert_eq!(store.workers().await?[0].state, "gone");
    assert_eq!(store.overview().await?.workers, 0);
    sqlx::query("UPDATE workers SET seen_at = now() - interval '61 minutes'").execute(&env.db).await?;
    store.expire_throughput().await?;
    assert!(store.workers().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_is_listed_as_draining_while_its_last_task_runs() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    let store = store(&env)?;
    api.client("ada").post_event("sleep:600000").await?;
    // A leased task that waits for a slot is returned, and the worker ends at once.
    let runs = async || Ok(store.workers().await?.iter().any(|worker| worker.running == 1));
    eventually("the task runs", TIMEOUT, runs).await?;
    worker.signal(rustix::process::Signal::TERM)?;
    eventually("the worker drains", TIMEOUT, async || is_listed_as(&store, "draining").await).await
}
