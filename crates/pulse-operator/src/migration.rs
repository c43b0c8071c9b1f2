//! Which Job should run for the schema, and whether the wanted revision may roll out. Pure.
//!
//! The truth is the table in the database; a Job that runs twice does no harm. A Job's name is made of all its inputs, so
//! that changed inputs are a new Job and an old Job is never edited. A Job that vanished without a result runs again:
//! nothing is taken for done because it is gone. Inputs that come back after others were tried run again too, because the
//! schema may have changed meanwhile: so the Job before is one of the inputs.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Deserialize;

use crate::crd::{
    MigrationPolicy, MigrationState, MigrationsSpec, MigrationsStatus, PlanSummary, PulseIngest, Revision,
};
use crate::desired::{CONTAINER, FINAL_EXIT_CODES, JobKind, JobRequest};
use crate::names::short_hash;
use crate::pods;

/// How long a Job is kept once its result is in the status, in seconds.
const KEEP_SECONDS: i32 = 86_400;
/// How soon a Job is removed so that it can run again, in seconds.
const AGAIN_SECONDS: i32 = 60;

/// What is known about the schema, and what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// For the status.
    pub status: MigrationsStatus,
    /// Whether the schema is there for the wanted revision.
    pub done: bool,
    /// A Job to create.
    pub create: Option<JobRequest>,
    /// Jobs whose results are known: to be removed after so many seconds.
    pub expire: Vec<(String, i32)>,
    /// Why the schema is not there, in a word and a sentence.
    pub waiting: Option<Waiting>,
}

/// Why the schema is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// For the condition's reason.
    pub reason: &'static str,
    /// For the condition's message.
    pub message: String,
    /// Whether somebody has to do something.
    pub needs_human: bool,
}

/// What a Job of ours says in its termination message.
#[derive(Debug, Deserialize)]
struct JobResult {
    pending: i64,
    names: Vec<String>,
    newest: i64,
    destructive: bool,
    ahead: i64,
    hash: String,
}

/// How a Job is.
enum JobOutcome {
    /// There is none of that name.
    Absent,
    /// It runs; a pod may have trouble to start.
    Running(Option<String>),
    Succeeded(Option<JobResult>),
    Failed {
        exit_code: Option<i32>,
        message: String,
    },
}

/// Plans the migration to `wanted`. `url_digest` is the digest of the database's URL, if that and its CA
/// can be read.
pub fn plan(
    cr: &PulseIngest,
    wanted: &Revision,
    url_digest: Option<&str>,
    jobs: &[Arc<Job>],
    job_pods: &[Arc<Pod>],
    now: Timestamp,
) -> Migration {
    let known = cr.status.as_ref().and_then(|status| status.migrations.clone()).unwrap_or_default();
    let Some(url_digest) = url_digest else {
        let runs = cr.status.as_ref().and_then(|status| status.active_revision.as_ref()) == Some(wanted);
        if runs && known.state == MigrationState::Done {
            return finished(known);
        }
        return waiting(known, "WaitingForReference", "the database's URL or its CA cannot be read".into(), false);
    };
    let (request, after) = next_request(cr, wanted, url_digest, &known);
    let ours = known.job_name == request.name;
    if ours && known.state == MigrationState::Done {
        return finished(known);
    }
    if ours && known.state == MigrationState::Failed && is_final(known.exit_code) {
        let message = failed_message(&known);
        return waiting(known, "MigrationFailed", message, true);
    }
    if ours && known.state == MigrationState::Planned && cr.spec.migrations.policy == MigrationPolicy::Plan {
        let message = known.message.clone();
        return waiting(known, "PlanNeedsApproval", message, true);
    }
    let outcome = outcome(&request.name, jobs, job_pods);
    if matches!(outcome, JobOutcome::Absent)
        && let Some(other) = jobs.iter().find(|job| is_running(job))
    {
        let status = MigrationsStatus { state: MigrationState::Running, ..known };
        let message = format!("Job {} has to end first", other.name_any());
        return waiting(status, "MigrationRunning", message, false);
    }
    advance(cr, request, after, outcome, known, now)
}

