//! Decides which migration Job runs, and whether the desired revision may roll out. Pure.
//!
//! The migrations table in the database is authoritative, so running a Job twice is harmless. The name of a Job
//! contains a hash of all its inputs: changed inputs create a new Job, and an existing Job is never edited. A Job that
//! vanished without a result runs again, because its absence does not prove that it has succeeded. The Job before is
//! one of the inputs: inputs that come back after others run again, because the schema may have changed in between.

mod outcome;
mod request;
mod state;
mod steps;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube_core::ResourceExt;

use self::outcome::{JobOutcome, has_ended, is_idle, outcome};
use self::request::next_request;
pub use self::state::{Migration, MigrationWait, NEEDS_APPROVAL};
use pulse_crd::{MigrationPolicy, MigrationState, MigrationsStatus, PulseIngest, Revision};

use self::steps::{advance, failed_message, finished, is_final, waiting};

/// Time for which a Job with a known result may be kept running by containers that another client has added.
const SIDECAR_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// Plans the migration to the `desired` revision. `url_digest` is the digest of the database's URL; `None` if the URL
/// or the CA cannot be read.
pub fn plan_migration(
    cr: &PulseIngest,
    desired: &Revision,
    url_digest: Option<&str>,
    jobs: &[Arc<Job>],
    job_pods: &[Arc<Pod>],
    now: Timestamp,
) -> Migration {
    let mut migration = next_step(cr, desired, url_digest, jobs, job_pods, now);
    // A container that another client has added, such as a proxy, may never end. The exit code of our container
    // decides, and the Job is deleted once the result is in the status.
    let known = cr.status.as_ref().and_then(|status| status.migrations.as_ref());
    let recorded = known.filter(|known| known.job_name == migration.status.job_name);
    if let Some(job) = jobs.iter().find(|job| job.name_any() == migration.status.job_name)
        && let Some(finished) = &migration.status.finished_at
        && !has_ended(job)
    {
        migration.unended = true;
        let is_recorded = recorded.is_some_and(|recorded| recorded.finished_at.is_some());
        let is_overdue = now.duration_since(finished.0) >= SIDECAR_PATIENCE;
        let is_deleted = job.metadata.deletion_timestamp.is_some();
        migration.delete.extend((is_recorded && is_overdue && !is_deleted).then(|| job.name_any()));
    }
    migration
}

fn next_step(
    cr: &PulseIngest,
    desired: &Revision,
    url_digest: Option<&str>,
    jobs: &[Arc<Job>],
    job_pods: &[Arc<Pod>],
    now: Timestamp,
) -> Migration {
    let known = cr.status.as_ref().and_then(|status| status.migrations.clone()).unwrap_or_default();
    let Some(url_digest) = url_digest else {
        let runs = cr.status.as_ref().and_then(|status| status.active_revision.as_ref()) == Some(desired);
        if runs && known.state == MigrationState::Done {
            return finished(known);
        }
        let message = "the Secret with the database's URL or its CA cannot be read: create it";
        return waiting(known, "WaitingForReference", message.into(), false);
    };
    let (request, after) = next_request(cr, desired, url_digest, &known);
    let is_current = known.job_name == request.name;
    if is_current && known.state == MigrationState::Done {
        return finished(known);
    }
    if is_current && known.state == MigrationState::Failed && is_final(known.exit_code) {
        let message = failed_message(&known);
        return waiting(known, "MigrationFailed", message, true);
    }
    if is_current && known.state == MigrationState::Planned && cr.spec.migrations.policy == MigrationPolicy::Plan {
        let message = known.message.clone();
        return waiting(known, NEEDS_APPROVAL, message, true);
    }
    let outcome = outcome(&request.name, jobs, job_pods);
    if matches!(outcome, JobOutcome::Absent)
        && let Some(other) = jobs.iter().find(|job| !has_ended(job))
    {
        // A Job whose image cannot be pulled, for example, would not end before its deadline.
        let is_deletable = other.metadata.deletion_timestamp.is_none() && is_idle(other, job_pods);
        let delete = Vec::from_iter(is_deletable.then(|| other.name_any()));
        let status = MigrationsStatus { state: MigrationState::Running, ..known };
        let message = format!("waiting for Job {} of other inputs to end", other.name_any());
        return Migration { delete, ..waiting(status, "MigrationRunning", message, false) };
    }
    advance(cr, request, after, outcome, known, now)
}

#[cfg(test)]
mod tests;
