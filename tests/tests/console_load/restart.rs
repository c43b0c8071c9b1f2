//! A restart of everything loses no history.

use std::time::Duration;

use pulse_store::console::{Point, Range, TaskDetail};
use pulse_store::{Store, StoreConfig};
use pulse_tests::{Process, TestEnv, eventually};

use super::{Browser, TIMEOUT};

fn store(env: &TestEnv) -> anyhow::Result<Store> {
    let url = env.database_url.clone();
    let config = StoreConfig {
        url,
        url_again: None,
        ca: None,
        identity: None,
        max_connections: 2,
        application_name: "test".into(),
    };
    Ok(Store::connect_lazy(&config)?)
}

/// What the console shows of the past.
#[derive(Debug, PartialEq)]
struct History {
    accepted_events: i64,
    completed_events: i64,
    /// Accepted, completed, failed, retried and dead in each range.
    sums: [[i64; 5]; 3],
    /// Number of durations of attempts and of completions in each range.
    durations: [[i64; 2]; 3],
    attempts: Vec<String>,
}

fn attempts(detail: &TaskDetail) -> String {
    format!("{} {} {:?} {:?}", detail.task.id, detail.task.state, detail.task.errors.0, detail.task.settled_at)
}

async fn history(store: &Store, tasks: &[String]) -> anyhow::Result<History> {
    let now = store.overview().await?;
    let (mut sums, mut durations) = ([[0; 5]; 3], [[0; 2]; 3]);
    for range in [Range::Hour, Range::Day, Range::Week] {
        let points = store.series(range).await?.points;
        let sum = |of: fn(&Point) -> i64| points.iter().map(of).sum::<i64>();
        sums[range as usize] = [
            sum(|point| point.accepted_events),
            sum(|point| point.completed_events),
            sum(|point| point.failed),
            sum(|point| point.retried),
            sum(|point| point.dead),
        ];
        durations[range as usize] = [sum(|point| point.attempt.count), sum(|point| point.completion.count)];
    }
    let mut known = Vec::new();
    for task in tasks {
        known.extend(store.task_detail(None, task.parse()?).await?.as_ref().map(attempts));
    }
    Ok(History {
        accepted_events: now.accepted_events_total,
        completed_events: now.completed_events_total,
        sums,
        durations,
        attempts: known,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn history_survives_the_restart_of_every_process_and_server() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "2"]).await?;
    let mut processes = Vec::new();
    for role in ["worker", "scheduler", "console"] {
        processes.push(Process::start(&env, role, &[]).await?);
    }
    let client = api.client("ada");
    let mut tasks = Vec::new();
    for name in ["good", "fail", "invalid", "good"] {
        tasks.push(client.post_event(name).await?);
    }
    env.wait_until_settled(TIMEOUT).await?;
    let store_before = store(&env)?;
    let before = history(&store_before, &tasks).await?;
    assert_eq!((before.accepted_events, before.completed_events, before.attempts.len()), (4, 2, 4));
    assert_eq!(before.sums[0], [4, 2, 3, 1, 2], "accepted, completed, failed, retried, dead");
    store_before.close().await;
    for process in processes.drain(..).chain([api]) {
        process.kill().await?;
    }
    env.kill_and_wipe_redis().await?;
    env.crash_postgres().await?;
    env.start_postgres().await?;
    env.start_redis().await?;
    let mut console = None;
    for role in ["api", "worker", "scheduler", "console"] {
        let process = Process::start(&env, role, &[]).await?;
        match role {
            "console" => console = Some(process),
            _ => processes.push(process),
        }
    }
    let folded = async || Ok(env.number("SELECT count(*) FROM jobs WHERE name = 'fold_throughput'").await? == 1);
    eventually("the scheduler runs its jobs", TIMEOUT, folded).await?;
    assert_eq!(history(&store(&env)?, &tasks).await?, before);
    let console = console.ok_or_else(|| anyhow::anyhow!("no console"))?;
    let browser = Browser::new(&console);
    for task in &tasks {
        let page = browser.get(&format!("/tasks/{task}")).await?;
        assert_eq!(page.status, 200, "{}", page.text);
    }
    let charts = async || Ok(browser.get("/").await?.text.contains("<svg class=\"plot\""));
    eventually("the charts are back", Duration::from_secs(20), charts).await?;
    Ok(())
}
