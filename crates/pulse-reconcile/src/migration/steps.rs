//! Takes the next step of a migration, from the outcome of its Job.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pulse_crd::{MigrationPolicy, MigrationState, MigrationsStatus, PlanSummary, PulseIngest};

use super::outcome::{JobOutcome, JobResult};
use super::state::{Migration, MigrationWait, NEEDS_APPROVAL, POD_NOT_STARTING};
use crate::desired::{FINAL_EXIT_CODES, JobKind, JobRequest};

/// Time for which a Job is kept once its result is in the status, in seconds.
pub(super) const KEEP_SECONDS: i32 = 86_400;
/// Time after which an ended Job is removed so that it can run again, in seconds.
pub(super) const RERUN_SECONDS: i32 = 60;

pub(super) fn advance(
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

pub(super) fn finished(status: MigrationsStatus) -> Migration {
    let (expire, delete) = (Vec::new(), Vec::new());
    Migration { status, done: true, create: None, expire, delete, unended: false, waiting: None }
}

pub(super) fn waiting(
    status: MigrationsStatus,
    reason: &'static str,
    message: String,
    needs_action: bool,
) -> Migration {
    let waiting = Some(MigrationWait { reason, message, needs_action });
    let (expire, delete) = (Vec::new(), Vec::new());
    Migration { status, done: false, create: None, expire, delete, unended: false, waiting }
}

pub(super) fn is_final(exit_code: Option<i32>) -> bool {
    exit_code.is_some_and(|code| FINAL_EXIT_CODES.contains(&code))
}

pub(super) fn failed_message(status: &MigrationsStatus) -> String {
    let code = status.exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    let next = if is_final(status.exit_code) {
        "correct the cause, then change migrations.trigger to run it again"
    } else {
        "it runs again"
    };
    format!("Job {} failed ({code}): {}; {next}", status.job_name, status.message)
}
