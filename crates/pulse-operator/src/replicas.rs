//! Scales the Deployments whose number of pods the spec sets, through `apply`.

use kube::ResourceExt;
use pulse_crd::PendingChange;
use pulse_reconcile::observed::Observed;
use pulse_reconcile::replicas::replica_mismatch;

use crate::apply::{Applier, ApplyError, ApplyReport};

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
