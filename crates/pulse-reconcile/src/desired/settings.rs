//! The settings of a component's pods in the spec.

use pulse_crd::names::Role;
use pulse_crd::{PodTemplate, PulseIngest, Resources};

/// Returns the settings of the pods of a component.
pub(super) fn pod_settings<'a>(cr: &'a PulseIngest, component: &str) -> (&'a PodTemplate, &'a Resources) {
    let spec = &cr.spec;
    match Role::ALL.into_iter().find(|role| role.component() == component) {
        Some(Role::Api) => (&spec.api.pod_template, &spec.api.resources),
        Some(Role::Worker) => (&spec.workers.pod_template, &spec.workers.resources),
        Some(Role::Scheduler) => (&spec.scheduler.pod_template, &spec.scheduler.resources),
        Some(Role::Console) => (&spec.console.pod_template, &spec.console.resources),
        None => (&spec.migrations.pod_template, &spec.migrations.resources),
    }
}
