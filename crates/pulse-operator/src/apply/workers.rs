//! Changes the number of workers.

use pulse_crd::names::{self, Role};
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::workers::ScalingPlan;

use super::applier::Applier;
use super::replicas::scaling;
use crate::metrics::OperatorMetrics;

impl Applier<'_> {
    /// Scales the workers as decided. Returns the numbers before and after if they differ.
    ///
    /// # Errors
    /// [`ReconcileError`] if the Deployment cannot be read or scaled; the next reconcile decides again.
    pub(super) async fn workers(
        &self,
        plan: Option<&ScalingPlan>,
        metrics: &OperatorMetrics,
        report: &mut ApplyReport,
    ) -> Result<Option<(u32, u32)>, ReconcileError> {
        let Some(ScalingPlan { from, decision, victims, .. }) = plan else { return Ok(None) };
        let (from, to) = (*from, decision.replicas);
        if from == to {
            return Ok(None);
        }
        let name = names::child(self.cr, Role::Worker.component());
        report.changes.push(scaling(&name));
        if self.dry_run {
            return Ok(None);
        }
        let Some(live) = self.live(&name).await? else { return Ok(None) };
        let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        if u32::try_from(replicas).ok() != Some(from) {
            // The cache is stale: decide again once it has caught up.
            return Ok(None);
        }
        for change in victims {
            self.set_deletion_cost(&change.pod, change.cost).await?;
        }
        if !self.scale(&live, to.cast_signed()).await? {
            return Ok(None);
        }
        metrics.decided(from.cast_signed(), to.cast_signed(), decision.reason.name());
        tracing::info!(object = names::instance_id(self.cr), from, to, why = decision.message, "workers scaled");
        Ok(Some((from, to)))
    }
}
