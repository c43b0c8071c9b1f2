//! What one client keeps in the memory of an API in a container: the API stays below its limit, and other users do not wait.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};
use pulse_tests::latency::{GOOD, p99, post_steadily};
use pulse_tests::{Client, MemoryCgroup, Process, TestEnv, eventually, token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: u64 = 512 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(40);
const MIB: usize = 1024 * 1024;

/// An API in a container.
struct Contained {
    api: Process,
    cgroup: MemoryCgroup,
}

impl Contained {
    async fn start(env: &TestEnv, more: &[&str]) -> anyhow::Result<Self> {
        let cgroup = MemoryCgroup::new(LIMIT)?;
        let api = Process::spawn_in(&cgroup, env, "api", more)?;
        api.wait_until_ready().await?;
        Ok(Self { api, cgroup })
    }

    fn assert_survived(&mut self) -> anyhow::Result<()> {
        assert!(!self.api.has_ended()?, "the API was killed: {}", std::fs::read_to_string(&self.api.log)?);
        let peak = self.cgroup.peak()?;
        assert!(peak < LIMIT * 9 / 10, "the API used {peak} bytes of {LIMIT}");
        Ok(())
    }

    /// Sends the head of a POST by `user` and the beginning of its body.
    async fn begin_post(&self, user: &str, length: usize, body: &[u8]) -> anyhow::Result<TcpStream> {
        let mut stream = self.api.connect().await?;
        let token = token(user, None);
        let head = format!(
            "POST /api/v1/events/batch HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        // A refused body is not read to its end.
        let _ = stream.write_all(body).await;
        Ok(stream)
    }
}

/// Requires that posts are accepted about as fast as when the API was idle.
async fn assert_fast(client: &Client, idle: Duration, time: Duration) -> anyhow::Result<()> {
    let during = p99(&post_steadily(client, time).await?);
    let limit = (3 * idle).max(GOOD);
    assert!(during <= limit, "p99 of the others: {during:?}, {idle:?} when idle");
    Ok(())
}

/// The first line of the answer.
async fn status(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut text = [0; 12];
    tokio::time::timeout(TIMEOUT, stream.read_exact(&mut text)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_bodies_of_one_user_take_a_share_of_the_memory() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut contained = Contained::start(&env, &[]).await?;
    let other = contained.api.client("other");
    other.post_event("first").await?;
    let idle = p99(&post_steadily(&other, Duration::from_secs(2)).await?);
    let body = vec![b' '; MIB - 100];
    let mut streams = try_join_all((0..600).map(|_| contained.begin_post("hog", MIB, &body))).await?;
    assert_fast(&other, idle, Duration::from_secs(3)).await?;
    contained.assert_survived()?;
    let refused = join_all(streams.iter_mut().map(async |stream| {
        let answer = tokio::time::timeout(Duration::from_millis(100), status(stream)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer == "HTTP/1.1 503"))
    }))
    .await;
    let refused = refused.into_iter().filter(|refused| *refused).count();
    assert!((500..600).contains(&refused), "{refused} of 600 bodies were refused");
    drop(streams);
    let has_room = async || {
        let answer = contained.api.client("hog").post("/api/v1/events/batch", &large_batch()).await?;
        Ok(answer.status == 202)
    };
    eventually("the memory is free again", TIMEOUT, has_room).await
}

/// A batch of 1 MB.
fn large_batch() -> Value {
    let event = json!({"event_name": "large", "event_type": "t", "payload": {"text": "x".repeat(10_200)}});
    json!({"events": vec![event; 100]})
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_while_postgresql_does_not_answer_are_refused_before_memory_runs_out() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut contained = Contained::start(&env, &["--request-timeout", "5s"]).await?;
    let api = &contained.api;
    // Ten users take more than the whole memory budget together.
    let clients: Vec<Client> = (0..10).map(|user| api.client(&format!("user {user}"))).collect();
    for client in &clients {
        client.post_event("first").await?;
    }
    let frozen = env.freeze_postgres()?;
    let batch = large_batch();
    let answers =
        try_join_all((0..250).map(|number| clients[number % 10].post("/api/v1/events/batch", &batch))).await?;
    let codes = |code: &str| answers.iter().filter(|answer| answer.json["code"] == code).count();
    assert!(answers.iter().all(|answer| answer.status == 503), "{:?}", answers.first());
    assert_eq!(codes("overloaded") + codes("unavailable") + codes("request_timeout"), 250);
    assert!(codes("overloaded") > 50, "{} were refused for memory", codes("overloaded"));
    drop(frozen);
    let works = async || {
        let event = json!({"event_name": "a", "event_type": "t"});
        Ok(api.client("user 0").post("/api/v1/events", &event).await?.status == 202)
    };
    eventually("posts are accepted again", TIMEOUT, works).await?;
    contained.assert_survived()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_large_bodies_is_given_back() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let clients: Vec<Client> = (0..10).map(|user| api.client(&format!("user {user}"))).collect();
    for client in &clients {
        client.post_event("first").await?;
    }
    let (batch, before) = (large_batch(), api.memory()?);
    let mut most = before;
    for _ in 0..4 {
        try_join_all((0..50).map(|number| clients[number % 10].post("/api/v1/events/batch", &batch))).await?;
        most = most.max(api.memory()?);
    }
    let extra = most - before;
    assert!(extra > 32 * MIB as u64, "the bodies took {extra} bytes only");
    let given_back = async || Ok(api.memory()? < before + extra / 2);
    eventually("half of the memory is given back", TIMEOUT, given_back).await
}

#[tokio::test(flavor = "multi_thread")]
async fn trickling_bodies_take_no_place_in_flight_and_are_ended() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let limits = ["--max-in-flight", "100", "--user-max-in-flight", "0", "--body-timeout", "3s"];
    let contained = Contained::start(&env, &limits).await?;
    let other = contained.api.client("other");
    other.post_event("first").await?;
    contained.api.client("hog").post_event("first").await?;
    let idle = p99(&post_steadily(&other, Duration::from_secs(2)).await?);
    let mut streams = try_join_all((0..300).map(|_| contained.begin_post("hog", 1000, b"{"))).await?;
    let started = Instant::now();
    let trickling = async {
        while started.elapsed() < Duration::from_millis(2500) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for stream in &mut streams {
                stream.write_all(b" ").await?;
            }
        }
        anyhow::Ok(())
    };
    let (trickled, fast) = tokio::join!(trickling, assert_fast(&other, idle, Duration::from_millis(2500)));
    trickled?;
    fast?;
    let answers = try_join_all(streams.iter_mut().map(status)).await?;
    assert!(answers.iter().all(|answer| answer == "HTTP/1.1 408"), "{answers:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "the bodies were ended after {took:?}");
    Ok(())
}

/// Follows the pages of a list and returns the ids of its events.
async fn read_all(client: &Client) -> anyhow::Result<Vec<i64>> {
    let (mut ids, mut path) = (Vec::new(), "/api/v1/events?limit=500".to_owned());
    loop {
        let page = client.get(&path).await?;
        anyhow::ensure!(page.status == 200, "{}", page.text);
        anyhow::ensure!(page.text.len() < 2 * MIB + MIB / 4, "a page of {} bytes", page.text.len());
        let events = page.json["events"].as_array().context("events")?;
        ids.extend(events.iter().filter_map(|event| event["id"].as_i64()));
        match page.json["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/events?limit=500&cursor={cursor}"),
            None => return Ok(ids),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_large_events_get_pages_of_a_few_megabytes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut contained = Contained::start(&env, &["--user-max-lists", "0"]).await?;
    let (reader, other) = (contained.api.client("reader"), contained.api.client("other"));
    let event = json!({"event_name": "large", "event_type": "t", "payload": {"text": "x".repeat(31_000)}});
    for _ in 0..17 {
        let answer = reader.post("/api/v1/events/batch", &json!({"events": vec![&event; 31]})).await?;
        anyhow::ensure!(answer.status == 202, "{}", answer.text);
    }
    let small = json!({"events": vec![json!({"event_name": "small", "event_type": "t"}); 100]});
    for _ in 0..4 {
        reader.post("/api/v1/events/batch", &small).await?;
    }
    let pages = (0..16).map(|_| read_all(&reader));
    let (read, posted) = tokio::join!(try_join_all(pages), post_steadily(&other, Duration::from_secs(2)));
    posted?;
    for ids in read? {
        let unique: HashSet<_> = ids.iter().collect();
        assert_eq!((ids.len(), unique.len()), (927, 927));
        assert!(ids.is_sorted_by(|newer, older| newer > older), "newest first");
    }
    contained.assert_survived()
}
