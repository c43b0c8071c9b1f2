//! The rules about numbers of pods that the spec sets. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use pulse_crd::PulseIngest;
use pulse_crd::names::Role;

use crate::desired;

/// The replicas that a Deployment should have: those of the spec, also for an API of another scaler that was stopped.
/// `None` if the Deployment has them already, or if another scaler sets them.
pub fn replica_mismatch(cr: &PulseIngest, role: Role, deployment: &Deployment) -> Option<i32> {
    let seen = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // An external scaler never scales up from zero: an API at zero was stopped by us, so we start it again.
    let started = (role == Role::Api && seen == Some(0)).then_some(cr.spec.api.replicas.cast_signed());
    desired::replicas(cr, role).or(started).filter(|wanted| seen != Some(*wanted))
}
