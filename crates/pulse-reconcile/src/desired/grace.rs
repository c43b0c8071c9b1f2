//! The time that pods have to terminate, computed from the time that their role takes to drain, or the reverse.

use pulse_core::defaults;
use pulse_crd::names::Role;
use pulse_crd::{API_GRACE_SECONDS, PodTemplate, PulseIngest, WORKER_GRACE_SECONDS, WorkersSpec};

/// Termination grace period of a scheduler and of a console, which end within seconds.
const SHORT_SECONDS: u32 = 30;

/// Returns the drain timeout of a worker, in seconds: as given, or what the grace period leaves.
pub(super) fn worker_drain_seconds(workers: &WorkersSpec) -> u32 {
    let grace = workers.pod_template.termination_grace_period_seconds;
    let left = grace.map(|grace| grace.saturating_sub(WORKER_GRACE_SECONDS));
    workers.drain_timeout_seconds.or(left).unwrap_or(defaults::WORKER_DRAIN_TIMEOUT_SECONDS)
}

/// Returns the termination grace period, in seconds: as given, but at least what the role needs to drain.
pub(super) fn grace_seconds(cr: &PulseIngest, role: Role) -> u32 {
    let (needed, template) = match role {
        Role::Api => (cr.spec.api.drain_delay_seconds + API_GRACE_SECONDS, &cr.spec.api.pod_template),
        Role::Worker => (worker_drain_seconds(&cr.spec.workers) + WORKER_GRACE_SECONDS, &cr.spec.workers.pod_template),
        Role::Scheduler => return short(&cr.spec.scheduler.pod_template),
        Role::Console => return short(&cr.spec.console.pod_template),
    };
    template.termination_grace_period_seconds.unwrap_or(0).max(needed)
}

fn short(template: &PodTemplate) -> u32 {
    template.termination_grace_period_seconds.unwrap_or(SHORT_SECONDS)
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;
    use serde_json::json;

    use super::*;

    #[test]
    fn drain_and_grace_of_workers_follow_from_each_other() {
        let table = [
            (None, None, (60, 75)),
            (Some(100), None, (100, 115)),
            (None, Some(45), (30, 45)),
            (Some(100), Some(200), (100, 200)),
            // The schema refuses these.
            (Some(100), Some(50), (100, 115)),
            (None, Some(5), (0, 15)),
        ];
        for (drain, grace, expected) in table {
            let template = json!({ "terminationGracePeriodSeconds": grace });
            let cr = pulse_ingest(json!({ "workers": { "drainTimeoutSeconds": drain, "podTemplate": template } }));
            let result = (worker_drain_seconds(&cr.spec.workers), grace_seconds(&cr, Role::Worker));
            assert_eq!(result, expected, "{drain:?} {grace:?}");
        }
    }

    #[test]
    fn grace_of_the_api_covers_its_drain() {
        for (delay, grace, expected) in
            [(5, None, 35), (0, None, 30), (60, None, 90), (5, Some(120), 120), (5, Some(1), 35)]
        {
            let template = json!({ "terminationGracePeriodSeconds": grace });
            let cr = pulse_ingest(json!({ "api": { "drainDelaySeconds": delay, "podTemplate": template } }));
            assert_eq!(grace_seconds(&cr, Role::Api), expected, "{delay} {grace:?}");
        }
    }
}
