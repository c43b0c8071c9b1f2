//! What happens in one run: arrivals, times of attempts, failures.

use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// What happens in one run, and the bounds of the autoscaler. Times are in seconds from the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Name in the table.
    #[serde(default)]
    pub name: String,
    /// Time that each element of `arrivals_per_s` stands for, in whole seconds.
    #[serde(default = "one")]
    pub tick_s: u32,
    /// Mean number of tasks that arrive per second.
    pub arrivals_per_s: Vec<f64>,
    /// Time of an attempt.
    pub service_s: Service,
    /// Times in which attempts that start fail.
    #[serde(default)]
    pub failures: Vec<Failures>,
    /// Nodes that are lost.
    #[serde(default)]
    pub node_losses: Vec<NodeLoss>,
    /// Maximum number of attempts of a task. Retry n comes 2^n seconds after the attempt before it.
    #[serde(default = "max_attempts")]
    pub max_attempts: u32,
    /// Longest time before a retry.
    #[serde(default = "retry_cap")]
    pub retry_cap_s: u32,
    /// Minimum number of workers.
    #[serde(default = "one")]
    pub min: u32,
    /// Maximum number of workers.
    pub max: u32,
    /// Number of workers at the start; `min` if absent.
    #[serde(default)]
    pub workers: Option<u32>,
    /// Time that a worker takes to start.
    #[serde(default = "start")]
    pub start_s: u32,
    /// Number of tasks that a worker processes at once.
    #[serde(default = "slots")]
    pub slots: u16,
    /// Time that a task may wait until its attempt starts.
    #[serde(default = "target_age")]
    pub target_age_s: u32,
}

/// Time of an attempt, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Service {
    /// Always the same.
    Fixed {
        /// The time.
        value: f64,
    },
    /// Exponentially distributed.
    Exp {
        /// The mean.
        mean: f64,
    },
    /// One of several.
    Mix {
        /// Probability and time of each; the probabilities add up to 1.
        parts: Vec<(f64, f64)>,
    },
    /// Another one from some second on, as after a new version or in an outage of a service that the tasks call.
    Change {
        /// The time of an attempt that starts before the change.
        before: f64,
        /// The time of an attempt that starts after it.
        after: f64,
        /// The second of the change.
        at: u32,
    },
}

/// A time in which attempts that start fail.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Its start.
    pub from: u32,
    /// Its end.
    pub to: u32,
}

/// The loss of a node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NodeLoss {
    /// The time.
    pub at: u32,
    /// Part of the workers that are lost.
    pub share: f64,
    /// Time until Kubernetes replaces their pods: by default, 40 s until it notices and 300 s that pods tolerate.
    #[serde(default = "replaced_after")]
    pub replaced_after_s: u32,
}

/// A trace that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trace cannot be simulated: {0}")]
pub struct TraceError(&'static str);

fn one() -> u32 {
    1
}
fn max_attempts() -> u32 {
    3
}
fn retry_cap() -> u32 {
    3600
}
fn start() -> u32 {
    3
}
fn slots() -> u16 {
    16
}
fn target_age() -> u32 {
    60
}
fn replaced_after() -> u32 {
    340
}

impl Trace {
    /// A trace of `seconds` with the rate of arrivals as a function of the time; else with the defaults of the form in
    /// JSON, and at most 40 workers.
    pub fn new(name: &str, service_s: Service, seconds: u32, rate: impl Fn(f64) -> f64) -> Self {
        Self {
            name: name.to_owned(),
            tick_s: 1,
            arrivals_per_s: (0..seconds).map(|second| rate(f64::from(second))).collect(),
            service_s,
            failures: Vec::new(),
            node_losses: Vec::new(),
            max_attempts: max_attempts(),
            retry_cap_s: retry_cap(),
            min: 1,
            max: 40,
            workers: None,
            start_s: start(),
            slots: slots(),
            target_age_s: target_age(),
        }
    }

    /// Checks that the trace can be simulated in bounded time and memory.
    ///
    /// # Errors
    /// [`TraceError`] with the field that has to be corrected.
    pub fn check(&self) -> Result<(), TraceError> {
        let rates = |rate: &f64| (0.0..=100_000.0).contains(rate);
        let service = match &self.service_s {
            Service::Fixed { value } => is_time(*value),
            Service::Exp { mean } => is_time(*mean),
            Service::Change { before, after, .. } => is_time(*before) && is_time(*after),
            Service::Mix { parts } => {
                let sum: f64 = parts.iter().map(|(part, _)| part).sum();
                (sum - 1.0).abs() < 1e-6 && parts.iter().all(|(part, time)| *part >= 0.0 && is_time(*time))
            }
        };
        let checks = [
            (self.tick_s >= 1, "tick_s must be at least 1"),
            (self.arrivals_per_s.iter().all(rates), "arrivals_per_s must be between 0 and 100000"),
            (self.seconds() <= 7 * 86_400, "it must end within 7 days"),
            (service, "service_s must have times from 0.001 to 86400 s, and parts that add up to 1"),
            (self.max >= 1 && self.max <= 1000, "max must be between 1 and 1000"),
            (self.min <= self.max, "min must be at most max"),
            (self.slots >= 1, "slots must be at least 1"),
            (self.target_age_s >= 1, "target_age_s must be at least 1"),
            (self.max_attempts >= 1, "max_attempts must be at least 1"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(TraceError(what)))
    }

    /// Time in which tasks arrive.
    pub fn seconds(&self) -> u64 {
        self.arrivals_per_s.len() as u64 * u64::from(self.tick_s)
    }

    pub(super) fn rate_at(&self, second: u32) -> f64 {
        self.arrivals_per_s.get((second / self.tick_s) as usize).copied().unwrap_or(0.0)
    }

    pub(super) fn fails_at(&self, second: u32) -> bool {
        self.failures.iter().any(|failures| (failures.from..failures.to).contains(&second))
    }

    /// Time before the retry that follows `attempt`, which counts from 1.
    pub(super) fn retry_delay(&self, attempt: u32) -> u32 {
        2_u32.checked_pow(attempt).unwrap_or(u32::MAX).min(self.retry_cap_s).max(1)
    }
}

fn is_time(seconds: f64) -> bool {
    (0.001..=86_400.0).contains(&seconds)
}

impl Service {
    /// The time of an attempt that starts at `now`, in seconds.
    pub(super) fn time(&self, now: u32, chance: &mut Chance) -> f64 {
        match self {
            Self::Fixed { value } => *value,
            Self::Change { before, after, at } => *if now < *at { before } else { after },
            Self::Exp { mean } => chance.exponential(*mean).max(0.001),
            Self::Mix { parts } => {
                let mut rest = chance.unit();
                let part = parts.iter().find(|(probability, _)| {
                    rest -= probability;
                    rest < 0.0
                });
                part.or(parts.last()).map_or(1.0, |(_, time)| *time)
            }
        }
    }

    /// The time if all attempts that start at `now` take less than a second and equally long, so that they need not be drawn
    /// one by one.
    pub(super) fn short_and_fixed(&self, now: u32) -> Option<f64> {
        let time = match self {
            Self::Fixed { value } => *value,
            Self::Change { before, after, at } => *if now < *at { before } else { after },
            Self::Exp { .. } | Self::Mix { .. } => return None,
        };
        (time < 1.0).then_some(time)
    }
}
