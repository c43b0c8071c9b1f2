//! Creates, expires and deletes migration Jobs. A Job is never changed otherwise.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use pulse_crd::names::MANAGER;
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::observed::Observed;
use serde_json::json;

use super::applier::Applier;
use super::object::{Rendered, api_error, key};

impl Applier<'_> {
    /// Creates a Job. With the migration, the rollout of a running instance begins.
    pub(super) async fn create_job(
        &self,
        job: &Job,
        observed: &Observed,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let key = key::<Job>(&job.name_any());
        if !observed.deployments.is_empty() && !self.dry_run && !(self.may_roll)() {
            report.queued.push(key);
            return Ok(());
        }
        self.guarded(key, &Rendered::of(job).hash, self.create(job, report)).await.map(drop)
    }

    /// Sets the TTL of ended Jobs that have none.
    ///
    /// # Errors
    /// [`ReconcileError::Refused`] if a Job cannot be patched.
    pub(super) async fn expire_jobs(&self, jobs: &[(String, i32)], observed: &Observed) -> Result<(), ReconcileError> {
        for (name, seconds) in jobs {
            let job = observed.jobs.iter().find(|job| job.name_any() == *name);
            let kept = job.and_then(|job| job.spec.as_ref()?.ttl_seconds_after_finished);
            if self.dry_run || job.is_none() || kept.is_some() {
                continue;
            }
            let patch = json!({ "spec": { "ttlSecondsAfterFinished": seconds } });
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match self.api::<Job>().patch(name, &params, &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(api_error::<Job>("patch", name)(error)),
            }
        }
        Ok(())
    }

    /// Deletes Jobs that would hold the migration up. Each stays until its pods are gone, so that the next Job does not
    /// run beside them.
    pub(super) async fn delete_jobs(
        &self,
        names: &[String],
        observed: &Observed,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let mut result = Ok(());
        for job in observed.jobs.iter().filter(|job| names.contains(&job.name_any())) {
            // A pod that has become ready meanwhile has changed the Job.
            let version = job.resource_version();
            result = result.and(self.delete::<Job>(job, version, DeleteParams::foreground(), report).await);
        }
        result
    }
}
