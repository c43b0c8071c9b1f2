//! A decision and what was learned, as they are written into the status: rounded, so that a small change of a measurement
//! causes no write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pulse_crd::{DecisionInputs, LastDecision, LearnedStatus};
use pulse_scaling::{Decision, Inputs, Learned};

/// Relative difference from which a new figure replaces the one in the status.
const DIFFERENCE: f64 = 0.2;
/// Tasks per second, and seconds of overhead, that count as none: both are forgotten while nothing happens.
const NO_ARRIVALS: f64 = 0.01;
const NO_OVERHEAD: f64 = 0.001;

/// The decision as it is written into the status. `from` is the previous number of workers.
pub fn record(decision: &Decision, from: u32, now: Timestamp) -> LastDecision {
    LastDecision {
        time: Time(now),
        from: from.cast_signed(),
        to: decision.replicas.cast_signed(),
        reason: decision.reason.name().to_owned(),
        limited_by: decision.limited_by.map(|limit| limit.name().to_owned()),
        inputs: inputs(&decision.inputs),
        message: decision.message.clone(),
    }
}

fn inputs(inputs: &Inputs) -> DecisionInputs {
    let Inputs { waiting, in_flight, oldest_age_seconds, arrivals_per_second, attempt_seconds } = *inputs;
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    DecisionInputs {
        waiting: waiting.map(count),
        in_flight: in_flight.map(count),
        oldest_age_seconds: oldest_age_seconds.map(count),
        arrivals_per_second: arrivals_per_second.map(rounded),
        attempt_seconds: attempt_seconds.map(rounded),
    }
}

/// The number of due tasks, and the age of the oldest one that waits, as far as they are known.
pub fn known(inputs: &Inputs) -> (Option<i64>, Option<i64>) {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let backlog = inputs.waiting.zip(inputs.in_flight).map(|(waiting, in_flight)| waiting.saturating_add(in_flight));
    let age = inputs.waiting.map(|_| inputs.oldest_age_seconds.unwrap_or(0));
    (backlog.map(count), age.map(count))
}

/// What was learned, as it is written into the status: what the status has already, unless it differs clearly.
pub fn learned(now: Learned, before: Option<&LearnedStatus>) -> LearnedStatus {
    let least = |figure: Option<f64>, none: f64| figure.map(|figure| if figure < none { 0.0 } else { rounded(figure) });
    let now = LearnedStatus {
        attempt_seconds: now.attempt_seconds.map(rounded),
        overhead_seconds: least(now.overhead_seconds, NO_OVERHEAD),
        arrivals_per_second: least(now.arrivals_per_second, NO_ARRIVALS),
        start_seconds: now.start_seconds.map(rounded),
    };
    let unknown = LearnedStatus::default();
    let before = before.unwrap_or(&unknown);
    if differs(&now, before) { now } else { before.clone() }
}

/// What is not known counts as zero, so that an object without tasks causes no write.
fn differs(now: &LearnedStatus, before: &LearnedStatus) -> bool {
    let figures =
        |of: &LearnedStatus| [of.attempt_seconds, of.overhead_seconds, of.arrivals_per_second, of.start_seconds];
    figures(now).into_iter().zip(figures(before)).any(|(now, before)| {
        let (now, before) = (now.unwrap_or(0.0), before.unwrap_or(0.0));
        (now - before).abs() > DIFFERENCE * now.max(before)
    })
}

/// What the status kept.
pub fn remembered(status: &LearnedStatus) -> Learned {
    let LearnedStatus { attempt_seconds, overhead_seconds, arrivals_per_second, start_seconds } = *status;
    Learned { attempt_seconds, overhead_seconds, arrivals_per_second, start_seconds }
}

/// The figure with two significant digits.
fn rounded(figure: f64) -> f64 {
    format!("{figure:.1e}").parse().unwrap_or(figure)
}

/// Truncates `12345` to `12000`, so that small changes of a measurement do not cause a write.
pub fn two_digits(number: i64) -> i64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(attempt: f64, arrivals: f64) -> Learned {
        Learned {
            attempt_seconds: Some(attempt),
            arrivals_per_second: Some(arrivals),
            start_seconds: Some(3.04),
            overhead_seconds: None,
        }
    }

    #[test]
    fn learned_is_rounded_and_changes_only_clearly() {
        let first = learned(figures(0.3217, 45.6), None);
        assert_eq!((first.attempt_seconds, first.arrivals_per_second), (Some(0.32), Some(46.0)));
        assert_eq!((first.overhead_seconds, first.start_seconds), (None, Some(3.0)));
        assert_eq!(learned(figures(0.35, 40.0), Some(&first)), first);
        let second = learned(figures(0.45, 45.6), Some(&first));
        assert_eq!(second.attempt_seconds, Some(0.45));
        assert_eq!(remembered(&second).arrivals_per_second, Some(46.0));
    }

    #[test]
    fn learned_of_an_idle_object_stops_changing() {
        let (mut arrivals, mut kept, mut changes) = (100.0, learned(figures(0.3, 100.0), None), 0);
        for _ in 0..1000 {
            arrivals *= 0.7;
            let next = learned(figures(0.3, arrivals), Some(&kept));
            changes += u32::from(next != kept);
            kept = next;
        }
        assert_eq!(kept.arrivals_per_second, Some(0.0));
        let idle = Learned { arrivals_per_second: Some(0.0), ..Learned::default() };
        assert_eq!(learned(idle, None), LearnedStatus::default(), "zero is no news");
        assert!(changes <= 27, "{changes} changes from 100 to less than 0.01 per second");
    }

    #[test]
    fn known_backlog_has_tasks_in_flight_and_no_age_if_nothing_waits() {
        let inputs = Inputs { waiting: Some(3), in_flight: Some(4), oldest_age_seconds: Some(9), ..Inputs::default() };
        assert_eq!(known(&inputs), (Some(7), Some(9)));
        assert_eq!(known(&Inputs { waiting: Some(0), oldest_age_seconds: None, ..inputs }), (Some(4), Some(0)));
        assert_eq!(known(&Inputs { waiting: None, ..inputs }), (None, None), "what Redis alone knows is no backlog");
    }
}
