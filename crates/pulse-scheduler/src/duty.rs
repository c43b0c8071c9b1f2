//! Limits the part of the time that a job takes whose cost grows with the backlog.

use std::time::Duration;

use tokio::time::Instant;

/// Rest after a run, as a multiple of its time: three such jobs together take 5 % of a processor core at most.
const REST: f64 = 60.0;

/// When a job may run again.
#[derive(Debug, Default)]
pub(crate) struct Duty(Option<Run>);

/// The last run.
#[derive(Debug, Clone, Copy)]
struct Run {
    ended: Instant,
    took: Duration,
}

impl Duty {
    /// Whether the job has rested enough to run again. `share` is its expected cost, as a part of that of the last run.
    pub(crate) fn may_run(&self, share: f64) -> bool {
        self.0.is_none_or(|run| run.ended.elapsed() >= run.took.mul_f64(REST * share.clamp(0.0, 1.0)))
    }

    /// Notes a run that ends now.
    pub(crate) fn record(&mut self, started: Instant) {
        let ended = Instant::now();
        self.0 = Some(Run { ended, took: ended - started });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a run of one second that ended some seconds ago.
    fn rested(seconds: u64) -> Duty {
        let run = Run { ended: Instant::now() - Duration::from_secs(seconds), took: Duration::from_secs(1) };
        Duty(Some(run))
    }

    #[test]
    fn job_rests_in_proportion_to_its_time() {
        assert!(Duty::default().may_run(1.0));
        assert!(!rested(55).may_run(1.0));
        assert!(rested(60).may_run(1.0));
        let mut duty = Duty::default();
        duty.record(Instant::now() - Duration::from_secs(1));
        assert!(!duty.may_run(1.0));
    }

    #[test]
    fn job_that_has_become_cheaper_rests_less() {
        assert!(!rested(5).may_run(1.0));
        assert!(rested(6).may_run(0.1));
    }
}
