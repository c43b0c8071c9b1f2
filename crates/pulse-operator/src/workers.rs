//! Scales the workers of one object as decided, through `apply`.

use pulse_crd::PendingChange;
use pulse_crd::names::{self, Role};
use pulse_reconcile::scaling::choose_victims;
use pulse_reconcile::workers::{ScalingMemory, ScalingPlan};

use crate::apply::{Applier, ApplyError, ApplyReport};
use crate::metrics::OperatorMetrics;

/// Applies a decision. Returns the numbers of workers before and after if they differ.
///
/// # Errors
/// [`ApplyError`] if the Deployment cannot be read or scaled; the next reconcile decides again.
pub(crate) async fn apply_scaling(
    applier: &Applier<'_>,
    decided: &ScalingPlan,
    memory: &ScalingMemory,
    metrics: &OperatorMetrics,
    applied: &mut ApplyReport,
) -> Result<Option<(u32, u32)>, ApplyError> {
    let ScalingPlan { from, candidates, decision, .. } = decided;
    let (from, to) = (*from, decision.replicas);
    if from == to {
        return Ok(None);
    }
    let name = names::child(applier.cr, Role::Worker.component());
    applied.changes.push(PendingChange {
        object: format!("Deployment {name}"),
        action: "scale".into(),
        restarts: false,
    });
    if applier.dry_run {
        return Ok(None);
    }
    let Some(live) = applier.live(&name).await? else { return Ok(None) };
    let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if u32::try_from(replicas).ok() != Some(from) {
        // The cache is stale: decide again once it has caught up.
        return Ok(None);
    }
    if to < from {
        let count = candidates.len().saturating_sub(to as usize);
        for change in choose_victims(candidates, &memory.in_flight, count) {
            applier.set_deletion_cost(&change.pod, change.cost).await?;
        }
    }
    if !applier.scale(&live, to.cast_signed()).await? {
        return Ok(None);
    }
    metrics.decided(from.cast_signed(), to.cast_signed(), decision.reason.name());
    tracing::info!(object = names::instance_id(applier.cr), from, to, why = decision.message, "workers scaled");
    Ok(Some((from, to)))
}
