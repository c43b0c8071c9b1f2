//! Decides which migration Job runs, and whether the desired revision may roll out. Pure.
//!
//! The migrations table in the database is authoritative, so running a Job twice is harmless. The name of a Job
//! contains a hash of all its inputs: changed inputs create a new Job, and an existing Job is never edited. A Job that
//! vanished without a result runs again, because its absence does not prove that it has succeeded. The Job before is
//! one of the inputs: inputs that come back after others run again, because the schema may have changed in between.

mod outcome;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use self::outcome::{JobOutcome, JobResult, has_ended, is_idle, outcome};
use crate::crd::{
    MigrationPolicy, MigrationState, MigrationsSpec, MigrationsStatus, PlanSummary, PulseIngest, Revision,
};
use crate::desired::{FINAL_EXIT_CODES, JobKind, JobRequest};
use crate::names::short_hash;
use crate::unapplied::ROLLOUT_QUEUED;

/// Reason while a plan waits for its approval.
pub(crate) const NEEDS_APPROVAL: &str = "PlanNeedsApproval";
/// Reason while the pod of a Job cannot start.
const POD_NOT_STARTING: &str = "MigrationPodNotStarting";
/// Time for which a Job is kept once its result is in the status, in seconds.
const KEEP_SECONDS: i32 = 86_400;
/// Time after which an ended Job is removed so that it can run again, in seconds.
const RERUN_SECONDS: i32 = 60;
/// Time for which a Job with a known result may be kept running by containers that another client has added.
const SIDECAR_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// State of the schema, and the Jobs to create and to expire.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Migration {
    /// `status.migrations`.
    pub(crate) status: MigrationsStatus,
    /// True if the schema fits the desired revision.
    pub(crate) done: bool,
    /// Job to create.
    pub(crate) create: Option<JobRequest>,
    /// Jobs whose results are known, with the time after which they are removed, in seconds.
    pub(crate) expire: Vec<(String, i32)>,
    /// Jobs to delete, because they would not end soon: those of other inputs in which nothing was started, and those
    /// with a known result that other containers keep running.
    pub(crate) delete: Vec<String>,
    /// True if a Job with a known result has not ended yet.
    pub(crate) unended: bool,
    /// The reason why the schema does not fit the desired revision yet.
    pub(crate) waiting: Option<MigrationWait>,
}

impl Migration {
    /// Says why the pods of the Job are rejected, if they are: by a quota, Pod Security, or an admission policy.
    pub(crate) fn with_rejections(mut self, rejections: &BTreeMap<String, String>) -> Self {
        let job = &self.status.job_name;
        if let (Some(waiting), Some(rejection)) = (&mut self.waiting, rejections.get(job)) {
            waiting.reason = POD_NOT_STARTING;
            waiting.message = format!("the pods of Job {job} are rejected: {rejection}");
        }
        self
    }

    /// Whether a Job runs, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        !self.done && matches!(self.status.state, MigrationState::Planning | MigrationState::Running)
    }

    /// Records that the Job is not created yet. `known` is the status before.
    pub(crate) fn queued(&mut self, known: MigrationsStatus, message: &str) {
        self.status = known;
        self.waiting = Some(MigrationWait { reason: ROLLOUT_QUEUED, message: message.to_owned(), needs_action: false });
    }
}

/// The reason why the schema does not fit the desired revision yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigrationWait {
    /// Reason of the condition.
    pub(crate) reason: &'static str,
    /// Message of the condition.
    pub(crate) message: String,
    /// True if waiting does not help, because the user has to act.
    pub(crate) needs_action: bool,
}

