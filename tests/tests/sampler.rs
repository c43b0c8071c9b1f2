//! What the operator reads of the queue, with a real Redis that is away, hangs, is locked, or has lost everything.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pulse::datastores::{DataDir, Redis, RedisConfig};
use pulse_operator::crd::{AutoscalingPause, Behavior, Target};
use pulse_operator::scaling::{
    History, Key, Policy, RedisServer, Sample, SampleError, SampleTarget, Samplers, ScalingReason, Workers,
    plan_workers,
};
use pulse_queue::{Gauges, Queue, QueueConfig};
use pulse_tests::send_signal;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Between two samples.
const POLL: Duration = Duration::from_millis(100);
/// The longest that a look may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A Redis and the samplers of whoever the test adds.
struct Scene {
    data: DataDir,
    redis: Option<Redis>,
    url: String,
    samplers: Samplers,
    sampled: mpsc::Receiver<Key>,
}

fn config(data: &DataDir) -> RedisConfig {
    RedisConfig::in_dir(data.path().join("redis"))
}

fn server(url: &str) -> RedisServer {
    RedisServer { url: url.to_owned(), ca: None }
}

fn key(name: &str) -> Key {
    Key { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") }
}

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        Self::sampling_every(POLL).await
    }

    async fn sampling_every(interval: Duration) -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let redis = Redis::start(config(&data)).await?;
        let (sender, sampled) = mpsc::channel(64);
        let samplers = Samplers::new(interval, sender);
        Ok(Self { url: redis.url(), data, redis: Some(redis), samplers, sampled })
    }

    fn target(&self, name: &str) -> SampleTarget {
        SampleTarget { instance: format!("shop/{name}"), server: server(&self.url), key: key(name) }
    }

    /// The first sample of this ingest, from now on, that is as the test wants; and how long it took.
    async fn sample(&mut self, name: &str, wanted: impl Fn(&Sample) -> bool) -> anyhow::Result<(Sample, Duration)> {
        let (started, after) = (Instant::now(), Timestamp::now());
        let found = async {
            loop {
                let Some(sampled) = self.sampled.recv().await else { anyhow::bail!("nobody samples") };
                let sample =
                    self.samplers.latest(&key(name)).filter(|sample| sampled == key(name) && sample.at > after);
                if let Some(sample) = sample.filter(|sample| wanted(sample)) {
                    return Ok((sample, started.elapsed()));
                }
            }
        };
        let last = || anyhow::anyhow!("not in time; {name} last: {:?}", self.samplers.latest(&key(name)));
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
        let queue =
            Queue::connect_lazy(&QueueConfig { url: self.url.clone(), ca: None, instance: "shop/main".into() })?;
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
        oldest_age_ms: 4000,
        accepted_total: 10,
        settled_total: 7,
        busy_worker_ms: 1234,
    }
}

fn has_error(error: SampleError) -> impl Fn(&Sample) -> bool {
    move |sample| sample.error == Some(error)
}

fn is_fine(sample: &Sample) -> bool {
    sample.error.is_none()
}

fn lengths(sample: &Sample) -> Option<(u64, u64)> {
    sample.depth.as_ref().map(|depth| (depth.undelivered(), depth.in_flight))
}

#[tokio::test]
async fn a_sample_says_who_has_what() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.samplers.set_targets(vec![scene.target("main")]);
    let (nothing, _) = scene.sample("main", is_fine).await?;
    assert_eq!((lengths(&nothing), nothing.gauges), (Some((0, 0)), None), "nobody has created the stream yet");

    scene.add(9).await?;
    let (undelivered, _) = scene.sample("main", |sample| lengths(sample) == Some((9, 0))).await?;
    assert!(undelivered.oldest_entry_ms.is_some(), "there is no group yet");

    let stream = "pulse:{shop/main}:tasks";
    scene.redis(&["XGROUP", "CREATE", stream, "workers", "0"]).await?;
    for (consumer, count) in [("main-worker-a.1", "2"), ("main-worker-a.2", "1"), ("main-worker-b.1", "1")] {
        scene.redis(&["XREADGROUP", "GROUP", "workers", consumer, "COUNT", count, "STREAMS", stream, ">"]).await?;
    }
    scene.publish(&gauges()).await?;
    let (sample, _) = scene.sample("main", |sample| sample.gauges.is_some()).await?;
    assert_eq!(lengths(&sample), Some((5, 4)));
    assert_eq!(sample.in_flight, [("main-worker-a".to_owned(), 3), ("main-worker-b".to_owned(), 1)].into());
    assert_eq!(sample.gauges.map(|gauges| gauges.busy_worker_ms), Some(1234));

    // Redis' own lag is unknown after an undelivered entry was deleted, and wrong after a trim; the lengths stay exact.
    let last = scene.redis(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]).await?;
    let last: Vec<(String, redis::Value)> = redis::from_redis_value(last)?;
    scene.redis(&["XDEL", stream, &last[0].0]).await?;
    scene.sample("main", |sample| lengths(sample) == Some((4, 4))).await?;
    Ok(())
}

