//! Reads the queues: one task and one connection for each Redis, however many instances it serves, off the reconcile path.
//!
//! A Redis that is away or hangs delays nobody but its own instances. Every look that fails becomes a sample too, so that
//! nobody takes silence for an empty queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pulse_queue::{Fault, Snapshot, SnapshotReader};
use pulse_tls::CaBundle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::sample::{Sample, SampleError};
use super::victims::in_flight_by_pod;

/// How far an interval strays either way, so that operators and instances do not march in step.
const JITTER: f64 = 0.1;
/// How long more instances are waited for before new ones are looked at.
const GATHER: Duration = Duration::from_millis(20);

/// The object that a sample is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a new object of the same name has no past.
    pub uid: String,
}

/// An instance whose queue is to be read.
#[derive(Clone, PartialEq, Eq)]
pub struct SampleTarget {
    /// Its id in Redis, `<namespace>/<name>`.
    pub instance: String,
    /// Its Redis.
    pub server: RedisServer,
    /// The object.
    pub key: Key,
}

/// A Redis, and whom we believe that it is: the same one with another CA is another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    /// Where it is; may hold a password, so it is never logged.
    pub url: String,
    /// The PEM of its CA, if it is not one of the system's; not checked yet.
    pub ca: Option<Vec<u8>>,
}

impl RedisServer {
    fn reader(&self) -> Result<SnapshotReader, SampleError> {
        let ca = self.ca.clone().map(CaBundle::from_pem).transpose().map_err(|_| SampleError::TlsFailed)?;
        SnapshotReader::new(&self.url, ca.as_ref()).map_err(|error| SampleError::from(error.fault()))
    }
}

/// What a task samples: the objects, and their ids in Redis.
type Instances = BTreeMap<Key, String>;

/// The tasks that sample, and what they found. They end when it is dropped.
pub struct Samplers {
    interval: Duration,
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
    /// Samples every `interval`, give or take 10 %, and tells `sampled` whose sample is new. While that channel is
    /// full, sampling waits; nobody is left out.
    pub fn new(interval: Duration, sampled: mpsc::Sender<Key>) -> Self {
        Self { interval, sampled, samples: Samples::default(), state: Mutex::default() }
    }

    /// The newest sample of an object.
    pub fn latest(&self, key: &Key) -> Option<Sample> {
        self.samples.lock().get(key).cloned()
    }

    /// Samples exactly these from now on; new ones at once. Call it within a tokio runtime.
    pub fn set_targets(&self, targets: Vec<SampleTarget>) {
        let mut state = self.state();
        state.targets = targets.into_iter().map(|target| (target.key.clone(), target)).collect();
        self.apply(&mut state);
    }

    /// Samples this one too, or differently; if it is new, at once. Call it within a tokio runtime.
    pub fn add(&self, target: SampleTarget) {
        let mut state = self.state();
        if state.targets.get(&target.key) != Some(&target) {
            state.targets.insert(target.key.clone(), target);
            self.apply(&mut state);
        }
    }

    /// Samples this one no longer, and forgets what was found.
    pub fn remove(&self, key: &Key) {
        let mut state = self.state();
        if state.targets.remove(key).is_some() {
            self.apply(&mut state);
        }
    }

    /// How many Redis servers are read.
    pub fn servers(&self) -> usize {
        self.state().tasks.len()
    }

    fn state(&self) -> MutexGuard<'_, SamplerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, state: &mut SamplerState) {
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
                    tasks.insert(server.clone(), self.spawn(server.clone(), instances));
                }
            }
        }
        self.samples.lock().retain(|key, _| targets.contains_key(key));
    }

    fn spawn(&self, server: RedisServer, instances: Instances) -> SamplerTask {
        let (sender, receiver) = watch::channel(instances);
        let sampler = Sampler {
            interval: self.interval,
            instances: receiver,
            samples: self.samples.clone(),
            sampled: self.sampled.clone(),
        };
        SamplerTask { instances: sender, task: tokio::spawn(sampler.run(server)).abort_handle() }
    }
}

/// What one task does for one Redis.
struct Sampler {
    interval: Duration,
    instances: watch::Receiver<Instances>,
    samples: Samples,
    sampled: mpsc::Sender<Key>,
}

impl Sampler {
    async fn run(mut self, server: RedisServer) {
        let mut reader = server.reader();
        let mut looked_at = Instances::new();
        let mut next = Instant::now();
        loop {
            let instances = self.instances.borrow_and_update().clone();
            let is_turn = Instant::now() >= next;
            let is_due = |key: &Key, instance: &String| is_turn || looked_at.get(key) != Some(instance);
            // A new one need not wait, and the others need not be looked at because of it.
            let due: Instances =
                instances.clone().into_iter().filter(|(key, instance)| is_due(key, instance)).collect();
            looked_at = instances;
            if !due.is_empty() {
                let found = match &mut reader {
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
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    /// Stores what was found, and returns whose it is.
    fn store(&self, instances: &Instances, found: Result<Vec<Snapshot>, SampleError>) -> Vec<Key> {
        let at = Timestamp::now();
        let found: Vec<Sample> = match found {
            Ok(snapshots) => snapshots.into_iter().map(|snapshot| sample(at, snapshot)).collect(),
            Err(error) => instances.keys().map(|_| Sample::failed(at, error)).collect(),
        };
        // Whoever went away while we looked is not to come back: checked under the lock that forgets them.
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
    reader.read(&ids).await.map_err(|error| SampleError::from(error.fault()))
}

fn sample(at: Timestamp, snapshot: Snapshot) -> Sample {
    let Snapshot { depth, oldest_entry_ms, gauges, consumers } = snapshot;
    let fault = depth.as_ref().err().or(gauges.as_ref().err()).copied();
    Sample {
        at,
        depth: depth.ok(),
        oldest_entry_ms,
        gauges: gauges.ok().flatten(),
        in_flight: in_flight_by_pod(consumers.iter().map(|(name, tasks)| (name.as_str(), *tasks))),
        error: fault.map(SampleError::from),
    }
}

impl From<Fault> for SampleError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Connection => Self::ConnectionFailed,
            Fault::Auth => Self::AuthFailed,
            Fault::Tls => Self::TlsFailed,
            Fault::TimedOut => Self::TimedOut,
            Fault::WrongType => Self::WrongType,
        }
    }
}
