//! The operator's samples of the queue, with a real Redis that stops, hangs, refuses the password, or loses its data.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pulse::datastores::{DataDir, Redis, RedisConfig};
use pulse_operator::scaling::{AllowedHosts, Key, RedisServer, SampleTarget, Samplers};
use pulse_queue::{Gauges, Queue, QueueConfig};
use pulse_reconcile::scaling::{Sample, SampleError};
use pulse_scaling::{Memory, Observed, Policy, ScalingReason, Workers};
use pulse_tests::{free_port, send_signal};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Time between two samples.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Limit for the time until a hung Redis is reported.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a few samples on a busy machine; a sampler that waits for another Redis needs `TIMEOUT`.
const SOON: Duration = Duration::from_secs(1);

/// A Redis, and the samplers for the targets that the test sets.
struct SamplerEnv {
    _data: DataDir,
    redis: Option<Redis>,
    config: RedisConfig,
    url: String,
    samplers: Samplers,
    sampled: mpsc::Receiver<Key>,
}

fn server(url: &str) -> RedisServer {
    RedisServer::new(url, None, None, "shop/main")
}

fn key(name: &str) -> Key {
    Key { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") }
}

impl SamplerEnv {
    async fn start() -> anyhow::Result<Self> {
        Self::with_interval(POLL_INTERVAL).await
    }

    async fn with_interval(interval: Duration) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let port = free_port()?;
        let config = RedisConfig::in_dir(data.path().join("redis"))
            .with_setting("port", &port.to_string())
            .with_setting("bind", "127.0.0.1");
        let redis = Some(Redis::start(config.clone()).await?);
        let (sender, sampled) = mpsc::channel(64);
        let samplers = Samplers::new(interval, AllowedHosts::default(), sender);
        Ok(Self { url: format!("redis://127.0.0.1:{port}"), _data: data, redis, config, samplers, sampled })
    }

    fn target(&self, name: &str) -> SampleTarget {
        SampleTarget { instance: format!("shop/{name}"), server: server(&self.url), key: key(name) }
    }

    /// Waits for a new sample of this instance for which `wanted` returns true. Also returns the time that it took.
    async fn wait_for_sample(
        &mut self,
        name: &str,
        wanted: impl Fn(&Sample) -> bool,
    ) -> anyhow::Result<(Sample, Duration)> {
        let (started, after) = (Instant::now(), Timestamp::now());
        let found = async {
            loop {
                let Some(sampled) = self.sampled.recv().await else { anyhow::bail!("the samplers have stopped") };
                let sample =
                    self.samplers.latest(&key(name)).filter(|sample| sampled == key(name) && sample.queue.at > after);
                if let Some(sample) = sample.filter(|sample| wanted(sample)) {
                    return Ok((sample, started.elapsed()));
                }
            }
        };
        let last = || {
            anyhow::anyhow!("no such sample within 15 s; the last of {name}: {:?}", self.samplers.latest(&key(name)))
        };
        match timeout(Duration::from_secs(15), found).await {
            Ok(found) => found,
            Err(_) => Err(last()),
        }
    }

    async fn redis(&self, command: &[&str]) -> anyhow::Result<redis::Value> {
        let mut connection = redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?;
        let mut redis = redis::cmd(command[0]);
        redis.arg(&command[1..]);
        Ok(redis.query_async(&mut connection).await?)
    }

    async fn add(&self, tasks: usize) -> anyhow::Result<()> {
        for _ in 0..tasks {
            self.redis(&["XADD", "pulse:{shop/main}:tasks", "*", "task_id", "x"]).await?;
        }
        Ok(())
    }

    async fn publish(&self, gauges: &Gauges) -> anyhow::Result<()> {
        let queue = Queue::connect_lazy(&QueueConfig {
            url: self.url.clone(),
            ca: None,
            identity: None,
            instance: "shop/main".into(),
        })?;
        Ok(queue.publish_gauges(gauges).await?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.redis.as_ref().and_then(Redis::pid), signal)
    }
}

fn gauges() -> Gauges {
    Gauges {
        at_ms: Timestamp::now().as_millisecond(),
        unsettled: 3,
        due_not_enqueued: 1,
        next_due_ms: -1,
        oldest_due_ms: 4000,
        accepted_total: 10,
        attempts_total: 7,
        retried_total: 1,
        attempt_ms_total: 1234,
    }
}

