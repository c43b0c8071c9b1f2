//! The scaling rules of a spec, as `pulse-scaling` takes them.

use jiff::SignedDuration;
use pulse_crd::{Autoscaling, AutoscalingMode, PulseIngestSpec, ScheduleSpec};
use pulse_scaling::{Behavior, Policy, Schedule, ScheduleError, Target};

use crate::connections;

/// The scaling rules of a spec.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The rules, without a schedule that cannot be used.
    pub policy: Policy,
    /// The first schedule that cannot be used.
    pub invalid: Option<ScheduleError>,
}

impl Rules {
    /// Reads the rules from a spec; `poll` is the time between two samples.
    pub fn new(spec: &PulseIngestSpec, poll: SignedDuration) -> Self {
        let workers = &spec.workers;
        let internal = workers.autoscaling.as_ref().filter(|it| it.mode == AutoscalingMode::Internal);
        let fixed = match internal {
            _ if spec.stopped => Some(0),
            None => Some(workers.replicas),
            Some(_) => None,
        };
        let common = Policy {
            fixed,
            min: workers.replicas,
            max: workers.replicas,
            connection_limit: connections::max_workers(spec, spec.api.replicas),
            concurrency: workers.concurrency,
            poll,
            ..Policy::default()
        };
        let Some(internal) = internal else { return Self { policy: common, invalid: None } };
        let (schedules, invalid) = schedules(&internal.schedules);
        let Autoscaling { min_replicas, max_replicas, fallback, target, behavior, idle_seconds, paused, .. } = internal;
        let policy = Policy {
            min: *min_replicas,
            // The schema requires a maximum in this mode.
            max: max_replicas.unwrap_or(*min_replicas),
            schedules,
            fallback: *fallback,
            target: target.clone().map(Target::from).unwrap_or_default(),
            behavior: behavior.clone().map(Behavior::from).unwrap_or_default(),
            idle: SignedDuration::from_secs(i64::from(*idle_seconds)),
            paused: (*paused).into(),
            ..common
        };
        Self { policy, invalid }
    }
}

/// The schedules that can be used, and why the first of the others cannot.
fn schedules(specs: &[ScheduleSpec]) -> (Vec<Schedule>, Option<ScheduleError>) {
    let mut invalid = None;
    let schedule = |spec: &ScheduleSpec| {
        Schedule::new(&spec.start, &spec.end, &spec.time_zone, spec.min_replicas)
            .map_err(|error| _ = invalid.get_or_insert(error))
            .ok()
    };
    (specs.iter().filter_map(schedule).collect(), invalid)
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;
    use serde_json::{Value, json};

    use super::*;

    fn rules(autoscaling: Value) -> Rules {
        let cr = pulse_ingest(json!({ "workers": { "autoscaling": autoscaling } }));
        Rules::new(&cr.spec, SignedDuration::from_secs(10))
    }

    #[test]
    fn rules_without_settings_are_those_of_pulse_scaling() {
        let Rules { policy, invalid } = rules(json!({ "maxReplicas": 7 }));
        let expected = Policy { min: 1, max: 7, ..Policy::default() };
        assert_eq!(format!("{policy:?}"), format!("{expected:?}"));
        assert!(invalid.is_none());
    }

    #[test]
    fn rules_have_the_fallback_and_the_schedules() {
        let schedule =
            |start| json!({ "start": start, "end": "0 18 * * 1-5", "timeZone": "Europe/Berlin", "minReplicas": 5 });
        let of = |schedules| rules(json!({ "maxReplicas": 7, "fallback": 3, "schedules": schedules }));
        let Rules { policy, invalid } = of(json!([schedule("0 8 * * 1-5")]));
        assert_eq!((policy.fallback, policy.schedules.len(), invalid.is_none()), (Some(3), 1, true));

        let Rules { policy, invalid } = of(json!([schedule("0 99 * * *"), schedule("0 8 * * 1-5")]));
        assert_eq!(policy.schedules.len(), 1, "the other schedule applies");
        let error = invalid.expect("an error").to_string();
        assert!(error.contains("0 99 * * *"), "{error}");
    }

    #[test]
    fn rules_without_autoscaling_are_a_fixed_number() {
        let fixed = |spec| Rules::new(&pulse_ingest(spec).spec, SignedDuration::ZERO).policy.fixed;
        assert_eq!(fixed(json!({ "workers": { "replicas": 3 } })), Some(3));
        assert_eq!(fixed(json!({ "workers": { "autoscaling": { "maxReplicas": 3 } } })), None);
        assert_eq!(fixed(json!({ "stopped": true, "workers": { "autoscaling": { "maxReplicas": 3 } } })), Some(0));
    }
}
