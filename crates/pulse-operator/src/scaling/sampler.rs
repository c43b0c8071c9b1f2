//! Samples the queues off the reconcile path, with one tokio task and one connection for each Redis and all of its
//! instances.
//!
//! A Redis that is down or hangs delays only its own instances. A failed read is stored as a sample too, so that
//! silence is never taken for an empty queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pulse_queue::{AllowedHosts, Snapshot, SnapshotReader};
use pulse_reconcile::scaling::{Sample, SampleError, in_flight_by_pod};
use pulse_scaling::{Depth, Gauges};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::address::{RedisServer, sample_error};

/// Jitter of the interval as a fraction, so that operators and Redis servers are not sampled in lockstep.
const JITTER: f64 = 0.1;
/// Time to wait for further new instances, so that they are read together.
const NEW_INSTANCE_DEBOUNCE: Duration = Duration::from_millis(20);

// The two crates must not depend on each other.
const _: () = assert!(pulse_scaling::GAUGES_MAX_AGE.as_millis() == pulse_queue::GAUGES_MAX_AGE.as_millis() as i128);

/// The PulseIngest that a sample belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object: a new object of the same name starts without a history.
    pub uid: String,
}

/// An instance whose queue is sampled.
#[derive(Clone, PartialEq, Eq)]
pub struct SampleTarget {
    /// Instance id in Redis, `<namespace>/<name>`.
    pub instance: String,
    /// Redis server of the instance.
    pub server: RedisServer,
    /// The object that the samples belong to.
    pub key: Key,
}

/// The instances of one Redis: objects and their instance ids.
type Instances = BTreeMap<Key, String>;

/// The sampling tasks and their newest samples. Dropping it ends the tasks.
pub struct Samplers {
    interval: Duration,
    allowed: AllowedHosts,
    sampled: mpsc::Sender<Key>,
    samples: Samples,
    state: Mutex<SamplerState>,
}

#[derive(Default)]
struct SamplerState {
    targets: BTreeMap<Key, SampleTarget>,
    tasks: HashMap<RedisServer, SamplerTask>,
}

struct SamplerTask {
    instances: watch::Sender<Instances>,
    task: AbortHandle,
}

impl Drop for SamplerTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Default)]
struct Samples(Arc<Mutex<HashMap<Key, Sample>>>);

impl Samples {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Samplers {
    /// Samples every `interval` ± 10 %, and sends the key of each new sample to `sampled`. While that channel is full,
    /// sampling waits; no key is skipped. A Redis whose host is not `allowed` is not connected to, and its samples fail.
    pub fn new(interval: Duration, allowed: AllowedHosts, sampled: mpsc::Sender<Key>) -> Self {
        Self { interval, allowed, sampled, samples: Samples::default(), state: Mutex::default() }
    }

    /// The newest sample of an object; `None` before the first one.
    pub fn latest(&self, key: &Key) -> Option<Sample> {
        self.samples.lock().get(key).cloned()
    }

    /// The names that are looked up to sample an object, or the addresses; `None` before there is a target with a host.
    pub fn looked_up(&self, key: &Key) -> Option<String> {
        let names = self.state().targets.get(key)?.server.looked_up();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Replaces all targets. New ones are sampled at once. Must be called within a tokio runtime.
    pub fn set_targets(&self, targets: Vec<SampleTarget>) {
        let mut state = self.state();
        state.targets = targets.into_iter().map(|target| (target.key.clone(), target)).collect();
        self.sync_tasks(&mut state);
    }

    /// Adds or updates a target. A new one is sampled at once. Must be called within a tokio runtime.
    pub fn add(&self, target: SampleTarget) {
        let mut state = self.state();
        if state.targets.get(&target.key) != Some(&target) {
            state.targets.insert(target.key.clone(), target);
            self.sync_tasks(&mut state);
        }
    }

    /// Removes a target and its sample.
    pub fn remove(&self, key: &Key) {
        let mut state = self.state();
        if state.targets.remove(key).is_some() {
            self.sync_tasks(&mut state);
        }
    }

    /// Number of Redis servers that are sampled.
    pub fn servers(&self) -> usize {
        self.state().tasks.len()
    }

    fn state(&self) -> MutexGuard<'_, SamplerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_tasks(&self, state: &mut SamplerState) {
        let SamplerState { targets, tasks } = state;
        let mut wanted: HashMap<&RedisServer, Instances> = HashMap::new();
        for SampleTarget { instance, server, key } in targets.values() {
            wanted.entry(server).or_default().insert(key.clone(), instance.clone());
        }
        tasks.retain(|server, _| wanted.contains_key(server));
        for (server, instances) in wanted {
            match tasks.get(server) {
                Some(task) => {
                    task.instances.send_if_modified(|now| {
                        let changes = *now != instances;
                        *now = instances;
                        changes
                    });
                }
                None => {
                    tasks.insert(server.clone(), self.spawn(server, instances));
                }
            }
        }
        self.samples.lock().retain(|key, _| targets.contains_key(key));
    }