/// The Job that comes next under the policy, from what the status knows about earlier ones, and the one before it.
fn next_request(
    cr: &PulseIngest,
    wanted: &Revision,
    url_digest: &str,
    known: &MigrationsStatus,
) -> (JobRequest, String) {
    let MigrationsSpec { policy, approved_plan, allow_destructive, active_deadline_seconds: _, trigger } =
        &cr.spec.migrations;
    let name = |kind: JobKind, args: &[&str], after: &str| {
        let key = &wanted.database_url_secret_ref;
        let inputs = [kind.verb(), &wanted.image, &key.name, &key.key, trigger.as_deref().unwrap_or(""), url_digest];
        let after = Some(after).filter(|after| !after.is_empty());
        let hash = short_hash(inputs.into_iter().chain(args.iter().copied()).chain(after));
        format!("{}-{}-{hash}", cr.name_any(), kind.verb())
    };
    let request = |kind: JobKind, args: Vec<&str>| {
        // Either it is the one that the status is about, or it comes after that.
        let same = name(kind, &args, &known.after) == known.job_name;
        let after = if same { &known.after } else { &known.job_name };
        let name = name(kind, &args, after);
        let args = args.into_iter().map(str::to_owned).collect();
        (JobRequest { name, kind, revision: wanted.clone(), args }, after.clone())
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
                // A plan that was made of other inputs approves nothing of these.
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
    let ours = known.job_name == request.name;
    let mut status = MigrationsStatus {
        state: if kind == JobKind::Plan { MigrationState::Planning } else { MigrationState::Running },
        job_name: request.name.clone(),
        after,
        exit_code: None,
        message: String::new(),
        finished_at: None,
        // What was found out about other inputs says nothing about these, but the approved plan is carried out.
        plan_hash: if ours || kind == JobKind::Migrate { known.plan_hash.clone() } else { None },
        plan: if ours || kind == JobKind::Migrate { known.plan.clone() } else { None },
        schema_version: known.schema_version,
        ahead: None,
    };
    let finished_at = known.finished_at.clone().filter(|_| ours).unwrap_or(Time(now));
    if ours && known.state == MigrationState::Planned && matches!(outcome, JobOutcome::Absent | JobOutcome::Running(_))
    {
        // By hand: look again, and say the same until the answer is another.
        let message = known.message.clone();
        let create = matches!(outcome, JobOutcome::Absent).then_some(request);
        return Migration { create, ..waiting(known, "ManualMigrationNeeded", message, true) };
    }
    let verb = if kind == JobKind::Plan { "planning" } else { "migrating" };
    match outcome {
        JobOutcome::Absent => {
            let message = format!("{verb} with Job {}", request.name);
            Migration { create: Some(request), ..waiting(status, running(kind), message, false) }
        }
        JobOutcome::Running(None) => {
            let message = format!("{verb} with Job {}", request.name);
            waiting(status, running(kind), message, false)
        }
        JobOutcome::Running(Some(trouble)) => {
            let message = format!("the pod of Job {} does not start: {trouble}", request.name);
            waiting(status, "MigrationPodNotStarting", message, false)
        }
        JobOutcome::Failed { exit_code, message } => {
            status.state = MigrationState::Failed;
            status.exit_code = exit_code;
            status.message = message;
            status.finished_at = Some(finished_at);
            let last = is_final(exit_code);
            let text = failed_message(&status);
            let keep = if last { KEEP_SECONDS } else { AGAIN_SECONDS };
            Migration { expire: vec![(request.name, keep)], ..waiting(status, "MigrationFailed", text, last) }
        }
        JobOutcome::Succeeded(result) => {
            status.finished_at = Some(finished_at);
            status.ahead = result.as_ref().map(|result| result.ahead).filter(|ahead| *ahead > 0);
            status.schema_version = result.as_ref().map(|result| result.newest).or(status.schema_version);
            if kind == JobKind::Migrate {
                status.state = MigrationState::Done;
                return Migration { expire: vec![(request.name, KEEP_SECONDS)], ..finished(status) };
            }
            let Some(result) = result else {
                // Its pod is gone, and with it the plan: again.
                return Migration {
                    expire: vec![(request.name, 1)],
                    ..waiting(status, "MigrationPlanning", "the plan was lost: planning again".into(), false)
                };
            };
            planned(cr, &request.name, status, result)
        }
    }
}

fn planned(cr: &PulseIngest, job: &str, mut status: MigrationsStatus, result: JobResult) -> Migration {
    let JobResult { pending, mut names, newest, destructive, ahead: _, hash } = result;
    if pending == 0 {
        status.state = MigrationState::Done;
        return Migration { expire: vec![(job.to_owned(), KEEP_SECONDS)], ..finished(status) };
    }
    names.truncate(5);
    let listed = names.join(", ");
    status.state = MigrationState::Planned;
    status.plan_hash = Some(hash.clone());
    status.plan = Some(PlanSummary { pending, destructive, names });
    let manual = cr.spec.migrations.policy == MigrationPolicy::Manual;
    let (reason, message) = if manual {
        (
            "ManualMigrationNeeded",
            format!(
                "{pending} migrations up to {newest} are pending ({listed}): run `pulse migrate` with the new image"
            ),
        )
    } else {
        (
            "PlanNeedsApproval",
            format!(
                "{pending} migrations up to {newest} are pending ({listed}): to approve them, set migrations.approvedPlan to {hash}"
            ),
        )
    };
    status.message = message.clone();
    // By hand means that nobody tells us: look again.
    let keep = if manual { AGAIN_SECONDS } else { KEEP_SECONDS };
    Migration { expire: vec![(job.to_owned(), keep)], ..waiting(status, reason, message, true) }
}

fn running(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Plan => "MigrationPlanning",
        JobKind::Migrate => "MigrationRunning",
    }
}

