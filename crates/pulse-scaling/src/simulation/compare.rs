//! The rules of this crate and four settings of KEDA on the same trace, and what the comparison requires.

use super::keda::{Keda, Metric};
use super::plant::Plant;
use super::rules::Rules;
use super::run::{Autoscaler, run};
use super::trace::Trace;

/// Seeds of the runs whose means are compared.
pub const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
/// Names of the settings of KEDA, in the order of [`Comparison::keda`]: the first is its default.
pub(super) const KEDA: [&str; 4] = ["lag 5", "lag 5, cached", "pending 13", "length 100"];
/// A default that is over the target for longer, in seconds, is replaced by the best setting.
const DEFAULT_FAILS: f64 = 60.0;
/// What the best setting may have fewer of, as it was chosen afterwards.
const CHOSEN: f64 = 1.1;

/// Means over the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Seconds in which the oldest waiting task had waited longer than the target.
    pub seconds_over: f64,
    /// Seconds of workers.
    pub worker_seconds: f64,
    /// Longest time that a task has waited, in seconds.
    pub max_wait: f64,
    /// Number of changes.
    pub changes: f64,
}

/// The figures of one trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Name of the trace.
    pub name: String,
    /// The rules of this crate.
    pub ours: Figures,
    /// KEDA.
    pub keda: [Figures; 4],
}

impl Comparison {
    /// The setting of KEDA with the fewest seconds over the target, then the fewest worker-seconds.
    pub fn best(&self) -> usize {
        let figures = |index: &usize| self.keda[*index];
        (0..self.keda.len())
            .min_by(|left, right| {
                let (left, right) = (figures(left), figures(right));
                let over = left.seconds_over.total_cmp(&right.seconds_over);
                over.then(left.worker_seconds.total_cmp(&right.worker_seconds))
            })
            .unwrap_or(0)
    }

    /// Whether no figure is worse than with KEDA's default. A default that is over the target for more than a minute is
    /// replaced by the best setting.
    pub fn beats_default(&self) -> bool {
        let default = self.keda[0];
        if default.seconds_over > DEFAULT_FAILS {
            return self.beats_best();
        }
        self.ours.seconds_over <= default.seconds_over && self.ours.worker_seconds <= default.worker_seconds
    }

    /// Whether there are no more seconds over the target than with the best setting of this trace, and at most a tenth
    /// more worker-seconds.
    pub fn beats_best(&self) -> bool {
        let best = self.keda[self.best()];
        self.ours.seconds_over <= best.seconds_over && self.ours.worker_seconds <= CHOSEN * best.worker_seconds
    }
}

/// Compares on one trace: the means over [`SEEDS`].
pub fn compare(trace: &Trace) -> Comparison {
    let keda = |metric, target, cached| {
        mean(trace, move |plant, seed| Box::new(Keda::new(plant, metric, target, cached, seed)))
    };
    Comparison {
        name: trace.name.clone(),
        ours: mean(trace, |plant, seed| Box::new(Rules::new(plant, seed))),
        keda: [
            keda(Metric::Lag, 5.0, false),
            keda(Metric::Lag, 5.0, true),
            keda(Metric::Pending, 13.0, false),
            keda(Metric::Length, 100.0, false),
        ],
    }
}

/// Compares on many traces at the same time.
pub fn compare_all(traces: &[Trace]) -> Vec<Comparison> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = traces.iter().map(|trace| scope.spawn(|| compare(trace))).collect();
        let results = threads.into_iter().zip(traces).map(|(thread, trace)| {
            // A panic in a thread is the only error of `join`: run it here, where its message is of use.
            thread.join().unwrap_or_else(|_| compare(trace))
        });
        results.collect()
    })
}

fn mean(trace: &Trace, autoscaler: impl Fn(&Plant<'_>, u64) -> Box<dyn Autoscaler>) -> Figures {
    let mut sum = Figures::default();
    let count = SEEDS.count() as f64;
    for seed in SEEDS {
        let result = run(trace, seed, |plant| autoscaler(plant, seed), |_, _| {});
        sum.seconds_over += f64::from(result.seconds_over) / count;
        sum.worker_seconds += result.worker_seconds as f64 / count;
        sum.max_wait += f64::from(result.max_wait) / count;
        sum.changes += f64::from(result.changes) / count;
    }
    sum
}