/// Plans the migration to the `desired` revision. `url_digest` is the digest of the database's URL; `None` if the URL
/// or the CA cannot be read.
pub(crate) fn plan_migration(
    cr: &PulseIngest,
    desired: &Revision,
    url_digest: Option<&str>,
    jobs: &[Arc<Job>],
    job_pods: &[Arc<Pod>],
    now: Timestamp,
) -> Migration {
    let mut migration = next_step(cr, desired, url_digest, jobs, job_pods, now);
    // A container that another client has added, such as a proxy, may never end. The exit code of our own container
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

/// Returns the Job that the policy requires next, given what the status records about earlier ones, and the name of the
/// Job before it.
fn next_request(
    cr: &PulseIngest,
    desired: &Revision,
    url_digest: &str,
    known: &MigrationsStatus,
) -> (JobRequest, String) {
    let MigrationsSpec { policy, approved_plan, allow_destructive, active_deadline_seconds: _, trigger } =
        &cr.spec.migrations;
    let name = |kind: JobKind, args: &[&str], after: &str| {
        let key = &desired.database_url_secret_ref;
        let inputs = [kind.verb(), &desired.image, &key.name, &key.key, trigger.as_deref().unwrap_or(""), url_digest];
        let after = Some(after).filter(|after| !after.is_empty());
        let hash = short_hash(inputs.into_iter().chain(args.iter().copied()).chain(after));
        format!("{}-{}-{hash}", cr.name_any(), kind.verb())
    };
    let request = |kind: JobKind, args: Vec<&str>| {
        // It is either the Job that the status describes, or the successor of that Job.
        let same = name(kind, &args, &known.after) == known.job_name;
        let after = if same { &known.after } else { &known.job_name };
        let name = name(kind, &args, after);
        let args = args.into_iter().map(str::to_owned).collect();
        (JobRequest { name, kind, revision: desired.clone(), args }, after.clone())
    };
    let mut migrate = vec!["migrate"];
    if *allow_destructive {
        migrate.push("--allow-destructive");
    }
    let plan = request(JobKind::Plan, vec!["migrate", "--plan"]);
    match policy {
        MigrationPolicy::Auto => request(JobKind::Migrate, migrate),
        MigrationPolicy::Manual => plan,
        MigrationPolicy::Plan => match approved_plan {
            Some(hash) if known.plan_hash.as_ref() == Some(hash) => {
                migrate.extend(["--expect-plan", hash]);
                let approved = request(JobKind::Migrate, migrate);
                // The approval of a plan with other inputs does not apply to these inputs.
                if [&plan.0.name, &approved.0.name].contains(&&known.job_name) { approved } else { plan }
            }
            _ => plan,
        },
    }
}

fn advance(
    cr: &PulseIngest,
    request: JobRequest,
    after: String,
    outcome: JobOutcome,
    known: MigrationsStatus,
    now: Timestamp,
) -> Migration {
    let kind = request.kind;
    let is_current = known.job_name == request.name;
    let status = started(&request, after, &known);
    let finished_at = known.finished_at.clone().filter(|_| is_current).unwrap_or(Time(now));
    if is_current
        && known.state == MigrationState::Planned
        && matches!(outcome, JobOutcome::Absent | JobOutcome::Running(_))
    {
        // Policy Manual: plan again, and keep reporting the known plan until there is a new result.
        let message = known.message.clone();
        let create = matches!(outcome, JobOutcome::Absent).then_some(request);
        return Migration { create, ..waiting(known, "ManualMigrationNeeded", message, true) };
    }
    let activity = match kind {
        JobKind::Plan => "is planning the migration",
        JobKind::Migrate => "is migrating the schema",
    };
    match outcome {
        JobOutcome::Absent => {
            let message = format!("Job {} {activity}", request.name);
            Migration { create: Some(request), ..waiting(status, running(kind), message, false) }
        }
        JobOutcome::Running(None) => {
            let message = format!("Job {} {activity}", request.name);
            waiting(status, running(kind), message, false)
        }
        JobOutcome::Running(Some(failure)) => {
            let message = format!("the pod of Job {} cannot start: {failure}", request.name);
            waiting(status, POD_NOT_STARTING, message, false)
        }
        JobOutcome::Failed { exit_code, message } => {
            let finished_at = Some(finished_at);
            failed(MigrationsStatus { state: MigrationState::Failed, exit_code, message, finished_at, ..status })
        }
        JobOutcome::Succeeded(result) => {
            let finished_at = Some(finished_at);
            succeeded(cr, kind, MigrationsStatus { finished_at, ..status }, result)
        }
    }
}

/// The status once the Job of `request` exists.
fn started(request: &JobRequest, after: String, known: &MigrationsStatus) -> MigrationsStatus {
    // A plan of other inputs does not apply to these inputs, but migrating keeps the approved plan.
    let keeps_plan = known.job_name == request.name || request.kind == JobKind::Migrate;
    MigrationsStatus {
        state: if request.kind == JobKind::Plan { MigrationState::Planning } else { MigrationState::Running },
        job_name: request.name.clone(),
        after,
        exit_code: None,
        message: String::new(),
        finished_at: None,
        plan_hash: known.plan_hash.clone().filter(|_| keeps_plan),
        plan: known.plan.clone().filter(|_| keeps_plan),
        schema_version: known.schema_version,
        ahead: None,
    }
}

fn failed(status: MigrationsStatus) -> Migration {
    let is_final = is_final(status.exit_code);
    let message = failed_message(&status);
    let expire = vec![(status.job_name.clone(), if is_final { KEEP_SECONDS } else { RERUN_SECONDS })];
    Migration { expire, ..waiting(status, "MigrationFailed", message, is_final) }
}

fn succeeded(cr: &PulseIngest, kind: JobKind, mut status: MigrationsStatus, result: Option<JobResult>) -> Migration {
    let job = status.job_name.clone();
    status.ahead = result.as_ref().map(|result| result.ahead).filter(|ahead| *ahead > 0);
    status.schema_version = result.as_ref().map(|result| result.newest).or(status.schema_version);
    if kind == JobKind::Migrate {
        status.state = MigrationState::Done;
        return Migration { expire: vec![(job, KEEP_SECONDS)], ..finished(status) };
    }
    let Some(result) = result else {
        // The pod was deleted, and the plan with it: plan again.
        let message = "the plan was lost with its pod: planning again".into();
        return Migration { expire: vec![(job, 1)], ..waiting(status, "MigrationPlanning", message, false) };
    };
    planned(cr, &job, status, result)
}

fn planned(cr: &PulseIngest, job: &str, mut status: MigrationsStatus, result: JobResult) -> Migration {
    let JobResult { pending, mut names, newest, destructive, ahead: _, hash } = result;
    if pending == 0 {
        status.state = MigrationState::Done;
        return Migration { expire: vec![(job.to_owned(), KEEP_SECONDS)], ..finished(status) };
    }
    names.truncate(5);
    let pending_list = format!("migrations up to version {newest} are pending ({pending}: {})", names.join(", "));
    status.state = MigrationState::Planned;
    status.plan_hash = Some(hash.clone());
    status.plan = Some(PlanSummary { pending, destructive, names });
    let manual = cr.spec.migrations.policy == MigrationPolicy::Manual;
    let (reason, message) = if manual {
        ("ManualMigrationNeeded", format!("{pending_list}: run `pulse migrate` with the new image"))
    } else {
        (NEEDS_APPROVAL, format!("{pending_list}: to approve the plan, set migrations.approvedPlan to {hash}"))
    };
    status.message = message.clone();
    // Policy Manual: the operator is not notified of a migration, so it plans again.
    let keep = if manual { RERUN_SECONDS } else { KEEP_SECONDS };
    Migration { expire: vec![(job.to_owned(), keep)], ..waiting(status, reason, message, true) }
}

fn running(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Plan => "MigrationPlanning",
        JobKind::Migrate => "MigrationRunning",
    }
}

fn finished(status: MigrationsStatus) -> Migration {
    let (expire, delete) = (Vec::new(), Vec::new());
    Migration { status, done: true, create: None, expire, delete, unended: false, waiting: None }
}

fn waiting(status: MigrationsStatus, reason: &'static str, message: String, needs_action: bool) -> Migration {
    let waiting = Some(MigrationWait { reason, message, needs_action });
    let (expire, delete) = (Vec::new(), Vec::new());
    Migration { status, done: false, create: None, expire, delete, unended: false, waiting }
}

fn is_final(exit_code: Option<i32>) -> bool {
    exit_code.is_some_and(|code| FINAL_EXIT_CODES.contains(&code))
}

fn failed_message(status: &MigrationsStatus) -> String {
    let code = status.exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    let next = if is_final(status.exit_code) {
        "correct the cause, then change migrations.trigger to run it again"
    } else {
        "it runs again"
    };
    format!("Job {} failed ({code}): {}; {next}", status.job_name, status.message)
}

#[cfg(test)]
mod tests;
