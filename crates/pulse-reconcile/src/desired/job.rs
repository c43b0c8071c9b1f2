//! Builds the Job that plans or carries out a migration. Its name contains a hash of all its inputs, so it is created
//! once and never changed.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use pulse_crd::names;
use pulse_crd::{PulseIngest, Revision};

use super::pod::{CONTAINER, Pod};
use super::secrets::{self, SecretFiles};
use crate::condition::ConditionStatus;

/// Purpose of a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Plans the migration without carrying it out.
    Plan,
    /// Migrates the schema.
    Migrate,
}

impl JobKind {
    /// Returns the middle part of the Job's name.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Migrate => "migrate",
        }
    }
}

/// A Job to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequest {
    /// `<cr>-<plan|migrate>-<hash of all inputs>`.
    pub name: String,
    /// Purpose of the Job.
    pub kind: JobKind,
    /// Revision whose image runs.
    pub revision: Revision,
    /// Arguments of the binary.
    pub args: Vec<String>,
}

/// Exit codes that no retry can change, see docs/reference/exit-codes.md.
pub const FINAL_EXIT_CODES: std::ops::RangeInclusive<i32> = 20..=25;
/// Time between the limit of `pulse migrate` and the deadline of the Job, which deletes the pod and with it the last
/// line of output.
const MARGIN_SECONDS: u32 = 30;

/// # Errors
/// What is wrong with the pod template.
pub(super) fn job(cr: &PulseIngest, request: &JobRequest) -> Result<Job, String> {
    let JobRequest { name, kind: _, revision, args } = request;
    let deadline = cr.spec.migrations.active_deadline_seconds;
    let mut pod = Pod::new(cr, names::MIGRATION, &revision.image, args.clone());
    pod.is_job = true;
    pod.grace_seconds = cr.spec.migrations.pod_template.termination_grace_period_seconds;
    pod.env = vec![
        secrets::value("PULSE_INSTANCE", names::instance_id(cr)),
        secrets::value("PULSE_LOG_FORMAT", "json"),
        secrets::value("PULSE_IMAGE", &revision.image),
        secrets::value("PULSE_TIME_LIMIT", format!("{}s", deadline - MARGIN_SECONDS)),
        secrets::value("PULSE_RESULT_FILE", "/dev/termination-log"),
        secrets::secret("PULSE_DATABASE_URL", cr.spec.database.migration_url()),
    ];
    let roles =
        [("PULSE_SERVING_ROLE", &cr.spec.database.serving_role), ("PULSE_READ_ROLE", &cr.spec.database.read_role)];
    pod.env.extend(roles.into_iter().filter_map(|(name, role)| Some(secrets::value(name, role.as_deref()?))));
    pod.files = SecretFiles::of_database(cr);
    pod.env.extend(secrets::variables(cr, &pod.files));
    Ok(Job {
        metadata: names::metadata(cr, name.clone(), names::MIGRATION),
        spec: Some(JobSpec {
            backoff_limit: Some(3),
            active_deadline_seconds: Some(i64::from(deadline)),
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: Some(failure_policy()),
            template: pod.build()?,
            ..JobSpec::default()
        }),
        ..Job::default()
    })
}

/// Disruptions do not count as failures, and a final exit code ends the Job.
fn failure_policy() -> PodFailurePolicy {
    let rule = |action: &str| PodFailurePolicyRule { action: action.into(), ..PodFailurePolicyRule::default() };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: ConditionStatus::True.as_str().into(),
                }]),
                ..rule("Ignore")
            },
            PodFailurePolicyRule {
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.into()),
                    operator: "In".into(),
                    values: FINAL_EXIT_CODES.collect(),
                }),
                ..rule("FailJob")
            },
        ],
    }
}