fn has_error(error: SampleError) -> impl Fn(&Sample) -> bool {
    move |sample| sample.error == Some(error)
}

fn is_ok(sample: &Sample) -> bool {
    sample.error.is_none()
}

/// Age of the oldest task that waits on a stream, in seconds.
fn oldest(sample: &Sample) -> Option<u64> {
    sample.queue.depth.and_then(|depth| depth.oldest_undelivered_ms).map(|age_ms| age_ms / 1000)
}

fn lengths(sample: &Sample) -> Option<(u64, u64)> {
    sample.queue.depth.map(|depth| (depth.undelivered, depth.in_flight))
}

#[tokio::test]
async fn sample_counts_undelivered_and_in_flight_tasks() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    env.samplers.set_targets(vec![env.target("main")]);
    let (nothing, _) = env.wait_for_sample("main", is_ok).await?;
    assert_eq!((lengths(&nothing), nothing.queue.gauges), (Some((0, 0)), None), "the stream does not exist yet");

    env.add(9).await?;
    let (undelivered, _) = env.wait_for_sample("main", |sample| lengths(sample) == Some((9, 0))).await?;
    assert!(oldest(&undelivered).is_some(), "the consumer group does not exist yet");

    let stream = "pulse:{shop/main}:tasks";
    env.redis(&["XGROUP", "CREATE", stream, "workers", "0"]).await?;
    for (consumer, count) in [("main-worker-a.1", "2"), ("main-worker-a.2", "1"), ("main-worker-b.1", "1")] {
        env.redis(&["XREADGROUP", "GROUP", "workers", consumer, "COUNT", count, "STREAMS", stream, ">"]).await?;
    }
    env.publish(&gauges()).await?;
    let (sample, _) = env.wait_for_sample("main", |sample| sample.queue.gauges.is_some()).await?;
    assert_eq!(lengths(&sample), Some((5, 4)));
    assert_eq!(sample.in_flight, [("main-worker-a".to_owned(), 3), ("main-worker-b".to_owned(), 1)].into());
    assert_eq!(sample.queue.gauges.map(|gauges| (gauges.oldest_due_ms, gauges.attempt_ms_total)), Some((4000, 1234)));

    // Redis' own lag is unknown after an undelivered entry was deleted, and wrong after a trim; the lengths stay exact.
    let last = env.redis(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]).await?;
    let last: Vec<(String, redis::Value)> = redis::from_redis_value(last)?;
    env.redis(&["XDEL", stream, &last[0].0]).await?;
    env.wait_for_sample("main", |sample| lengths(sample) == Some((4, 4))).await?;
    Ok(())
}

#[tokio::test]
async fn sample_has_the_age_of_the_oldest_task_that_waits_on_either_stream() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    let [tasks, bulk] = ["pulse:{shop/main}:tasks", "pulse:{shop/main}:bulk"];
    let ago = |seconds: i64| format!("{}-1", Timestamp::now().as_millisecond() - seconds * 1000);
    for (stream, seconds) in [(tasks, 900), (tasks, 50), (bulk, 300), (bulk, 20)] {
        env.redis(&["XADD", stream, &ago(seconds), "task_id", "x"]).await?;
    }
    let about =
        |seconds: u64| move |sample: &Sample| oldest(sample).is_some_and(|age| (seconds..seconds + 15).contains(&age));
    env.samplers.set_targets(vec![env.target("main")]);
    env.wait_for_sample("main", about(900)).await?;
    // Delivered tasks have no age, however long they run.
    for (stream, oldest) in [(tasks, 300), (bulk, 50)] {
        env.redis(&["XGROUP", "CREATE", stream, "workers", "0"]).await?;
        env.redis(&["XREADGROUP", "GROUP", "workers", "w.1", "COUNT", "1", "STREAMS", stream, ">"]).await?;
        env.wait_for_sample("main", about(oldest)).await?;
    }
    for stream in [tasks, bulk] {
        env.redis(&["XREADGROUP", "GROUP", "workers", "w.1", "STREAMS", stream, ">"]).await?;
    }
    let (sample, _) = env.wait_for_sample("main", |sample| lengths(sample) == Some((0, 4))).await?;
    assert_eq!(oldest(&sample), None);
    Ok(())
}

