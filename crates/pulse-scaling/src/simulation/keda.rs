//! KEDA with its scaler for Redis streams, and the HorizontalPodAutoscaler that it creates.

use super::hpa::Hpa;
use super::plant::Plant;
use super::run::Autoscaler;

/// Default `pollingInterval`, in seconds.
const POLLING_S: u32 = 30;
/// Default `cooldownPeriod`, in seconds.
const COOLDOWN_S: u32 = 300;
/// Default of `--horizontal-pod-autoscaler-sync-period`, in seconds.
const SYNC_S: u32 = 15;

/// What KEDA reads from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Entries that were not delivered (`lagCount`).
    Lag,
    /// Entries that were delivered and not acknowledged (`pendingEntriesCount`).
    Pending,
    /// All entries (`streamLength`).
    Length,
}

/// KEDA with the defaults of a ScaledObject, besides its trigger.
#[derive(Debug, Clone)]
pub struct Keda {
    metric: Metric,
    cached: bool,
    hpa: Hpa,
    min: u32,
    poll_phase: u32,
    sync_phase: u32,
    value: f64,
    active_at: u32,
}

impl Keda {
    /// With `target` of `metric` per worker. `cached` is the trigger's `useCachedMetrics`: the HorizontalPodAutoscaler
    /// gets the value of the last poll instead of a new one.
    pub fn new(plant: &Plant<'_>, metric: Metric, target: f64, cached: bool, seed: u64) -> Self {
        let (min, max) = (plant.trace.min, plant.trace.max);
        Self {
            metric,
            cached,
            hpa: Hpa::new(min.max(1), max, target),
            min,
            poll_phase: (seed * 7 % u64::from(POLLING_S)) as u32,
            sync_phase: (seed * 11 % u64::from(SYNC_S)) as u32,
            value: 0.0,
            active_at: 0,
        }
    }

    fn read(&self, plant: &Plant<'_>) -> f64 {
        let count = match self.metric {
            Metric::Lag => plant.waiting(),
            Metric::Pending => plant.in_flight(),
            Metric::Length => plant.waiting() + plant.in_flight(),
        };
        count as f64
    }

    /// Polls the trigger, which only decides between none and one worker.
    fn poll(&mut self, plant: &Plant<'_>, current: u32) -> u32 {
        self.value = self.read(plant);
        let is_active = self.value > 0.0;
        if is_active {
            self.active_at = plant.now();
        }
        match current {
            0 if is_active => 1,
            1.. if !is_active && self.min == 0 && plant.now() - self.active_at >= COOLDOWN_S => 0,
            _ => current,
        }
    }
}

impl Autoscaler for Keda {
    fn decide(&mut self, plant: &Plant<'_>, current: u32) -> u32 {
        let now = plant.now();
        let mut replicas = current;
        if now % POLLING_S == self.poll_phase {
            replicas = self.poll(plant, current);
        }
        if now % SYNC_S == self.sync_phase && replicas == current {
            let metric = if self.cached { self.value } else { self.read(plant) };
            replicas = self.hpa.sync(now, current, metric);
        }
        replicas
    }
}
