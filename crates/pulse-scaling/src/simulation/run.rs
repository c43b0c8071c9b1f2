//! One run of an autoscaler over a trace.

use super::plant::Plant;
use super::trace::Trace;

/// Longest time from the last arrival to the end of a run, in seconds, if there is work.
const TAIL_S: u32 = 7200;

/// Sets the number of workers.
pub trait Autoscaler {
    /// Called each second; returns the number of workers from now on.
    fn decide(&mut self, plant: &Plant<'_>, current: u32) -> u32;
}

/// What a run has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Result {
    /// Seconds in which the oldest waiting task had waited longer than the target.
    pub seconds_over: u32,
    /// Seconds of workers, including those that start and those that end their last tasks.
    pub worker_seconds: u64,
    /// Longest time that a task has waited, in seconds.
    pub max_wait: u32,
    /// Largest number of workers.
    pub peak: u32,
    /// Number of changes.
    pub changes: u32,
}

/// Runs a trace until all tasks ended, at most two hours longer than tasks arrive. `watch` sees each second.
pub fn run<'a>(
    trace: &Trace,
    seed: u64,
    autoscaler: impl FnOnce(&Plant<'_>) -> Box<dyn Autoscaler + 'a>,
    mut watch: impl FnMut(&Plant<'_>, &mut (dyn Autoscaler + 'a)),
) -> Result {
    let mut plant = Plant::new(trace, seed);
    let mut autoscaler = autoscaler(&plant);
    let end = u32::try_from(trace.seconds()).unwrap_or(u32::MAX);
    while plant.now() < end || (plant.has_work() && plant.now() < end + TAIL_S) {
        let current = plant.workers().len() as u32;
        plant.scale(autoscaler.decide(&plant, current));
        plant.tick();
        watch(&plant, autoscaler.as_mut());
    }
    let costs = plant.costs;
    Result {
        seconds_over: costs.seconds_over,
        worker_seconds: costs.worker_seconds,
        max_wait: costs.max_wait,
        peak: costs.peak,
        changes: costs.changes,
    }
}
