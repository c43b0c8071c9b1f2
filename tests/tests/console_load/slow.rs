//! A PostgreSQL that is slow, locked, frozen or away: pages answer with the last figures and their age.

use std::time::{Duration, Instant};

use anyhow::Context;
use pulse_tests::{Process, TestEnv, eventually};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Browser, TIMEOUT, cookie, run};

/// Maximum number of connections of a console: 4 for pages, 2 for users and the pause, 2 for the live figures.
const CONNECTIONS: i64 = 8;
/// Time limit of the overview, which has no query but the look-up of the user, with its limit of 1 s.
const PROMPT: Duration = Duration::from_secs(3);

struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(console: &Process) -> anyhow::Result<Self> {
        let mut stream = console.connect().await?;
        let request = format!("GET /live/overview HTTP/1.1\r\nhost: a\r\ncookie: {}\r\n\r\n", cookie());
        stream.write_all(request.as_bytes()).await?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Waits for a frame with this text; each frame arrives within 5 s.
    async fn shows(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let mut line = String::new();
            let read = tokio::time::timeout(Duration::from_secs(5), self.0.read_line(&mut line)).await;
            anyhow::ensure!(read.context("no frame in 5 s")?? > 0, "the stream ended");
            if line.contains(text) {
                return Ok(());
            }
        }
        anyhow::bail!("no frame shows `{text}`")
    }
}

/// The overview answers at once, and says how old its figures are.
async fn overview_is_old(browser: &Browser, why: &str) -> anyhow::Result<()> {
    let (page, time) = browser.timed("/").await?;
    let text = &page.text;
    assert!(page.status == 200 && text.contains(why) && text.contains(" old<"), "{}: {text}", page.status);
    assert!(text.contains("Accepted") && time < PROMPT, "{time:?}");
    Ok(())
}

async fn started() -> anyhow::Result<(TestEnv, Process, Stream)> {
    let env = TestEnv::start().await?;
    let console = Process::start(&env, "console", &[]).await?;
    let mut stream = Stream::open(&console).await?;
    stream.shows("Live ").await?;
    Ok((env, console, stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_postgres_leaves_old_figures_and_connections_for_the_api() -> anyhow::Result<()> {
    let (env, console, mut stream) = started().await?;
    let api = Process::start(&env, "api", &[]).await?;
    // Reads of these tables take 2 s each.
    run(
        &env,
        "INSERT INTO gauges VALUES (true, now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, now());
         INSERT INTO workers (name, version, state, concurrency, running, in_flight) VALUES ('a', '1', 'running', 1, 0, 0);
         ALTER TABLE gauges RENAME TO fast_gauges;
         CREATE VIEW gauges AS SELECT fast_gauges.* FROM fast_gauges, pg_sleep(2);
         ALTER TABLE workers RENAME TO fast_workers;
         CREATE VIEW workers AS SELECT fast_workers.* FROM fast_workers, pg_sleep(2);",
    )
    .await?;
    stream.shows("PostgreSQL answers slowly: figures of ").await?;
    let browser = Browser::new(&console);
    let mut pages = Vec::new();
    for _ in 0..40 {
        let browser = Browser::new(&console);
        pages.push(tokio::spawn(async move { browser.get("/queue").await.map(|page| page.status) }));
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pulse console%'";
    let busy = async || Ok(env.number(count).await? >= CONNECTIONS - 2);
    eventually("the pages use the pool", TIMEOUT, busy).await?;
    for name in ["a", "b", "c"] {
        let started = Instant::now();
        api.client("ada").post_event(name).await?;
        assert!(started.elapsed() < PROMPT, "an event took {:?}", started.elapsed());
        let (page, time) = browser.timed("/").await?;
        assert!(page.status == 200 && time < PROMPT, "the overview took {time:?}");
        let connections = env.number(count).await?;
        assert!(connections <= CONNECTIONS, "{connections} connections");
    }
    for page in pages {
        let status = page.await??;
        assert!([200, 503].contains(&status), "{status}");
    }
    run(
        &env,
        "DROP VIEW gauges; ALTER TABLE fast_gauges RENAME TO gauges; DROP VIEW workers;
         ALTER TABLE fast_workers RENAME TO workers;",
    )
    .await?;
    stream.shows("Live ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_table_leaves_old_figures() -> anyhow::Result<()> {
    let (env, console, mut stream) = started().await?;
    let mut lock = env.db.begin().await?;
    sqlx::query("LOCK TABLE throughput IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    stream.shows("PostgreSQL does not answer: figures of ").await?;
    overview_is_old(&Browser::new(&console), "PostgreSQL ").await?;
    lock.rollback().await?;
    stream.shows("Live ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_and_absent_postgres_leave_old_figures() -> anyhow::Result<()> {
    let (mut env, console, mut stream) = started().await?;
    let browser = Browser::new(&console);
    let frozen = env.freeze_postgres()?;
    // Slowly, or not at all if the frozen server was to answer a ping, which has 2 s.
    stream.shows(": figures of ").await?;
    overview_is_old(&browser, "PostgreSQL ").await?;
    drop(frozen);
    stream.shows("Live ").await?;
    env.crash_postgres().await?;
    stream.shows("PostgreSQL does not answer: figures of ").await?;
    overview_is_old(&browser, "PostgreSQL does not answer").await?;
    let tasks = browser.get("/tasks").await?;
    assert!(tasks.status == 503 && tasks.text.contains("PostgreSQL is away"), "{}: {}", tasks.status, tasks.text);
    let (workers, time) = browser.timed("/workers").await?;
    assert!(workers.status == 200 && time < PROMPT, "{}: {time:?}", workers.status);
    env.start_postgres().await?;
    stream.shows("Live ").await
}