    fn spawn(&self, server: &RedisServer, instances: Instances) -> SamplerTask {
        let (sender, receiver) = watch::channel(instances);
        let sampler = Sampler {
            interval: self.interval,
            reader: server.reader(&self.allowed),
            instances: receiver,
            samples: self.samples.clone(),
            sampled: self.sampled.clone(),
        };
        SamplerTask { instances: sender, task: tokio::spawn(sampler.run()).abort_handle() }
    }
}

/// The task that samples one Redis.
struct Sampler {
    interval: Duration,
    reader: Result<SnapshotReader, SampleError>,
    instances: watch::Receiver<Instances>,
    samples: Samples,
    sampled: mpsc::Sender<Key>,
}

impl Sampler {
    async fn run(mut self) {
        let mut sampled_before = Instances::new();
        let mut next = Instant::now();
        loop {
            let instances = self.instances.borrow_and_update().clone();
            let is_turn = Instant::now() >= next;
            let is_due = |key: &Key, instance: &String| is_turn || sampled_before.get(key) != Some(instance);
            // A new instance is sampled at once, without sampling the others early.
            let due: Instances =
                instances.clone().into_iter().filter(|(key, instance)| is_due(key, instance)).collect();
            sampled_before = instances;
            if !due.is_empty() {
                let found = match &mut self.reader {
                    Ok(reader) => read(reader, &due).await,
                    Err(error) => Err(*error),
                };
                for key in self.store(&due, found) {
                    if self.sampled.send(key).await.is_err() {
                        return;
                    }
                }
            }
            if is_turn {
                next = Instant::now() + self.interval.mul_f64(rand::random_range(1.0 - JITTER..=1.0 + JITTER));
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                changed = self.instances.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(NEW_INSTANCE_DEBOUNCE).await;
                }
            }
        }
    }

    /// Stores the samples, and returns their keys.
    fn store(&self, instances: &Instances, found: Result<Vec<Snapshot>, SampleError>) -> Vec<Key> {
        let at = Timestamp::now();
        let found: Vec<Sample> = match found {
            Ok(snapshots) => snapshots.into_iter().map(|snapshot| sample(at, snapshot)).collect(),
            Err(error) => instances.keys().map(|_| Sample::failed(at, error)).collect(),
        };
        // An instance that was removed during the read must not come back: checked under the lock that removes samples.
        let mut samples = self.samples.lock();
        if self.instances.has_changed().is_err() {
            return Vec::new();
        }
        let current = self.instances.borrow();
        let found = instances.keys().zip(found).filter(|(key, _)| current.contains_key(key));
        found
            .map(|(key, sample)| {
                samples.insert(key.clone(), sample);
                key.clone()
            })
            .collect()
    }
}

async fn read(reader: &mut SnapshotReader, instances: &Instances) -> Result<Vec<Snapshot>, SampleError> {
    let ids: Vec<String> = instances.values().cloned().collect();
    reader.read(&ids).await.map_err(|error| sample_error(error.fault()))
}

fn sample(at: Timestamp, snapshot: Snapshot) -> Sample {
    let Snapshot { depth, oldest_undelivered_ms, gauges, consumers } = snapshot;
    let fault = depth.as_ref().err().or(gauges.as_ref().err()).copied();
    let depth = depth.ok().map(|depth| Depth {
        undelivered: depth.undelivered(),
        in_flight: depth.in_flight,
        oldest_undelivered_ms,
        redis_now_ms: depth.redis_now_ms,
    });
    Sample {
        queue: pulse_scaling::Sample { at, depth, gauges: gauges.ok().flatten().map(measured) },
        in_flight: in_flight_by_pod(consumers.iter().map(|(name, tasks)| (name.as_str(), *tasks))),
        error: fault.map(sample_error),
    }
}

fn measured(gauges: pulse_queue::Gauges) -> Gauges {
    let pulse_queue::Gauges {
        at_ms,
        unsettled,
        due_not_enqueued,
        oldest_due_ms,
        next_due_ms,
        accepted_total,
        attempts_total,
        retried_total,
        attempt_ms_total,
    } = gauges;
    Gauges {
        at_ms,
        unsettled,
        due_not_enqueued,
        oldest_due_ms,
        next_due_ms,
        accepted_total,
        attempts_total,
        retried_total,
        attempt_ms_total,
    }
}