fn finished(status: MigrationsStatus) -> Migration {
    Migration { status, done: true, create: None, expire: Vec::new(), waiting: None }
}

fn waiting(status: MigrationsStatus, reason: &'static str, message: String, needs_human: bool) -> Migration {
    let waiting = Some(Waiting { reason, message, needs_human });
    Migration { status, done: false, create: None, expire: Vec::new(), waiting }
}

fn is_final(exit_code: Option<i32>) -> bool {
    exit_code.is_some_and(|code| FINAL_EXIT_CODES.contains(&code))
}

fn failed_message(status: &MigrationsStatus) -> String {
    let code = status.exit_code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
    let again = if is_final(status.exit_code) { "change what it says" } else { "it runs again" };
    format!("Job {} failed ({code}): {}; {again}", status.job_name, status.message)
}

fn is_running(job: &Job) -> bool {
    job.metadata.deletion_timestamp.is_none() && ended(job).is_none()
}

/// `Complete` or `Failed`, with the message.
fn ended(job: &Job) -> Option<(&str, String)> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| {
        condition.status == "True" && (condition.type_ == "Complete" || condition.type_ == "Failed")
    });
    ended.next().map(|condition| (condition.type_.as_str(), condition.message.clone().unwrap_or_default()))
}

fn outcome(name: &str, jobs: &[Arc<Job>], job_pods: &[Arc<Pod>]) -> JobOutcome {
    let Some(job) = jobs.iter().find(|job| job.name_any() == name) else { return JobOutcome::Absent };
    if job.metadata.deletion_timestamp.is_some() {
        return JobOutcome::Running(None);
    }
    let mut pods: Vec<&Arc<Pod>> = job_pods
        .iter()
        .filter(|pod| pod.labels().get("batch.kubernetes.io/job-name").is_some_and(|of| of == name))
        .collect();
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let last = pods.iter().rev().find_map(|pod| terminated(pod));
    if last.is_none() && !pods.is_empty() && ended(job).is_some() {
        // Its pod has ended too, but the watch of pods is behind the one of Jobs.
        return JobOutcome::Running(None);
    }
    match ended(job) {
        None => JobOutcome::Running(pods.iter().rev().find_map(|pod| pods::trouble(pod))),
        Some(("Complete", _)) => {
            let text = last.and_then(|state| state.message.clone());
            JobOutcome::Succeeded(text.and_then(|text| serde_json::from_str(&text).ok()))
        }
        Some((_, message)) => JobOutcome::Failed {
            exit_code: last.map(|state| state.exit_code),
            message: last.and_then(|state| state.message.clone()).map_or(message, |text| last_line(&text)),
        },
    }
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    // Others may have put a container of their own beside ours.
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.find(|status| status.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()
}

/// The line that says why, cut to what a status may hold.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().take(1000).collect()
}

#[cfg(test)]
#[path = "migration_tests.rs"]
mod tests;
