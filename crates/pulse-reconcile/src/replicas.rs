//! The rules about numbers of pods. Only that of the workers with autoscaling comes from elsewhere: `pulse-scaling`.

use k8s_openapi::api::apps::v1::Deployment;
use kube_core::ResourceExt;
use pulse_crd::PulseIngest;
use pulse_crd::names::Role;

use crate::connections::Use;
use crate::observed::Observed;
use crate::scaling::Rules;

/// A number of pods that differs from the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaChange {
    /// Name of the Deployment.
    pub deployment: String,
    /// Its number of pods; `None` if it has none yet.
    pub from: Option<i32>,
    /// The number that it should have.
    pub to: i32,
    /// Whether the change has to wait, to stay within the budget of connections.
    pub held: bool,
}

/// Returns the number of pods of a role if the spec alone determines it. It does not for workers, nor for an API with
/// an external autoscaler, nor for a console that is off.
pub fn fixed(cr: &PulseIngest, role: Role) -> Option<i32> {
    let desired = match role {
        Role::Worker => return None,
        Role::Console if !cr.spec.console.enabled => return None,
        _ if cr.spec.stopped => 0,
        Role::Api if cr.spec.api.autoscaling.is_some() => return None,
        Role::Api => cr.spec.api.replicas,
        Role::Scheduler => cr.spec.scheduler.replicas,
        Role::Console => cr.spec.console.replicas,
    };
    Some(desired.cast_signed())
}

/// Returns the number of pods with which the Deployment of a role is created. That of the workers starts with the number
/// of its policy, that of an API of another scaler with the number of the spec.
pub fn initial(cr: &PulseIngest, role: Role) -> i32 {
    let unfixed = match role {
        Role::Worker => Rules::new(&cr.spec, jiff::SignedDuration::ZERO).policy.initial_replicas(),
        _ => cr.spec.api.replicas,
    };
    fixed(cr, role).unwrap_or(unfixed.cast_signed())
}

/// Returns the Deployments that have another number of pods than the spec. `used` is the use of the budget of connections.
pub fn changes(cr: &PulseIngest, observed: &Observed, used: Option<&Use>) -> Vec<ReplicaChange> {
    let change = |(role, deployment): (&Role, &std::sync::Arc<Deployment>)| {
        let from = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        // An external scaler never scales up from zero: an API at zero was stopped by us, so we start it again.
        let started = (*role == Role::Api && from == Some(0)).then_some(cr.spec.api.replicas.cast_signed());
        let to = fixed(cr, *role).or(started).filter(|to| from != Some(*to))?;
        let holds = |used: &Use| {
            from.is_some_and(|from| if to > from { used.holds(*role, true) } else { used.holds_removal(*role) })
        };
        let held = used.is_some_and(holds);
        Some(ReplicaChange { deployment: deployment.name_any(), from, to, held })
    };
    observed.deployments.iter().filter_map(change).collect()
}