#[tokio::test]
async fn a_redis_that_is_away_is_named_and_found_again() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.add(5).await?;
    scene.samplers.set_targets(vec![scene.target("main")]);
    scene.sample("main", is_fine).await?;
    if let Some(redis) = scene.redis.take() {
        redis.kill().await?;
    }
    let (sample, took) = scene.sample("main", has_error(SampleError::ConnectionFailed)).await?;
    assert_eq!((sample.depth, sample.gauges), (None, None), "never zero");
    assert!(took < 3 * POLL, "{took:?}");
    scene.redis = Some(Redis::start(config(&scene.data)).await?);
    let (sample, took) = scene.sample("main", is_fine).await?;
    assert_eq!(lengths(&sample), Some((5, 0)));
    assert!(took < 3 * POLL, "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_redis_that_hangs_delays_nobody_else() -> anyhow::Result<()> {
    let (mut scene, mut other) = (Scene::start().await?, Scene::start().await?);
    let neighbour = SampleTarget { server: server(&other.url), ..scene.target("neighbour") };
    scene.samplers.set_targets(vec![scene.target("main"), neighbour]);
    assert_eq!(scene.samplers.servers(), 2);
    scene.sample("main", is_fine).await?;
    scene.signal(Signal::STOP)?;
    let started = Instant::now();
    let mut neighbours = 0;
    while started.elapsed() < TIMEOUT {
        let (_, took) = scene.sample("neighbour", is_fine).await?;
        assert!(took < 3 * POLL, "{took:?}");
        neighbours += 1;
    }
    assert!(neighbours > 15, "{neighbours} samples of the neighbour in {TIMEOUT:?}");
    let late = scene.samplers.latest(&key("main"));
    let (sample, _) = match late {
        Some(sample) if has_error(SampleError::TimedOut)(&sample) => (sample, Duration::ZERO),
        _ => scene.sample("main", has_error(SampleError::TimedOut)).await?,
    };
    assert_eq!((sample.depth, sample.gauges), (None, None), "never zero");
    assert!(started.elapsed() < TIMEOUT + 3 * POLL, "{:?}", started.elapsed());
    scene.signal(Signal::CONT)?;
    scene.sample("main", is_fine).await?;
    if let Some(redis) = other.redis.take() {
        redis.kill().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_and_none_are_named() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.samplers.set_targets(vec![scene.target("main")]);
    scene.sample("main", is_fine).await?;
    scene.redis(&["CONFIG", "SET", "requirepass", "right"]).await?;
    // Connections that are open stay so: none of these has the former URL.
    let with = |password: &str, name: &str| SampleTarget {
        server: server(&(scene.url.replace("unix://", "redis+unix://") + password)),
        ..scene.target(name)
    };
    let targets = vec![with("?pass=right", "main"), with("?pass=wrong", "wrong"), with("", "none")];
    scene.samplers.set_targets(targets);
    assert_eq!(scene.samplers.servers(), 3);
    scene.sample("wrong", has_error(SampleError::AuthFailed)).await?;
    scene.sample("none", has_error(SampleError::AuthFailed)).await?;
    scene.sample("main", is_fine).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_an_error_and_not_zero() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.add(4).await?;
    scene.publish(&gauges()).await?;
    scene.samplers.set_targets(vec![scene.target("main"), scene.target("healthy")]);
    scene.sample("main", |sample| sample.gauges.is_some()).await?;
    for value in ["NaN", "-1", "1e3", ""] {
        scene.redis(&["HSET", "pulse:{shop/main}:gauges", "due_not_enqueued", value]).await?;
        let (sample, _) = scene.sample("main", has_error(SampleError::WrongType)).await?;
        assert_eq!((lengths(&sample), sample.gauges), (Some((4, 0)), None), "{value:?}: the rest is known");
        scene.publish(&gauges()).await?;
        scene.sample("main", is_fine).await?;
    }
    scene.redis(&["SET", "pulse:{shop/main}:tasks", "text"]).await?;
    let (sample, _) = scene.sample("main", has_error(SampleError::WrongType)).await?;
    assert_eq!(sample.depth, None);
    scene.sample("healthy", is_fine).await?;
    Ok(())
}

#[tokio::test]
async fn many_ingests_share_one_connection_and_are_forgotten_when_they_go() -> anyhow::Result<()> {
    // New ones are looked at at once, so that an hour is no wait.
    let mut scene = Scene::sampling_every(Duration::from_secs(3600)).await?;
    let targets: Vec<_> = (0..250).map(|number| scene.target(&format!("i{number}"))).collect();
    scene.samplers.set_targets(targets.clone());
    scene.sample("i249", is_fine).await?;
    assert_eq!(scene.samplers.servers(), 1);
    let clients: String = redis::from_redis_value(scene.redis(&["CLIENT", "LIST"]).await?)?;
    assert_eq!(clients.lines().count(), 2, "the sampler's, and the one that asks: {clients}");
    scene.samplers.remove(&key("i0"));
    assert_eq!(scene.samplers.latest(&key("i0")), None);
    scene.samplers.add(scene.target("new"));
    scene.sample("new", is_fine).await?;
    scene.samplers.set_targets(Vec::new());
    assert_eq!((scene.samplers.servers(), scene.samplers.latest(&key("i249"))), (0, None));
    Ok(())
}

/// What the operator would do with each sample while Redis is killed, hangs, and forgets everything.
#[tokio::test]
async fn no_worker_goes_whatever_happens_to_redis() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.add(500).await?;
    scene.publish(&gauges()).await?;
    scene.samplers.set_targets(vec![scene.target("main")]);
    let policy = Policy {
        fixed: None,
        min: 0,
        max: 20,
        connection_limit: None,
        target: Target::default(),
        behavior: Behavior::default(),
        idle: SignedDuration::from_secs(10),
        paused: AutoscalingPause::None,
        concurrency: 16,
        poll: SignedDuration::from_secs(5),
    };
    // Started an hour ago: no window of a start holds anything.
    let long_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let mut history = History::new(long_ago, 5);
    let workers = Workers { replicas: 5, ..Workers::default() };
    let mut follow = |sample: &Sample| {
        history.observe(sample, 5, &policy);
        let decision = plan_workers(&policy, &history, &workers, sample.at);
        history.decided(sample.at, 5, &decision);
        assert!(decision.replicas >= 5, "{decision:?}");
        decision
    };
    let (sample, _) = scene.sample("main", is_fine).await?;
    assert_eq!(follow(&sample).reason, ScalingReason::BacklogTarget);

    scene.redis(&["FLUSHALL"]).await?;
    for look in 1..=4 {
        let (sample, _) = scene.sample("main", |sample| lengths(sample) == Some((0, 0))).await?;
        assert_eq!(follow(&sample).reason == ScalingReason::Unknown, look >= 3, "what was known before counts twice");
    }
    scene.publish(&gauges()).await?;
    let (sample, _) = scene.sample("main", |sample| sample.gauges.is_some()).await?;
    follow(&sample);

    scene.signal(Signal::STOP)?;
    let (sample, _) = scene.sample("main", has_error(SampleError::TimedOut)).await?;
    follow(&sample);
    if let Some(redis) = scene.redis.take() {
        redis.kill().await?;
    }
    for _ in 0..3 {
        let (sample, _) = scene.sample("main", has_error(SampleError::ConnectionFailed)).await?;
        follow(&sample);
    }
    Ok(())
}
