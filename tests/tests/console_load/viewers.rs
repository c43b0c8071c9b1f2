//! Viewers of live figures while events are accepted.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use pulse_tests::{Process, TestEnv, cpu_seconds, eventually, load, report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::{TIMEOUT, cookie, print, run};

const VIEWERS: usize = 200;
/// As in the console.
const MAX_VIEWERS: usize = 256;
/// Events per second.
const RATE: u32 = 500;
/// Pairs of phases without and with viewers, of which the best of each count. There are more while these differ, because
/// other processes use the machine, too: a real difference stays. Latencies of a busy machine say nothing, so the short form
/// compares statements and CPU time only.
const ROUNDS: RangeInclusive<usize> = if cfg!(feature = "long") { 2..=10 } else { 1..=1 };
/// CPU time of the console with all viewers, in cores; in a debug build.
const CONSOLE_CORES: f64 = 0.2;
const PHASE_SECONDS: u32 = if cfg!(feature = "long") { 20 } else { 4 };
/// Time with viewers after these phases.
const STEADY_SECONDS: u32 = if cfg!(feature = "long") { 600 } else { 8 };
/// Growth of the console's memory in that time, in bytes.
const GROWTH: u64 = 8 << 20;

/// Asks for a stream, with a small buffer for what was not read.
async fn ask(console: &Process, part: &str) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(console.address().parse()?).await?;
    let request = format!("GET /live/{part} HTTP/1.1\r\nhost: a\r\ncookie: {}\r\n\r\n", cookie());
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// The beginning of the answer.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut buffer = vec![0; 1024];
    let read = tokio::time::timeout(TIMEOUT, stream.read(&mut buffer)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// Viewers that read all, and connect again after the end of a stream.
struct Viewers {
    _tasks: JoinSet<()>,
    /// What each has read.
    bytes: Vec<Arc<AtomicU64>>,
}

impl Viewers {
    async fn start(console: &Process) -> anyhow::Result<Self> {
        let (mut tasks, mut all) = (JoinSet::new(), Vec::new());
        for part in ["overview", "events", "states"].into_iter().cycle().take(VIEWERS) {
            let (mut stream, bytes) = (ask(console, part).await?, Arc::<AtomicU64>::default());
            all.push(bytes.clone());
            tasks.spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        let has_read = |bytes: &Arc<AtomicU64>| bytes.load(Ordering::Relaxed) > 0;
        eventually("each viewer gets figures", TIMEOUT, async || Ok(all.iter().all(has_read))).await?;
        Ok(Self { _tasks: tasks, bytes: all })
    }

    fn read(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

/// A load run's 99th percentile, in ms. All events are accepted.
async fn p99(env: &TestEnv, api: &Process, seconds: u32) -> anyhow::Result<f64> {
    let report = report(load(env, api, RATE, seconds)?).await?;
    let accepted = report["accepted_events"].as_f64().unwrap_or_default();
    anyhow::ensure!(accepted >= 0.95 * f64::from(RATE * seconds), "{report}");
    report["p99_ms"].as_f64().with_context(|| report.to_string())
}

/// Statements of the console so far.
async fn statements(env: &TestEnv) -> anyhow::Result<i64> {
    env.number("SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE userid = 'console'::regrole").await
}

/// A console with its own role in PostgreSQL, whose statements are counted.
async fn started() -> anyhow::Result<(TestEnv, Process)> {
    let counted = "shared_preload_libraries=pg_stat_statements";
    let env = TestEnv::with_servers(|postgres| postgres.with_setting(counted), |redis| redis).await?;
    env.migrate().await?;
    run(&env, "CREATE EXTENSION pg_stat_statements; CREATE ROLE console LOGIN SUPERUSER").await?;
    let (before, after) = env.database_url.split_once('@').context("a URL with a user")?;
    let url = format!("{}//console@{after}", before.split_once("//").context("a URL")?.0);
    let console = Process::start(&env, "console", &["--database-url", &url]).await?;
    Ok((env, console))
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_do_not_slow_accepting_down_and_cost_no_statement() -> anyhow::Result<()> {
    let (env, console) = started().await?;
    let api = Process::start(&env, "api", &[]).await?;
    p99(&env, &api, 2).await?;
    let (mut alone, mut crowded) = (f64::MAX, f64::MAX);
    let (mut statements_alone, mut statements_crowded) = (i64::MAX, i64::MAX);
    let mut cores = f64::MAX;
    let pid = console.pid().context("the console runs")?;
    let is_close = |alone: f64, crowded: f64| !cfg!(feature = "long") || crowded <= (1.2 * alone).max(alone + 10.0);
    for round in 0..*ROUNDS.end() {
        if round >= *ROUNDS.start() && is_close(alone, crowded) {
            break;
        }
        let before = statements(&env).await?;
        alone = alone.min(p99(&env, &api, PHASE_SECONDS).await?);
        statements_alone = statements_alone.min(statements(&env).await? - before);
        let viewers = Viewers::start(&console).await?;
        let (before, cpu, started) = (statements(&env).await?, cpu_seconds(pid)?, Instant::now());
        crowded = crowded.min(p99(&env, &api, PHASE_SECONDS).await?);
        cores = cores.min((cpu_seconds(pid)? - cpu) / started.elapsed().as_secs_f64());
        statements_crowded = statements_crowded.min(statements(&env).await? - before);
        drop(viewers);
    }
    print(&format!(
        "{RATE} events/s: p99 {alone} ms without viewers, {crowded} ms with {VIEWERS}; statements of the console in \
         {PHASE_SECONDS} s: {statements_alone} and {statements_crowded}; {cores:.2} cores"
    ));
    assert!(cores < CONSOLE_CORES, "the console uses {cores:.2} cores");
    assert!(is_close(alone, crowded), "p99 {alone} ms without viewers, {crowded} ms with them");
    assert!(statements_alone > 0 && statements_crowded < 2 * statements_alone + 10, "viewers cost statements");

    let viewers = Viewers::start(&console).await?;
    p99(&env, &api, STEADY_SECONDS / 4).await?;
    let (memory, read) = (console.memory()?, viewers.read());
    p99(&env, &api, STEADY_SECONDS - STEADY_SECONDS / 4).await?;
    let (later, bytes) = (console.memory()?, viewers.read() - read);
    print(&format!("the console has {memory} bytes with {VIEWERS} viewers, and {later} after {STEADY_SECONDS} s"));
    assert!(bytes > 100_000, "the viewers got only {bytes} bytes");
    assert!(later < memory + GROWTH, "memory grows: {memory}, then {later} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_gone_viewers_are_dropped_and_the_257th_is_refused() -> anyhow::Result<()> {
    let (env, console) = started().await?;
    // Many workers make large frames, which fill the buffers of the kernel soon.
    run(
        &env,
        "INSERT INTO workers (name, version, state, concurrency, running, in_flight, seen_at)
         SELECT 'worker ' || n, '1', 'running', 64, n % 64, n, now() + interval '1 day' FROM generate_series(1, 200) AS n",
    )
    .await?;
    let full = async || {
        let mut viewers = Vec::new();
        for _ in 0..MAX_VIEWERS {
            let mut viewer = ask(&console, "workers").await?;
            let head = answer(&mut viewer).await?;
            anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "viewer {}: {head}", viewers.len());
            viewers.push(viewer);
        }
        anyhow::Ok(viewers)
    };
    let gone = full().await?;
    let refused = answer(&mut ask(&console, "workers").await?).await?;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("256 pages are live already"), "{refused}");
    assert!(refused.contains("retry-after: 30"), "{refused}");
    let page = super::Browser::new(&console).get("/workers").await?;
    assert!(page.status == 200 && page.text.contains("This page is not live"), "{}", page.text);
    drop(gone);
    let mut slow = Vec::new();
    eventually("gone viewers leave their places", TIMEOUT, async || {
        if slow.is_empty() {
            slow = full().await?;
        }
        Ok(true)
    })
    .await?;
    let before = console.memory()?;
    let dropped = async || Ok(answer(&mut ask(&console, "workers").await?).await?.starts_with("HTTP/1.1 200"));
    eventually("a viewer that does not read is dropped", Duration::from_secs(90), dropped).await?;
    let after = console.memory()?;
    print(&format!("{MAX_VIEWERS} viewers that do not read: {before} bytes at first, {after} when one is dropped"));
    assert!(after < before + (64 << 20), "{before}, then {after} bytes");
    Ok(())
}
