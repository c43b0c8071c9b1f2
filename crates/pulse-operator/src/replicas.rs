//! Scales the Deployments whose number of pods the spec sets, through `apply`.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use pulse_crd::names::Role;
use pulse_crd::{PendingChange, PulseIngest};

use crate::apply::{Applier, ApplyError, ApplyReport};
use crate::desired;
use crate::observe::Observed;

/// The replicas that a Deployment should have: those of the spec, also for an API of another scaler that was stopped.
/// `None` if the Deployment has them already, or if another scaler sets them.
pub(crate) fn replica_mismatch(cr: &PulseIngest, role: Role, deployment: &Deployment) -> Option<i32> {
    let seen = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // An external scaler never scales up from zero: an API at zero was stopped by us, so we start it again.
    let started = (role == Role::Api && seen == Some(0)).then_some(cr.spec.api.replicas.cast_signed());
    desired::replicas(cr, role).or(started).filter(|wanted| seen != Some(*wanted))
}

/// Scales the Deployments whose replicas the spec sets.
///
/// # Errors
/// [`ApplyError`] if a Deployment cannot be read or scaled; the others are scaled nevertheless.
pub(crate) async fn scale(
    applier: &Applier<'_>,
    observed: &Observed,
    applied: &mut ApplyReport,
) -> Result<(), ApplyError> {
    let mut result = Ok(());
    for (role, deployment) in &observed.deployments {
        let Some(wanted) = replica_mismatch(applier.cr, *role, deployment) else { continue };
        let name = deployment.name_any();
        let adds_pods = deployment.spec.as_ref().and_then(|spec| spec.replicas).is_some_and(|now| wanted > now);
        if adds_pods && applier.used.is_some_and(|used| used.holds(*role, true)) {
            applied.held.push(name);
            continue;
        }
        applied.changes.push(PendingChange {
            object: format!("Deployment {name}"),
            action: "scale".into(),
            restarts: false,
        });
        if !applier.dry_run {
            result = result.and(applier.scale_if_needed(&name, wanted).await);
        }
    }
    result
}