#[tokio::test]
async fn stopped_redis_is_reported_and_sampled_again_after_restart() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    env.add(5).await?;
    env.samplers.set_targets(vec![env.target("main")]);
    env.wait_for_sample("main", is_ok).await?;
    if let Some(redis) = env.redis.take() {
        redis.kill().await?;
    }
    let (sample, took) = env.wait_for_sample("main", has_error(SampleError::ConnectionFailed)).await?;
    assert_eq!((sample.queue.depth, sample.queue.gauges), (None, None), "unknown, not zero");
    assert!(took < SOON, "{took:?}");
    env.redis = Some(Redis::start(env.config.clone()).await?);
    let (sample, took) = env.wait_for_sample("main", is_ok).await?;
    assert_eq!(lengths(&sample), Some((5, 0)));
    assert!(took < SOON, "{took:?}");
    Ok(())
}

#[tokio::test]
async fn hung_redis_delays_no_other_instance() -> anyhow::Result<()> {
    let (mut env, mut other) = (SamplerEnv::start().await?, SamplerEnv::start().await?);
    let neighbour = SampleTarget { server: server(&other.url), ..env.target("neighbour") };
    env.samplers.set_targets(vec![env.target("main"), neighbour]);
    assert_eq!(env.samplers.servers(), 2);
    env.wait_for_sample("main", is_ok).await?;
    env.signal(Signal::STOP)?;
    let started = Instant::now();
    let mut neighbours = 0;
    while started.elapsed() < TIMEOUT {
        let (_, took) = env.wait_for_sample("neighbour", is_ok).await?;
        assert!(took < SOON, "{took:?}");
        neighbours += 1;
    }
    assert!(neighbours > 5, "{neighbours} samples of the neighbour in {TIMEOUT:?}");
    let late = env.samplers.latest(&key("main"));
    let (sample, _) = match late {
        Some(sample) if has_error(SampleError::ConnectionFailed)(&sample) => (sample, Duration::ZERO),
        _ => env.wait_for_sample("main", has_error(SampleError::ConnectionFailed)).await?,
    };
    assert_eq!((sample.queue.depth, sample.queue.gauges), (None, None), "unknown, not zero");
    assert!(started.elapsed() < TIMEOUT + SOON, "{:?}", started.elapsed());
    env.signal(Signal::CONT)?;
    env.wait_for_sample("main", is_ok).await?;
    if let Some(redis) = other.redis.take() {
        redis.kill().await?;
    }
    Ok(())
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_reported() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    env.samplers.set_targets(vec![env.target("main")]);
    env.wait_for_sample("main", is_ok).await?;
    env.redis(&["CONFIG", "SET", "requirepass", "right"]).await?;
    // Open connections stay authenticated, so every target gets a new URL.
    let target_with = |password: &str, name: &str| SampleTarget {
        server: server(&format!("{}/0", env.url.replace("redis://", &format!("redis://{password}")))),
        ..env.target(name)
    };
    let targets = vec![target_with(":right@", "main"), target_with(":wrong@", "wrong"), target_with("", "none")];
    env.samplers.set_targets(targets);
    assert_eq!(env.samplers.servers(), 3);
    env.wait_for_sample("wrong", has_error(SampleError::AuthFailed)).await?;
    env.wait_for_sample("none", has_error(SampleError::AuthFailed)).await?;
    env.wait_for_sample("main", is_ok).await?;
    Ok(())
}

#[tokio::test]
async fn key_of_the_wrong_type_is_an_error_and_not_zero() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    env.add(4).await?;
    env.publish(&gauges()).await?;
    env.samplers.set_targets(vec![env.target("main"), env.target("healthy")]);
    env.wait_for_sample("main", |sample| sample.queue.gauges.is_some()).await?;
    for value in ["NaN", "-1", "1e3", ""] {
        env.redis(&["HSET", "pulse:{shop/main}:gauges", "due_not_enqueued", value]).await?;
        let (sample, _) = env.wait_for_sample("main", has_error(SampleError::WrongType)).await?;
        assert_eq!(
            (lengths(&sample), sample.queue.gauges),
            (Some((4, 0)), None),
            "{value:?}: the lengths are still known"
        );
        env.publish(&gauges()).await?;
        env.wait_for_sample("main", is_ok).await?;
    }
    env.redis(&["SET", "pulse:{shop/main}:tasks", "text"]).await?;
    let (sample, _) = env.wait_for_sample("main", has_error(SampleError::WrongType)).await?;
    assert_eq!(sample.queue.depth, None);
    env.wait_for_sample("healthy", is_ok).await?;
    Ok(())
}

