//! Live figures: read once per second, for any number of viewers.

use std::time::Duration;

use anyhow::Context;
use pulse_tests::{Client, Process, TestEnv, eventually, token};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{ADMIN, started};

pub(crate) async fn viewer(console: &Process) -> anyhow::Result<BufReader<TcpStream>> {
    viewer_of(console, "overview").await
}

async fn viewer_of(console: &Process, part: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let mut stream = console.connect().await?;
    let cookie = format!("pulse_console={}", token("ops", Some(ADMIN)));
    let request = format!("GET /live/{part} HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(BufReader::new(stream))
}

async fn next_frame(viewer: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let read = async {
        loop {
            let mut line = String::new();
            anyhow::ensure!(viewer.read_line(&mut line).await? > 0, "the stream ended");
            if line.starts_with("data: ") {
                return Ok(line);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.context("no frame in 10 s")?
}

/// Number of transactions of the console so far.
async fn transactions(env: &TestEnv) -> anyhow::Result<i64> {
    env.number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").await
}

/// Transactions while the first viewer gets six frames.
async fn transactions_of_six_frames(env: &TestEnv, viewer: &mut BufReader<TcpStream>) -> anyhow::Result<i64> {
    next_frame(viewer).await?;
    let before = transactions(env).await?;
    for _ in 0..6 {
        next_frame(viewer).await?;
    }
    Ok(transactions(env).await? - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_share_the_figures_and_are_bounded() -> anyhow::Result<()> {
    let (env, mut console) = started(&[]).await?;
    let mut first = viewer(&console).await?;
    assert!(next_frame(&mut first).await?.contains("Accepted"));
    let alone = transactions_of_six_frames(&env, &mut first).await?;
    let mut others = Vec::new();
    for _ in 0..255 {
        let mut other = viewer(&console).await?;
        next_frame(&mut other).await?;
        others.push(other);
    }
    // PostgreSQL counts late, so the look-ups of the users who just came may still be in the first figures.
    let crowded = async || Ok(transactions_of_six_frames(&env, &mut first).await? < 2 * alone + 20);
    eventually("256 viewers cost what one costs", Duration::from_secs(40), crowded).await?;
    let mut refused = String::new();
    viewer(&console).await?.read_line(&mut refused).await?;
    assert!(refused.contains("503"), "{refused}");
    assert_eq!(console.stop().await?, 0, "the streams end with the role");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_once_for_all_filters_and_only_while_they_are_watched() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (ada, bob) = (Client::new(&api.url, &token("ada", None)), Client::new(&api.url, &token("bob", None)));
    ada.post_event("old").await?;
    bob.post_event("old").await?;
    let mut overview = viewer(&console).await?;
    let unwatched = transactions_of_six_frames(&env, &mut overview).await?;
    let mut viewers = Vec::new();
    for part in 0..60 {
        let filter = if part % 2 == 0 { "q=user:ada" } else { "q=user:bob%20event:paid" };
        let mut viewer = viewer_of(&console, &format!("events?{filter}")).await?;
        let first = next_frame(&mut viewer).await?;
        assert_eq!(first.contains(">old<"), part % 2 == 0, "{first}");
        viewers.push(viewer);
    }
    ada.post_event("sent").await?;
    bob.post_event("paid").await?;
    bob.post_event("sent").await?;
    for (part, viewer) in viewers.iter_mut().enumerate() {
        let (wanted, other) = if part % 2 == 0 { (">sent<", ">paid<") } else { (">paid<", ">sent<") };
        let mut frame = next_frame(viewer).await?;
        while !frame.contains(wanted) {
            frame = next_frame(viewer).await?;
        }
        assert!(!frame.contains(other), "{frame}");
    }
    let crowded = async || Ok(transactions_of_six_frames(&env, &mut overview).await? < 2 * unwatched + 20);
    eventually("60 viewers cost what one costs", Duration::from_secs(40), crowded).await?;
    let denied = viewer_of(&console, "nothing").await?.lines().next_line().await?.unwrap_or_default();
    assert!(denied.contains("404"), "{denied}");
    Ok(())
}