#[tokio::test]
async fn many_instances_share_one_connection_and_removed_targets_are_dropped() -> anyhow::Result<()> {
    // New targets are sampled at once, so the interval of an hour delays nothing.
    let mut env = SamplerEnv::with_interval(Duration::from_secs(3600)).await?;
    let targets: Vec<_> = (0..250).map(|number| env.target(&format!("i{number}"))).collect();
    env.samplers.set_targets(targets.clone());
    env.wait_for_sample("i249", is_ok).await?;
    assert_eq!(env.samplers.servers(), 1);
    let clients: String = redis::from_redis_value(env.redis(&["CLIENT", "LIST"]).await?)?;
    assert_eq!(clients.lines().count(), 2, "the sampler's connection, and that of this command: {clients}");
    env.samplers.remove(&key("i0"));
    assert_eq!(env.samplers.latest(&key("i0")), None);
    env.samplers.add(env.target("new"));
    env.wait_for_sample("new", is_ok).await?;
    env.samplers.set_targets(Vec::new());
    assert_eq!((env.samplers.servers(), env.samplers.latest(&key("i249"))), (0, None));
    Ok(())
}

/// A server that announces an answer of 500 MB, and sends it.
#[tokio::test]
async fn endless_answer_is_cut_off() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("redis://{}", listener.local_addr()?);
    let sent = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let (mut sent, chunk) = (0, vec![b'x'; 64 * 1024]);
        client.write_all(b"$500000000\r\n").await?;
        while client.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        std::io::Result::Ok(sent)
    });
    env.samplers.set_targets(vec![env.target("main"), SampleTarget { server: server(&url), ..env.target("endless") }]);
    env.wait_for_sample("endless", has_error(SampleError::AnswerTooLong)).await?;
    let sent = timeout(TIMEOUT, sent).await???;
    // 2 MiB, and what the buffers of both sockets hold.
    assert!(sent < 20 * 1024 * 1024, "{sent} bytes");
    env.wait_for_sample("main", is_ok).await?;
    Ok(())
}

/// The scaling decision for each sample while Redis is flushed, hangs and is killed.
#[tokio::test]
async fn redis_failures_never_remove_workers() -> anyhow::Result<()> {
    let mut env = SamplerEnv::start().await?;
    env.add(500).await?;
    env.publish(&gauges()).await?;
    env.samplers.set_targets(vec![env.target("main")]);
    let policy = Policy {
        min: 0,
        max: 20,
        idle: SignedDuration::from_secs(10),
        poll: SignedDuration::from_secs(5),
        ..Policy::default()
    };
    let workers = Workers { replicas: 5, ..Workers::default() };
    // The operator started an hour ago, so the wait after a start is over.
    let long_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let observed = |sample: Option<&Sample>| Observed {
        sample: sample.map(|sample| sample.queue.clone()),
        workers: workers.clone(),
    };
    let (_, mut memory) = pulse_scaling::decide(&policy, Memory::default(), &observed(None), long_ago);
    let mut follow = |sample: &Sample| {
        let before = std::mem::take(&mut memory);
        let (decision, after) = pulse_scaling::decide(&policy, before, &observed(Some(sample)), sample.queue.at);
        memory = after;
        assert!(decision.replicas >= 5, "{decision:?}");
        decision
    };
    let (sample, _) = env.wait_for_sample("main", is_ok).await?;
    assert_eq!(follow(&sample).reason, ScalingReason::BacklogTarget);

    env.redis(&["FLUSHALL"]).await?;
    for number in 1..=4 {
        let (sample, _) = env.wait_for_sample("main", |sample| lengths(sample) == Some((0, 0))).await?;
        assert_eq!(
            follow(&sample).reason == ScalingReason::Unknown,
            number >= 3,
            "two samples keep the previous estimate"
        );
    }
    env.publish(&gauges()).await?;
    let (sample, _) = env.wait_for_sample("main", |sample| sample.queue.gauges.is_some()).await?;
    follow(&sample);

    env.signal(Signal::STOP)?;
    let (sample, _) = env.wait_for_sample("main", has_error(SampleError::ConnectionFailed)).await?;
    follow(&sample);
    if let Some(redis) = env.redis.take() {
        redis.kill().await?;
    }
    for _ in 0..3 {
        let (sample, _) = env.wait_for_sample("main", has_error(SampleError::ConnectionFailed)).await?;
        follow(&sample);
    }
    Ok(())
}
